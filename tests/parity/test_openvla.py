"""Our Prismatic against outputs of the unmodified OpenVLA code (openvla/openvla c8f03f4, transformers 4.40.1).

The recorded outputs are too large for the repository: they are looked for where VLA_GOLDENS points, or in
shared/goldens beside the repository.
"""

import copy
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from fp32_copies import Fp32Copies
from safetensors.torch import load_file

from vla.checkpoints import hf, prismatic_pt
from vla.checkpoints.maps import openvla
from vla.errors import CheckpointError
from vla.inference.engine import ActionEngine
from vla.inference.generate import prefill
from vla.losses.suffix import token_cross_entropy
from vla.models.action_config import ActionConfig, ActionDecoding
from vla.models.action_model import VisionLanguageAction
from vla.models.backbones.prismatic import Prismatic
from vla.models.backbones.prismatic_config import PrismaticConfig, tiny
from vla.models.decoder_config import DecoderConfig, Head
from vla.models.vision.vit import ViTConfig
from vla.nn.masks import PrefixAttention
from vla.tokenizers.action_bins import ActionBins, ActionLayout, ActionVocabulary

BESIDE_THE_REPOSITORY = Path(__file__).parents[2].parent / "shared" / "goldens"
GOLDEN = Path(os.environ.get("VLA_GOLDENS", BESIDE_THE_REPOSITORY)) / "openvla"
pytestmark = pytest.mark.skipif(
    not (GOLDEN / "io.safetensors").is_file(),
    reason=f"no recorded outputs at {GOLDEN}; set VLA_GOLDENS to the folder that holds openvla/",
)
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


def _config(*, is_whole: bool = False) -> PrismaticConfig:
    towers = [
        ViTConfig(width=32, depth=3, num_heads=2, mlp_width=128, is_whole=is_whole),
        ViTConfig(
            width=48, depth=3, num_heads=3, mlp_width=179, has_class_token=False, num_registers=0,
            layer_scale=None, has_attention_pool=is_whole, is_whole=is_whole,
        ),
    ]  # fmt: skip
    return PrismaticConfig(
        image_size=56,
        num_views=1,
        towers=towers,
        projector_width=4 * 80,
        decoder=DecoderConfig(
            vocab_size=32064, width=32, depth=2, num_heads=4, num_kv_heads=4, head_dim=8, mlp_width=64, head=Head.OWN
        ),
        attention=PrefixAttention.CAUSAL,
    )  # fmt: skip


ACTIONS = ActionConfig(
    text_vocab_size=32000,
    layout=ActionLayout.LAST_256,
    decoding=ActionDecoding.AUTOREGRESSIVE,
    chunk_length=1,
    state_width=0,
    grounding=False,
)


@pytest.fixture(scope="module")
def recorded() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "io.safetensors")


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "hub" / "model.safetensors")


@pytest.fixture(scope="module")
def model(weights, recorded) -> VisionLanguageAction:
    """The reference's pictures are already normalised and have six channels, so the towers are fed directly."""
    backbone = Prismatic(_config()).eval()
    backbone.load_state_dict(openvla.key_map(backbone.config).convert(weights, backbone))
    pixels = recorded["input.pixel_values"].split(3, dim=1)
    backbone.vision.forward = lambda images: backbone.vision.encode(pixels)  # type: ignore[method-assign]
    return VisionLanguageAction(backbone, ACTIONS).eval()


@pytest.fixture(scope="module")
def prompt(recorded) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    ids = recorded["input.input_ids"]
    return (
        torch.zeros(2, 1, 3, 56, 56, dtype=torch.uint8),
        ids,
        torch.ones_like(ids, dtype=torch.bool),
    )


def _token_logits(model, prompt) -> torch.Tensor:
    images, ids, valid = prompt
    return model.backbone(ids, valid, images)


def test_patch_features_of_both_towers_agree(model, recorded, prompt):
    torch.testing.assert_close(
        model.backbone.vision(prompt[0].flatten(0, 1)), recorded["output.feats"], **TOLERANCE
    )


def test_projected_image_tokens_agree(model, recorded, prompt):
    tokens = model.backbone.encode_pictures(prompt[0].flatten(0, 1))
    torch.testing.assert_close(tokens, recorded["output.proj"], **TOLERANCE)


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
    vision, decoder = model.backbone.vision, model.backbone.decoder
    hidden, _ = prefill(decoder, model.prefix(*prompt), num_further_tokens=0)
    pixels = [torch.zeros_like(x) for x in recorded["input.pixel_values"].split(3, dim=1)]
    seeing = vision.forward
    vision.forward = lambda images: vision.encode(pixels)  # type: ignore[method-assign]
    try:
        blind, _ = prefill(decoder, model.prefix(*prompt), num_further_tokens=0)
    finally:
        vision.forward = seeing
    assert not torch.allclose(hidden, blind, atol=1e-3)


@pytest.mark.parametrize("is_whole", [True, False])
def test_towers_with_and_without_their_unread_parts_give_the_same_features(
    weights, recorded, is_whole
):
    config = _config(is_whole=is_whole)
    model = Prismatic(config).eval()
    model.load_state_dict(openvla.key_map(config).convert(weights, model))
    features = model.vision.encode(recorded["input.pixel_values"].split(3, dim=1))
    torch.testing.assert_close(features, recorded["output.feats"], **TOLERANCE)


def test_the_whole_checkpoint_goes_there_and_back_bit_for_bit(weights):
    config = _config(is_whole=True)
    ours = openvla.key_map(config).convert(weights, Prismatic(config))
    theirs = openvla.key_map(config).export(ours)
    assert theirs.keys() == weights.keys()
    for name, tensor in weights.items():
        assert theirs[name].shape == tensor.shape, name
        assert torch.equal(theirs[name], tensor), name


def test_an_exported_directory_is_the_released_one_again(weights, tmp_path):
    config = _config(is_whole=True)
    model = Prismatic(config)
    hf.load_weights(model, GOLDEN / "hub", openvla.key_map(config))
    theirs = openvla.key_map(config).export(model.state_dict())
    values = hf.read_config(GOLDEN / "hub")
    hf.save_weights(tmp_path / "hub", theirs, values, max_shard_bytes=1_000_000)
    assert len(list((tmp_path / "hub").glob("*.safetensors"))) > 1
    assert hf.read_config(tmp_path / "hub") == values
    again = hf.HubWeights(tmp_path / "hub")
    assert all(torch.equal(again[name], tensor) for name, tensor in weights.items())


def native_modules(weights: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """The weights under the names that Prismatic's own training gives them."""
    respelt = {
        "vision_backbone": {
            "featurizer.": "dino_featurizer.",
            "fused_featurizer.": "siglip_featurizer.",
        },
        "projector": {"fc1.": "projector.0.", "fc2.": "projector.2.", "fc3.": "projector.4."},
        "language_model": {"model.": "llm.model.", "lm_head.": "llm.lm_head."},
    }
    modules: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in weights.items():
        module, rest = name.split(".", 1)
        (prefix,) = (prefix for prefix in respelt[module] if rest.startswith(prefix))
        native = respelt[module][prefix] + rest.removeprefix(prefix)
        native = native.replace("scale_factor", "gamma")
        module = module.replace("language_model", "llm_backbone")
        modules.setdefault(module, {})[native] = tensor
    return modules


def test_a_native_file_gives_the_same_model(weights, model, tmp_path):
    path = tmp_path / "step-000001-epoch-00-loss=0.1000.pt"
    torch.save({"model": native_modules(weights)}, path)
    backbone = model.backbone
    ours = openvla.key_map(backbone.config).convert(prismatic_pt.read(path), backbone)
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(ours[name], tensor), name


def test_a_checkpoint_without_a_weight_is_refused_by_name(model, weights):
    damaged = {k: v for k, v in weights.items() if "q_proj" not in k}
    with pytest.raises(
        CheckpointError, match=r"has no language_model\.model\.layers\.0\.self_attn\.q"
    ):
        openvla.key_map(model.backbone.config).convert(damaged, model.backbone)


def test_a_checkpoint_with_a_foreign_weight_is_refused_by_name(model, weights):
    with pytest.raises(CheckpointError, match=r"also holds adapter\.weight"):
        foreign = weights | {"adapter.weight": torch.zeros(1)}
        openvla.key_map(model.backbone.config).convert(foreign, model.backbone)


@pytest.mark.parametrize(
    "is_like_openvla", [True, False], ids=["OpenVLA in small", "the shipped policy's shape"]
)
def test_bf16_stays_close_to_fp32_and_copies_no_weights(is_like_openvla, weights):
    """Root mean square of the difference in action logits: about 1 % of their spread; at most 2 %."""
    torch.manual_seed(0)
    backbone = Prismatic(_config() if is_like_openvla else tiny(64))
    if is_like_openvla:
        backbone.load_state_dict(openvla.key_map(backbone.config).convert(weights, backbone))
    config = ACTIONS if is_like_openvla else ActionConfig(text_vocab_size=64)
    model = VisionLanguageAction(backbone, config).eval()
    size, views = backbone.config.image_size, backbone.config.num_views
    images = torch.randint(256, (2, views, 3, size, size), dtype=torch.uint8)
    ids, valid = torch.randint(4, 60, (2, 9)), torch.ones(2, 9, dtype=torch.bool)
    state = torch.randn(2, config.state_width) if config.state_width else None
    bins = torch.randint(256, (2, config.chunk_length, config.action_width))
    low = copy.deepcopy(model).bfloat16()
    with torch.no_grad(), Fp32Copies() as copies:
        logits = low(images, ids, valid, state, bins).action_logits
        exact = model(images, ids, valid, state, bins).action_logits
    assert logits.dtype is torch.bfloat16
    assert copies.of_matrices(low) == set()
    error = (logits.float() - exact).square().mean().sqrt()
    assert error < 0.02 * exact.std()
