from pathlib import Path

import numpy as np
import pytest
import torch
from fake_data import make_episode, write_dataset

from vla.data.collate import BatchConfig, Batches, Split
from vla.data.jitter import ColorJitterConfig
from vla.data.lerobot import Frames, open_frames
from vla.data.stats import ActionStatistics, StateStatistics
from vla.errors import ConfigError, DatasetError
from vla.tokenizers.action_bins import ActionBins
from vla.types import TABLETOP

SPEC = TABLETOP.action_spec


def _frames(root: Path, lengths: list[int], first_seed: int = 0, size: int = 16) -> Frames:
    episodes = [make_episode(first_seed + k, length, size) for k, length in enumerate(lengths)]
    return open_frames(
        write_dataset(root, episodes, size=size), cameras=["wrist", "front"], cache=False
    )


class CountingTokenizer:
    """One token per letter; counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, instructions):
        self.calls += 1
        ids, valid = (
            np.zeros((len(instructions), 20), np.int64),
            np.zeros((len(instructions), 20), bool),
        )
        for row, text in enumerate(instructions):
            ids[row, : len(text)] = [ord(letter) for letter in text]
            valid[row, : len(text)] = True
        return ids, valid


def _batches(frames: list[Frames], cfg: BatchConfig | None = None, **changes) -> Batches:
    actions = ActionStatistics.from_array(np.concatenate([f.actions for f in frames]), SPEC)
    states = StateStatistics.from_array(
        np.concatenate([f.state for f in frames]), TABLETOP.state_spec
    )
    settings = {
        "chunk_length": 3,
        "batch_size": 4,
        "seed": 0,
        "cfg": cfg or BatchConfig(val_fraction=0.0),
    } | changes
    return Batches(
        frames,
        actions,
        states,
        settings.pop("tokenizer", CountingTokenizer()),
        spec=SPEC,
        **settings,
    )


def _order(batches: Batches, steps: int) -> list[bytes]:
    return [row.numpy().tobytes() for k in range(steps) for row in batches.at(k).actions[:, 0]]


def test_a_sample_is_what_was_recorded(tmp_path):
    frames = _frames(tmp_path, [5, 4, 6])
    batches = _batches([frames], batch_size=15)
    batch = batches.at(0)
    rows = {tuple(frames.actions[i]): i for i in range(15)}
    found = [
        rows[tuple(first.tolist())] for first in batch.actions[:, 0].numpy().astype(np.float32)
    ]
    assert sorted(found) == list(range(15))
    for sample, row in enumerate(found):
        np.testing.assert_array_equal(
            batch.images[sample, 0].permute(1, 2, 0), frames.images["wrist"][row]
        )
        np.testing.assert_array_equal(
            batch.images[sample, 1].permute(1, 2, 0), frames.images["front"][row]
        )
        np.testing.assert_array_equal(batch.grounding[sample], frames.environment_state[row])
        text = "".join(chr(i) for i in batch.text_ids[sample, batch.text_valid[sample]])
        assert text == frames.tasks[frames.task_index[row]]


def test_shapes_and_types_are_as_promised(tmp_path):
    batch = _batches([_frames(tmp_path, [5, 4])]).at(0)
    assert (batch.images.shape, batch.images.dtype) == ((4, 2, 3, 16, 16), torch.uint8)
    assert (batch.action_bins.shape, batch.action_bins.dtype) == ((4, 3, 7), torch.int64)
    assert (batch.action_valid.shape, batch.action_valid.dtype) == ((4, 3), torch.bool)
    assert (batch.state.shape, batch.state.dtype) == ((4, 7), torch.float32)
    assert batch.state.abs().max() <= 1


def test_bins_are_those_of_the_normalised_actions(tmp_path):
    frames = _frames(tmp_path, [5, 4, 6])
    batch = _batches([frames], batch_size=15).at(0)
    statistics = ActionStatistics.from_array(frames.actions, SPEC)
    np.testing.assert_array_equal(
        batch.action_bins, ActionBins.encode(statistics.normalize(batch.actions.numpy()))
    )


def test_beyond_the_end_relative_dimensions_rest_and_absolute_ones_repeat(tmp_path):
    frames = _frames(tmp_path, [4])
    batch = _batches([frames], batch_size=4).at(0)
    last = next(i for i in range(4) if np.array_equal(batch.actions[i, 0], frames.actions[3]))
    assert (batch.actions[last, 1:, :6] == 0).all()
    assert (batch.actions[last, 1:, 6] == float(frames.actions[3, 6])).all()
    assert batch.action_valid.all()


def test_actions_beyond_the_end_can_be_left_out_of_the_loss(tmp_path):
    frames = _frames(tmp_path, [4])
    batch = _batches(
        [frames], BatchConfig(val_fraction=0.0, train_past_end=False), batch_size=4
    ).at(0)
    assert sorted(batch.action_valid.sum(1).tolist()) == [1, 2, 3, 3]


def test_no_chunk_runs_into_the_next_episode(tmp_path):
    frames = _frames(tmp_path, [4, 4])
    batch = _batches([frames], batch_size=8).at(0)
    first_of_second = frames.actions[4]
    for chunk in batch.actions.numpy():
        assert not any(np.array_equal(action, first_of_second) for action in chunk[1:])


def test_an_epoch_shows_every_frame_once_even_where_batches_do_not_divide_it(tmp_path):
    frames = _frames(tmp_path, [5, 4, 6])
    batches = _batches([frames])
    seen = _order(batches, 15)  # 15 batches of 4 are 4 epochs of 15
    assert batches.len_epoch == 4
    assert all(seen.count(row.tobytes()) == 4 for row in frames.actions)


def test_a_resumed_run_sees_the_same_batches(tmp_path):
    frames = _frames(tmp_path, [5, 4, 6])
    jitter = BatchConfig(
        val_fraction=0.0, jitter=ColorJitterConfig(brightness=0.2, contrast=0.2, saturation=0.2)
    )
    straight = [_batches([frames], jitter).at(k) for k in range(9)]
    resumed = list(_batches([frames], jitter).prefetch(5, 9))
    for expected, found in zip(straight[5:], resumed, strict=True):
        for name in ("images", "text_ids", "state", "action_bins", "actions", "grounding"):
            assert torch.equal(getattr(expected, name), getattr(found, name)), name


def test_jitter_touches_training_pictures_only(tmp_path):
    frames = _frames(tmp_path, [5] * 8)
    cfg = BatchConfig(val_fraction=0.3, jitter=ColorJitterConfig(brightness=0.3))
    plain = BatchConfig(val_fraction=0.3)
    for split, is_same in ((Split.TRAIN, False), (Split.VAL, True)):
        pictures = [_batches([frames], c, split=split).at(0).images for c in (cfg, plain)]
        assert torch.equal(*pictures) is is_same


def test_no_frame_is_both_trained_on_and_validated(tmp_path):
    frames = _frames(tmp_path, [5] * 10)
    cfg = BatchConfig(val_fraction=0.3)
    train, val = (_batches([frames], cfg, split=split) for split in Split)
    assert train.num_samples + val.num_samples == 50
    assert not set(_order(train, train.len_epoch)) & set(_order(val, val.len_epoch))


def test_validation_ends_with_a_smaller_batch_and_begins_again_alike(tmp_path):
    val = _batches([_frames(tmp_path, [5] * 10)], BatchConfig(val_fraction=0.3), split=Split.VAL)
    sizes = [len(val.at(k).state) for k in range(val.len_epoch)]
    assert sum(sizes) == val.num_samples
    assert torch.equal(val.at(0).actions, val.at(val.len_epoch).actions)


def test_several_datasets_are_mixed_by_weight(tmp_path):
    frames = [_frames(tmp_path / "a", [10, 10]), _frames(tmp_path / "b", [10, 10], first_seed=50)]
    batches = _batches(frames, BatchConfig(val_fraction=0.0, weights=[1.0, 0.5]))
    assert batches.num_samples == 30
    seen = _order(batches, 15)  # two epochs
    assert [sum(seen.count(row.tobytes()) for row in f.actions) for f in frames] == [40, 20]


def test_each_task_is_tokenised_once(tmp_path):
    tokenizer = CountingTokenizer()
    batches = _batches([_frames(tmp_path, [5, 4, 6])], tokenizer=tokenizer)
    for step in range(4):
        batches.at(step)
    assert tokenizer.calls == 1


def test_grounding_is_absent_unless_every_dataset_has_it(tmp_path):
    from dataclasses import replace

    frames = [_frames(tmp_path / "a", [5]), _frames(tmp_path / "b", [5])]
    assert _batches(frames).at(0).grounding is not None
    assert _batches([frames[0], replace(frames[1], environment_state=None)]).at(0).grounding is None


def test_datasets_that_do_not_fit_each_other_are_refused(tmp_path):
    frames = [_frames(tmp_path / "a", [5]), _frames(tmp_path / "b", [5], size=32)]
    with pytest.raises(DatasetError, match="cannot be mixed"):
        _batches(frames)


def test_a_split_without_episodes_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="no episode is left for val"):
        _batches([_frames(tmp_path, [5])], BatchConfig(val_fraction=0.2), split=Split.VAL)


def test_prefetching_keeps_the_order_and_passes_errors_on(tmp_path, monkeypatch):
    batches = _batches([_frames(tmp_path, [5, 4])])
    expected = [batches.at(k).actions for k in range(3)]
    assert all(
        torch.equal(a, b.actions)
        for a, b in zip(expected, batches.prefetch(0, 3, depth=1), strict=True)
    )
    real_at = batches.at

    def failing(step: int):
        if step == 2:
            raise OSError("disk gone")
        return real_at(step)

    monkeypatch.setattr(batches, "at", failing)
    with pytest.raises(OSError, match="disk gone"):
        list(batches.prefetch(0, 5))


def test_a_prefetcher_that_is_left_early_ends_its_thread(tmp_path):
    import threading

    batches = _batches([_frames(tmp_path, [5, 4])])
    stream = batches.prefetch(0, 1000, depth=2)
    next(stream)
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "batches"]


def test_normalised_actions_are_those_of_the_bins_and_rest_where_the_episode_is_over(tmp_path):
    frames = _frames(tmp_path, [5, 4])
    batch = _batches([frames], batch_size=9).at(0)
    statistics = ActionStatistics.from_array(frames.actions, SPEC)
    expected = statistics.normalize(batch.actions.numpy())
    np.testing.assert_array_equal(batch.normalized.numpy(), expected)
    np.testing.assert_array_equal(ActionBins.encode(expected), batch.action_bins.numpy())


def test_words_are_made_up_in_training_alone_anew_for_each_sample_and_the_same_for_a_step(tmp_path):
    class Reader(CountingTokenizer):
        def __call__(self, instructions):
            if any(len(text) > 20 for text in instructions):
                raise ConfigError("too long")
            return super().__call__(instructions)

    frames = _frames(tmp_path, [12, 12, 12, 12])
    cfg = BatchConfig(val_fraction=0.25, unknown_words=0.4)
    make = lambda split: _batches(  # noqa: E731
        [frames], cfg, batch_size=32, split=split, tokenizer=Reader()
    )
    said = lambda batch: [  # noqa: E731
        "".join(chr(i) for i in ids[valid])
        for ids, valid in zip(batch.text_ids, batch.text_valid, strict=True)
    ]
    training = said(make(Split.TRAIN).at(0))
    assert any(text not in frames.tasks for text in training)
    assert any(text in frames.tasks for text in training)
    assert len(set(training)) > 8
    assert training == said(make(Split.TRAIN).at(0))
    assert training != said(make(Split.TRAIN).at(1))
    assert set(said(make(Split.VAL).at(0))) <= set(frames.tasks)
