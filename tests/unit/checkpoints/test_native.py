import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from version1_checkpoints import as_version_1

from vla.checkpoints import folder, native
from vla.checkpoints.contract import Contract
from vla.checkpoints.native import TrainingState, WeightsDtype
from vla.data.stats import ActionStatistics, StateStatistics
from vla.errors import CheckpointError
from vla.inference.engine import ActionEngine
from vla.models.action_config import ActionConfig, ActionDecoding
from vla.models.action_model import VisionLanguageAction
from vla.models.backbones.families import Family
from vla.models.backbones.prismatic import Prismatic
from vla.models.backbones.prismatic_config import tiny
from vla.models.decoder_config import Head
from vla.tokenizers.prompt import PromptTemplate
from vla.tokenizers.text import train_text_tokenizer
from vla.training.config import BackboneConfig
from vla.training.shapes import action_config, small_backbone
from vla.types import TABLETOP


@pytest.fixture(scope="module")
def tokenizer():
    return train_text_tokenizer(["pick up the red cube", "push the blue ball"] * 2, 400)


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    size = tokenizer.get_vocab_size()
    shape = tiny(size, width=32, depth=1, vision_width=32, vision_depth=1)
    return VisionLanguageAction(Prismatic(shape), ActionConfig(text_vocab_size=size))


@pytest.fixture(scope="module")
def contract():
    rng = np.random.default_rng(0)
    return Contract(
        embodiment=TABLETOP,
        image_size=64,
        action_statistics=ActionStatistics.from_array(
            rng.normal(size=(50, 7)), TABLETOP.action_spec
        ),
        state_statistics=StateStatistics.from_array(rng.normal(size=(50, 7)), TABLETOP.state_spec),
        prompt=PromptTemplate.PLAIN,
        max_text_tokens=16,
        training={"steps": 10, "datasets": ["a"], "metrics": {"loss": 0.1}},
    )


@pytest.fixture
def saved(tmp_path, model, contract, tokenizer):
    native.save(tmp_path / "checkpoint", model, contract, tokenizer)
    return tmp_path / "checkpoint"


def _change_config(directory: Path, change) -> None:
    path = directory / "config.json"
    described = json.loads(path.read_text())
    change(described)
    path.write_text(json.dumps(described))


def test_everything_comes_back_as_it_was(saved, model, contract, tokenizer):
    loaded = native.load(saved)
    assert loaded.model.config == model.config
    assert loaded.model.backbone.config == model.backbone.config
    assert loaded.contract.to_dict() == contract.to_dict()
    assert loaded.contract.embodiment == TABLETOP
    assert loaded.tokenizer.to_str() == tokenizer.to_str()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor), name
    assert not loaded.model.training
    assert all(p.requires_grad and p.dtype == torch.float32 for p in loaded.model.parameters())


@pytest.mark.slow  # torch imports its compiler
def test_a_large_model_is_not_drawn_at_random_first_and_comes_back_alike(saved, model, monkeypatch):
    monkeypatch.setattr(folder, "_LARGE_MODEL", 0)
    loaded = native.load(saved)
    assert all(
        torch.equal(a, b)
        for a, b in zip(loaded.model.parameters(), model.parameters(), strict=True)
    )
    assert all(p.requires_grad and p.device.type == "cpu" for p in loaded.model.parameters())


def test_the_prompt_encoder_is_that_of_training(saved):
    ids, valid = native.load(saved).prompt_encoder(["pick up the red cube"])
    assert ids.shape == (1, 16)
    assert valid.sum() >= 6


def test_loading_leaves_the_random_state_alone(saved):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    native.load(saved)
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("dtype", [WeightsDtype.FP16, WeightsDtype.BF16])
def test_half_precision_halves_the_file_and_loads_as_fp32(
    tmp_path, saved, model, contract, tokenizer, dtype
):
    native.save(tmp_path / "half", model, contract, tokenizer, weights_dtype=dtype)
    sizes = [
        (directory / "model.safetensors").stat().st_size for directory in (tmp_path / "half", saved)
    ]
    assert sizes[0] < 0.6 * sizes[1]
    loaded = native.load(tmp_path / "half").model
    for ours, theirs in zip(loaded.parameters(), model.parameters(), strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-3)


def test_training_state_comes_back_bit_for_bit(tmp_path, model, contract, tokenizer):
    state = TrainingState(
        tensors={
            "optimizer.step.x": torch.tensor(7.0),
            "moments": torch.randn(3, 4).T,
            "random.torch": torch.get_rng_state(),
            "tiny": torch.tensor([1e-40, float("inf")]),
        },
        values={"step": 7, "seconds": 0.1 + 0.2, "metrics": {"loss": 1 / 3}},
    )
    native.save(tmp_path / "c", model, contract, tokenizer, training_state=state)
    again = native.load_training_state(tmp_path / "c")
    assert again.values == state.values
    assert again.tensors.keys() == state.tensors.keys()
    for name, tensor in state.tensors.items():
        assert torch.equal(again.tensors[name], tensor), name


def test_a_checkpoint_saved_to_act_has_no_training_state(saved):
    with pytest.raises(CheckpointError, match=r"no training state.*init_from"):
        native.load_training_state(saved)


def test_nothing_in_a_checkpoint_is_a_pickle(saved):
    assert {path.name for path in saved.iterdir()} == {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
    }
    load_file(saved / "model.safetensors")
    for name in ("config.json", "tokenizer.json"):
        json.loads((saved / name).read_text())


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_truncated_file_is_named_with_its_sizes(saved, name):
    size = (saved / name).stat().st_size
    os.truncate(saved / name, size // 2)
    with pytest.raises(CheckpointError, match=rf"{name} is truncated: {size // 2} of {size} bytes"):
        native.load(saved)


def test_an_altered_file_of_the_same_size_is_noticed(saved):
    path = saved / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model.safetensors was altered .*SHA-256"):
        native.load(saved)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(CheckpointError, match=rf"{name} is missing"):
        native.load(saved)


def test_a_truncated_config_is_named(saved):
    os.truncate(saved / "config.json", 100)
    with pytest.raises(CheckpointError, match=r"cannot read .*config.json"):
        native.load(saved)


def test_a_foreign_checkpoint_is_refused_by_its_kind(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "openvla", "n_action_bins": 256})
    )
    with pytest.raises(
        CheckpointError, match=r"config.json is of another family \(model_type 'openvla'\)"
    ):
        native.load(tmp_path)


def test_an_unknown_family_is_refused_by_name(saved):
    _change_config(saved, lambda c: c["model"].update(family="palimpsest"))
    with pytest.raises(
        CheckpointError,
        match="unknown model family 'palimpsest'; choose one of gemma4, paligemma, prismatic",
    ):
        native.load(saved)


def test_a_later_format_is_refused(saved):
    _change_config(saved, lambda c: c.update(format_version=99))
    with pytest.raises(CheckpointError, match="format version 99, this program reads 1 and 2"):
        native.load(saved)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["model"]["config"].update(number_of_wheels=4),
        lambda c: c["model"]["config"]["decoder"].update(number_of_wheels=4),
        lambda c: c["embodiment"].update(number_of_wheels=4),
        lambda c: c.update(prompt="RHYME"),
    ],
)
def test_unknown_settings_are_refused(saved, change):
    _change_config(saved, change)
    with pytest.raises(
        CheckpointError,
        match=r"config.json does not describe a model of this version.*(wheels|RHYME)",
    ):
        native.load(saved)


def test_a_config_without_a_contract_is_refused(saved):
    _change_config(saved, lambda c: c.pop("action_statistics"))
    with pytest.raises(CheckpointError, match=r"lacks \['action_statistics'\]"):
        native.load(saved)


def _replace_weights(directory: Path, change) -> None:
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors")
    fingerprint = folder._fingerprint(directory / "model.safetensors")
    _change_config(directory, lambda c: c["files"].update({"model.safetensors": fingerprint}))


def test_weights_of_another_shape_are_named(saved):
    _replace_weights(saved, lambda t: t.update({"action_head.rows.weight": torch.zeros(5)}))
    with pytest.raises(
        CheckpointError, match=r"'action_head.rows.weight' has shape \(5,\), config.json says"
    ):
        native.load(saved)


@pytest.mark.parametrize("extra", [True, False])
def test_weights_that_lack_a_tensor_or_bring_another_are_refused(saved, extra):
    _replace_weights(
        saved, lambda t: t.update(odd=torch.zeros(1)) if extra else t.pop("action_head.rows.weight")
    )
    with pytest.raises(
        CheckpointError,
        match="unexpected tensor 'odd'" if extra else "lacks tensor 'action_head.rows.weight'",
    ):
        native.load(saved)


def test_an_empty_folder_says_what_is_expected(tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint in .*config.json is absent"):
        native.load(tmp_path)


def test_saving_again_replaces_the_whole_directory(saved, model, contract, tokenizer):
    native.save(saved, model, contract, tokenizer, training_state=TrainingState(values={"step": 1}))
    assert (saved / "training_state.json").exists()
    native.save(saved, model, contract, tokenizer)
    assert not (saved / "training_state.json").exists()
    assert [path.name for path in saved.parent.iterdir()] == ["checkpoint"]


def test_a_save_that_fails_leaves_the_old_checkpoint(
    saved, model, contract, tokenizer, monkeypatch
):
    def fail(*_):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(folder, "save_text_tokenizer", fail)
        with pytest.raises(OSError, match="no space"):
            native.save(saved, model, contract, tokenizer)
    native.load(saved)


def _inputs(image_size: int = 64):
    torch.manual_seed(5)
    images = torch.randint(0, 256, (2, 2, 3, image_size, image_size), dtype=torch.uint8)
    return images, torch.rand(2, 7)


@pytest.mark.parametrize("decoding", [ActionDecoding.PARALLEL, ActionDecoding.AUTOREGRESSIVE])
def test_a_checkpoint_of_version_1_acts_as_it_did(tmp_path, contract, tokenizer, decoding):
    is_parallel = decoding is ActionDecoding.PARALLEL
    actions = ActionConfig(
        text_vocab_size=tokenizer.get_vocab_size(), decoding=decoding, chunk_length=2, grounding=is_parallel
    )  # fmt: skip
    shape = tiny(actions.num_token_rows, width=32, depth=1, vision_width=32, vision_depth=1)
    head = Head.NONE if is_parallel else Head.OWN
    shape.decoder = dataclasses.replace(shape.decoder, head=head)
    model = VisionLanguageAction(Prismatic(shape), actions)
    native.save(tmp_path / "old", model, contract, tokenizer)
    as_version_1(tmp_path / "old")
    loaded = native.load(tmp_path / "old")
    assert loaded.model.config == model.config
    assert loaded.model.backbone.config == model.backbone.config
    (images, state), text = _inputs(), loaded.prompt_encoder(["push the blue ball"] * 2)
    arguments = (images, *(torch.from_numpy(x) for x in text), state)
    ours, theirs = (ActionEngine(model=m).predict(*arguments) for m in (loaded.model, model))
    assert torch.equal(ours[0], theirs[0])
    assert torch.equal(ours[1], theirs[1])


def test_the_shipped_policy_is_read_whatever_version_wrote_it():
    from vla.cli.build import find_checkpoint

    loaded = native.load(find_checkpoint("tiny"))
    assert loaded.contract.embodiment == TABLETOP
    assert loaded.model.config.decoding is ActionDecoding.PARALLEL


@pytest.mark.parametrize("decoding", [ActionDecoding.PARALLEL, ActionDecoding.AUTOREGRESSIVE])
@pytest.mark.parametrize("family", list(Family))
def test_a_policy_of_any_family_acts_the_same_once_saved_and_loaded(
    tmp_path, contract, family, decoding
):
    cfg = BackboneConfig(
        family=family, decoding=decoding, width=32, depth=1, vision_width=32, vision_depth=1, chunk_length=2
    )  # fmt: skip
    backbone, words = small_backbone(cfg, ["push the blue ball"] * 2, 2)
    model = VisionLanguageAction(backbone, action_config(cfg, words)).eval()
    native.save(tmp_path / "policy", model, contract, words)
    loaded = native.load(tmp_path / "policy")
    assert loaded.model.backbone.config == backbone.config
    (images, state), text = _inputs(), loaded.prompt_encoder(["push the blue ball", "push"])
    arguments = (images, *(torch.from_numpy(x) for x in text), state)
    ours, theirs = (ActionEngine(model=m).predict(*arguments) for m in (loaded.model, model))
    assert torch.equal(ours[0], theirs[0])
    assert torch.equal(ours[1], theirs[1])
