import json

import numpy as np
import pytest
import torch

from vla.checkpoints.mask_codec import load_mask_codec
from vla.data.mask_batches import drawn_masks
from vla.models import mask_codec
from vla.models.mask_codec import MaskCodec, MaskCodecConfig
from vla.training.config import OptimConfig, TrainingConfig
from vla.training.mask_codec import pretrain_mask_codec, reconstruction_ious
from vla.training.mask_codec_config import MaskCodecStageConfig
from vla.training.pretrain_config import PretrainConfig, Stage
from vla.training.track import JsonlTracker, read_jsonl

SMALL = MaskCodecConfig(
    encoder_widths=(4, 4, 8, 8), residual_width=8, decoder_widths=(8, 8, 4, 4), codeword_width=8
)


def config(steps: int, *, resume: bool = False) -> PretrainConfig:
    return PretrainConfig(
        stage=Stage.MASK_CODEC,
        resume=resume,
        mask_codec=MaskCodecStageConfig(drawn_masks=60, validation_masks=16, revival_chance=0.2),
        training=TrainingConfig(
            steps=steps,
            batch_size=16,
            num_threads=1,
            log_every=10,
            validate_every=steps,
            checkpoint_every=20,
            optim=OptimConfig(learning_rate=5e-3, warmup_steps=5, ema_decay=0.9, weight_decay=0.0),
        ),
    )


def test_a_short_run_learns_uses_more_codewords_and_leaves_a_codec_behind(tmp_path, monkeypatch):
    monkeypatch.setitem(mask_codec.MASK_CODEC_PRESETS, "tiny", SMALL)
    tracker = JsonlTracker(tmp_path / "metrics.jsonl")
    summary = pretrain_mask_codec(config(60), tmp_path, tracker)
    tracker.close()
    rows = read_jsonl(tmp_path / "metrics.jsonl")
    before, after = (row for row in rows if "validation/iou_drawn" in row)
    losses = [row["train/pixels"] for row in rows if "train/pixels" in row]
    assert losses[-1] < 0.9 * losses[0]
    assert after["validation/codewords_used_drawn"] > 2 * before["validation/codewords_used_drawn"]
    assert any(row.get("train/revived_codewords", 0) > 0 for row in rows)
    codec = load_mask_codec(tmp_path)
    assert codec.config == SMALL
    ious = reconstruction_ious(codec, drawn_masks(1_000_000, 16))
    assert np.isclose(np.mean(ious), summary["metrics"]["iou_drawn"], atol=0.02)


class StoppedError(Exception):
    pass


class Silent:
    """A tracker that keeps nothing, and stops the run at a step."""

    def __init__(self, stops_at: int | None = None) -> None:
        self.stops_at = stops_at

    def log(self, metrics, step):
        if step == self.stops_at:
            raise StoppedError

    def close(self):
        pass


def test_a_run_that_was_stopped_goes_on_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.setitem(mask_codec.MASK_CODEC_PRESETS, "tiny", SMALL)
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    pretrain_mask_codec(config(40), whole, Silent())
    with pytest.raises(StoppedError):  # after the checkpoint at 20
        pretrain_mask_codec(config(40), parted, Silent(stops_at=30))
    pretrain_mask_codec(config(40, resume=True), parted, Silent())
    ours, theirs = (load_mask_codec(path).state_dict() for path in (whole, parted))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_codec_that_copies_its_input_has_an_iou_of_one_up_to_the_box():
    """The path around the codec, crop, location tokens and paste, costs next to nothing."""

    class Copies(MaskCodec):
        def encode(self, masks):
            self.kept = masks
            return torch.zeros(len(masks), 16, dtype=torch.int64)

        def decode(self, codes):
            return self.kept

    ious = reconstruction_ious(Copies(SMALL), drawn_masks(1_000_000, 60))
    assert np.mean(ious) > 0.99


def test_the_summary_is_plain_json(tmp_path, monkeypatch):
    monkeypatch.setitem(mask_codec.MASK_CODEC_PRESETS, "tiny", SMALL)
    summary = pretrain_mask_codec(config(2), tmp_path, Silent())
    assert json.loads(json.dumps(summary))["parameters"] < 20_000
