"""What a patch is said to show."""

import dataclasses

import numpy as np
import pytest
import torch
from fake_scenes import fake_scenes

from vla.data.patch_targets import (
    NOTHING,
    UNKNOWN,
    PatchBatches,
    gather_patch_targets,
    patch_targets,
)
from vla.errors import DatasetError

ROWS = [*fake_scenes(6, size=32), *fake_scenes(3, first_seed=1_000_000, size=32)]
WORDS = sorted({item.name for row in ROWS for item in row.objects})


def test_a_patch_names_the_object_that_fills_it_and_knows_the_whole_box():
    row = ROWS[0]
    names, boxes = patch_targets(row, WORDS, 8)
    item = row.objects[0]
    filled = item.mask.reshape(8, 4, 8, 4).all(axis=(1, 3)).ravel()
    assert filled.any()
    assert set(names[filled]) == {WORDS.index(item.name) + 1}
    np.testing.assert_allclose(boxes[filled], np.tile(item.box, (filled.sum(), 1)), atol=1e-6)


def test_a_patch_without_any_object_shows_nothing_and_has_no_box():
    row = ROWS[0]
    names, boxes = patch_targets(row, WORDS, 8)
    masks = np.stack([item.mask for item in row.objects]).any(axis=0)
    empty = ~masks.reshape(8, 4, 8, 4).any(axis=(1, 3)).ravel()
    assert empty.any()
    assert (names[empty] == NOTHING).all()
    assert (boxes[names <= NOTHING] == 0).all()


def test_what_a_person_could_not_name_is_not_taught():
    row = ROWS[0]
    unclear = tuple(dataclasses.replace(item, is_clear=False) for item in row.objects)
    names, boxes = patch_targets(dataclasses.replace(row, objects=unclear), WORDS, 8)
    assert set(names) == {UNKNOWN, NOTHING}
    assert not boxes.any()


def test_held_out_scenes_are_kept_apart():
    train, held_out, words = gather_patch_targets(ROWS, image_size=16, patch_size=8)
    assert (len(train.pictures), len(held_out.pictures)) == (6, 3)
    assert train.pictures.shape[1:] == (3, 16, 16)
    assert words == WORDS
    with pytest.raises(DatasetError, match="from 1,000,000 on"):
        gather_patch_targets(ROWS[:6], image_size=16, patch_size=8)


def test_the_same_step_has_the_same_batch():
    train, _, _ = gather_patch_targets(ROWS, image_size=16, patch_size=8)
    one, other = (PatchBatches(train, batch_size=4, seed=1) for _ in range(2))
    assert torch.equal(one.at(5).names, other.at(5).names)
    assert not torch.equal(one.at(5).pictures, one.at(6).pictures)
