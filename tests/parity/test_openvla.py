"""Our Prismatic against outputs of the unmodified OpenVLA code (openvla/openvla c8f03f4, transformers 4.40.1).

The recorded outputs are too large for the repository: they are looked for where VLA_GOLDENS points, or in
shared/goldens beside the repository.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vla.checkpoints.maps import openvla
from vla.errors import CheckpointError
from vla.inference.engine import ActionEngine, prefill
from vla.losses.suffix import token_cross_entropy
from vla.models.backbones.prismatic import Prismatic
from vla.models.backbones.prismatic_config import ActionDecoding, PrismaticConfig
from vla.models.decoder import DecoderConfig
from vla.models.vision.vit import ViTConfig
from vla.nn.masks import PrefixAttention
from vla.nn.positions import positions_from_valid
from vla.tokenizers.action_bins import ActionBins, ActionLayout, ActionVocabulary

BESIDE_THE_REPOSITORY = Path(__file__).parents[2].parent / "shared" / "goldens"
GOLDEN = Path(os.environ.get("VLA_GOLDENS", BESIDE_THE_REPOSITORY)) / "openvla"
pytestmark = pytest.mark.skipif(
    not (GOLDEN / "io.safetensors").is_file(),
    reason=f"no recorded outputs at {GOLDEN}; set VLA_GOLDENS to the folder that holds openvla/",
)
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


def _config() -> PrismaticConfig:
    towers = [
        ViTConfig(width=32, depth=3, num_heads=2, mlp_width=128),
        ViTConfig(
            width=48, depth=3, num_heads=3, mlp_width=179, has_class_token=False, num_registers=0,
            layer_scale=None,
        ),
    ]  # fmt: skip
    return PrismaticConfig(
        image_size=56,
        num_views=1,
        towers=towers,
        projector_width=4 * 80,
        text_vocab_size=32000,
        decoder=DecoderConfig(
            vocab_size=32064, width=32, depth=2, num_heads=4, num_kv_heads=4, head_dim=8, mlp_width=64
        ),
        attention=PrefixAttention.CAUSAL,
        action_layout=ActionLayout.LAST_256,
        action_decoding=ActionDecoding.AUTOREGRESSIVE,
        chunk_length=1,
        state_width=0,
        grounding=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def recorded() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "io.safetensors")


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "hub" / "model.safetensors")


@pytest.fixture(scope="module")
def model(weights, recorded) -> Prismatic:
    """The reference's pictures are already normalised and have six channels, so the towers are fed directly."""
    model = Prismatic(_config()).eval()
    model.load_state_dict(openvla.convert(weights, model))
    pixels = recorded["input.pixel_values"].split(3, dim=1)
    model.vision.forward = lambda images: model.vision.encode(pixels)  # type: ignore[method-assign]
    return model


@pytest.fixture(scope="module")
def prompt(recorded) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    ids = recorded["input.input_ids"]
    return (
        torch.zeros(2, 1, 3, 56, 56, dtype=torch.uint8),
        ids,
        torch.ones_like(ids, dtype=torch.bool),
    )


def _token_logits(model, prompt) -> torch.Tensor:
    prefix, valid = model.embed_prefix(*prompt, None)
    hidden = model.decoder(
        prefix, may_attend=model.may_attend(valid, prefix.shape[1]), positions=positions_from_valid(valid)
    )  # fmt: skip
    return model.action_head(hidden)


def test_patch_features_of_both_towers_agree(model, recorded, prompt):
    torch.testing.assert_close(
        model.vision(prompt[0].flatten(0, 1)), recorded["output.feats"], **TOLERANCE
    )


def test_projected_image_tokens_agree(model, recorded, prompt):
    torch.testing.assert_close(model.image_tokens(prompt[0]), recorded["output.proj"], **TOLERANCE)


def test_logits_agree(model, recorded, prompt):
    first, last = json.loads((GOLDEN / "config.json").read_text())["logits_columns"]
    logits = _token_logits(model, prompt)[..., first:last]
    torch.testing.assert_close(logits, recorded["output.logits"], **TOLERANCE)


def test_the_loss_agrees(model, recorded, prompt):
    """Labels are all input ids; a position before an image token has no label, as in the reference."""
    ids, num_patches = prompt[1], 16
    logits = _token_logits(model, prompt)
    labels = torch.zeros(logits.shape[:2], dtype=torch.int64)
    labels[:, 0] = ids[:, 0]
    labels[:, 1 + num_patches :] = ids[:, 1:]
    is_label = torch.ones_like(labels, dtype=torch.bool)
    is_label[:, 1 : 1 + num_patches] = False
    loss = token_cross_entropy(logits[:, :-1], labels[:, 1:], is_label[:, 1:])
    torch.testing.assert_close(loss, recorded["output.loss"], **TOLERANCE)


def test_greedy_action_tokens_and_physical_actions_agree(model, recorded, prompt):
    bins, _ = ActionEngine(model=model).predict(*prompt)
    vocabulary = ActionVocabulary(ActionLayout.LAST_256, 32000, 7)
    ids = vocabulary.ids(bins[:, 0].numpy())
    np.testing.assert_array_equal(ids, recorded["output.act_tokens"].numpy())
    config = json.loads((GOLDEN / "config.json").read_text())["config"]
    statistics = config["norm_stats"]["toy"]["action"]
    q01, q99 = np.array(statistics["q01"]), np.array(statistics["q99"])
    values = ActionBins.decode(bins[:, 0].numpy()).astype(np.float64)
    actions = np.where(statistics["mask"], 0.5 * (values + 1) * (q99 - q01) + q01, values)
    np.testing.assert_allclose(actions, recorded["output.act_actions"].numpy(), atol=1e-6)


def test_teacher_forcing_gives_the_logits_that_decoding_one_by_one_read(model, recorded, prompt):
    bins, probabilities = ActionEngine(model=model).predict(*prompt)
    with torch.no_grad():
        output = model(*prompt, None, bins)
    torch.testing.assert_close(output.action_logits.argmax(dim=-1), bins)
    chosen = output.action_logits.softmax(dim=-1).gather(-1, bins[..., None])[..., 0]
    torch.testing.assert_close(chosen, probabilities, **TOLERANCE)


def test_the_picture_is_read_when_decoding(model, recorded, prompt):
    """The reference once ignored the image in generate() while teacher-forced logits still agreed (issue 346)."""
    hidden, _, _ = prefill(model, *prompt, None, num_further_tokens=0)
    pixels = [torch.zeros_like(x) for x in recorded["input.pixel_values"].split(3, dim=1)]
    seeing = model.vision.forward
    model.vision.forward = lambda images: model.vision.encode(pixels)  # type: ignore[method-assign]
    try:
        blind, _, _ = prefill(model, *prompt, None, num_further_tokens=0)
    finally:
        model.vision.forward = seeing
    assert not torch.allclose(hidden, blind, atol=1e-3)


def test_every_weight_of_the_model_is_named_once(model):
    assert sorted(openvla.key_map(model)) == sorted(model.state_dict())


def test_a_checkpoint_without_a_weight_is_refused_by_name(model, weights):
    damaged = {k: v for k, v in weights.items() if "q_proj" not in k}
    with pytest.raises(
        CheckpointError, match=r"has no language_model\.model\.layers\.0\.self_attn\.q"
    ):
        openvla.convert(damaged, model)


def test_a_checkpoint_with_a_foreign_weight_is_refused_by_name(model, weights):
    with pytest.raises(CheckpointError, match=r"also holds adapter\.weight"):
        openvla.convert(weights | {"adapter.weight": torch.zeros(1)}, model)
