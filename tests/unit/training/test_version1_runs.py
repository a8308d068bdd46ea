"""Runs that an earlier version began."""

import pytest
import torch
from fake_data import make_episode, write_dataset
from version1_checkpoints import as_version_1

from vla.checkpoints import native
from vla.cli import train
from vla.training.config import (
    BackboneConfig,
    DataConfig,
    OptimConfig,
    Precision,
    RunConfig,
    TrainingConfig,
)


class Killed(BaseException):
    """Stands for a kill."""


def test_a_run_of_version_1_is_resumed_bit_for_bit_and_fine_tuned(tmp_path, monkeypatch):
    data = write_dataset(tmp_path / "data", [make_episode(k, 6) for k in range(6)])
    whole, torn, tuned = (tmp_path / name for name in ("whole", "torn", "tuned"))

    def run(directory, **changes):
        cfg = RunConfig(
            data=DataConfig(roots=[str(data)], validation_fraction=0.2),
            backbone=BackboneConfig(
                image_size=16, width=32, depth=1, vision_width=32, vision_depth=1, chunk_length=2, text_vocab_size=270
            ),
            training=TrainingConfig(
                steps=4, batch_size=4, precision=Precision.FP32, num_threads=1, validation_batches=1,
                checkpoint_every=2, optim=OptimConfig(learning_rate=3e-3, warmup_steps=1),
            ),
            **changes,
        )  # fmt: skip
        train.run(cfg, directory)
        return native.load(directory)

    expected = run(whole)
    original, steps = torch.optim.AdamW.step, iter(range(4))

    def step_or_die(self, *args):
        if next(steps) == 3:  # after the checkpoint of step 2
            raise Killed
        return original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step_or_die)
        with pytest.raises(Killed):
            run(torn)
    as_version_1(native.find(torn))
    old = native.read_config(native.find(torn))
    assert old["format_version"] == 1

    found = run(tuned, init_from=str(torn))
    assert found.tokenizer.to_str() == expected.tokenizer.to_str()
    assert found.contract.to_dict()["action_statistics"] == old["action_statistics"]

    resumed = run(torn, resume=True)
    assert native.read_config(resumed.directory)["format_version"] == 2
    for name, tensor in expected.model.state_dict().items():
        assert tensor.equal(resumed.model.state_dict()[name]), name
