"""No caption of a batch is true of another picture in it, as far as the captions tell."""

import numpy as np
import pytest
import torch
from fake_pictures import scene_rows
from tokenizers import Tokenizer

from vla.data.caption_pairs import PairBatches
from vla.data.scene_pictures import ScenePictures, gather_pictures, whole_captions
from vla.errors import ConfigError, DatasetError
from vla.tokenizers.text import train_text_tokenizer

TRAIN, HELD_OUT = gather_pictures([*scene_rows(200), *scene_rows(8, first_seed=1_000_000)], 32)


def tokenizer() -> Tokenizer:
    return train_text_tokenizer([text for texts in TRAIN.captions for text in texts], 300)


def batches(scenes: ScenePictures = TRAIN, **changes: object) -> PairBatches:
    options = {"max_tokens": 24, "batch_size": 16, "seed": 0, **changes}
    return PairBatches(scenes, tokenizer(), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("step", range(5))
def test_no_chosen_caption_is_among_those_of_another_picture(step: int):
    pairs = batches()._distinct(step, 16)
    for picture, text in pairs:
        others = [TRAIN.captions[other] for other, _ in pairs if other != picture]
        assert text in TRAIN.captions[picture]
        assert not any(text in captions for captions in others)


def test_a_scene_comes_once_a_batch_even_with_two_pictures():
    twice = ScenePictures(
        pictures=np.concatenate([TRAIN.pictures[:40]] * 2),
        captions=TRAIN.captions[:40]
        + [[f"{text} again" for text in own] for own in TRAIN.captions[:40]],
        scene_seeds=np.concatenate([TRAIN.scene_seeds[:40]] * 2),
    )
    pairs = batches(twice)._distinct(0, 16)
    assert len({int(twice.scene_seeds[picture]) for picture, _ in pairs}) == 16


def test_the_same_step_gives_the_same_batch_and_another_seed_another():
    first, again, other = batches().at(3), batches().at(3), batches(seed=1).at(3)
    assert torch.equal(first.ids, again.ids)
    assert torch.equal(first.pictures, again.pictures)
    assert not torch.equal(first.ids, other.ids)


def test_shards_are_the_pieces_of_one_larger_batch():
    whole = batches(batch_size=16).at(2)
    pieces = [batches(batch_size=8, shard=(rank, 2)).at(2) for rank in range(2)]
    assert torch.equal(whole.ids, torch.cat([piece.ids for piece in pieces]))


def test_too_few_different_captions_are_one_clear_error():
    alike = ScenePictures(
        pictures=TRAIN.pictures[:20], captions=[["a red square"]] * 20, scene_seeds=np.arange(20)
    )
    with pytest.raises(
        ConfigError, match="no 16 of the 20 pictures have captions of their own; found 1"
    ):
        batches(alike).at(0)


def test_a_long_caption_is_cut_and_keeps_its_end_token():
    short = batches(max_tokens=6)
    assert short.share_cut == 1.0
    assert (short.at(0).ids[:, -1] == tokenizer().token_to_id("<eos>")).all()


def test_captions_that_leave_things_out_are_left_out():
    (row,) = scene_rows(1)
    whole = row.captions
    object.__setattr__(row, "captions", (*whole, f"a {row.objects[0].name}"))
    assert whole_captions(row) == list(whole)


def test_scenes_of_one_split_alone_are_refused():
    with pytest.raises(DatasetError, match="no picture has a scene seed from 1,000,000 on"):
        gather_pictures(scene_rows(3), 32)
