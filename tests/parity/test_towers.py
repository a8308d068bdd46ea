"""The towers of DINOv2, Qwen2-VL and Gemma 4 against transformers; random weights go through the key tables first.

Those of SigLIP, SigLIP2 and CLIP are in test_dual_encoders, parameter counts in test_tower_sizes.
"""

import dataclasses
from typing import Any

import pytest
import torch
import transformers
from reference_towers import (
    SMALL,
    TOLERANCE,
    TowerWithMerger,
    check_round_trip,
    loaded,
    naflex_batch,
    pictures,
    randomised,
)
from torch import Tensor, nn

from vla.checkpoints.keymap import KeyMap, prefixed
from vla.checkpoints.maps import dinov2, towers
from vla.models.connectors import AveragePoolConnector, MergeConnector
from vla.models.vision import presets
from vla.models.vision.pooling import AveragePool
from vla.models.vision.vit import ViT
from vla.nn.positions import grid_positions


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


# DINOv2


def dinov2_pair(name: str) -> tuple[ViT, Any]:
    shape = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    config_class, model_class = {
        "registers": (
            transformers.Dinov2WithRegistersConfig,
            transformers.Dinov2WithRegistersModel,
        ),
        "none": (transformers.Dinov2Config, transformers.Dinov2Model),
    }[name]
    config = config_class(**shape, patch_size=4, image_size=20, mlp_ratio=3)
    reference = randomised(model_class(config))
    tower_config = dinov2.tower_config(config.to_dict())
    model = ViT(tower_config, 20)
    return loaded(model, dinov2.key_map(tower_config), reference), reference


@pytest.fixture(scope="module", params=["registers", "none"])
def dinov2_models(request) -> tuple[ViT, Any]:
    with torch.no_grad():
        return dinov2_pair(request.param)


@pytest.mark.parametrize("size", [(20, 20), (28, 28), (12, 12), (32, 12), (8, 48)])
def test_dinov2_agrees_at_its_own_size_and_with_stretched_positions(dinov2_models, size):
    model, reference = dinov2_models
    pixels = pictures(2, 3, *size)
    expected = reference(pixels)
    patches = expected.last_hidden_state[:, model.num_extra :]
    torch.testing.assert_close(model(pixels), patches, **TOLERANCE)
    torch.testing.assert_close(model.summarise(pixels), expected.pooler_output, **TOLERANCE)


def test_dinov2_agrees_with_hidden_patches(dinov2_models):
    model, reference = dinov2_models
    pixels, is_masked = pictures(2, 3, 20, 20), torch.rand(2, 25) < 0.4
    expected = reference(pixels, bool_masked_pos=is_masked).last_hidden_state
    torch.testing.assert_close(
        model(pixels, is_masked=is_masked), expected[:, model.num_extra :], **TOLERANCE
    )


def test_dinov2_goes_there_and_back(dinov2_models):
    model, reference = dinov2_models
    check_round_trip(model, dinov2.key_map(model.config), reference)


def test_timm_layout_of_dinov2_goes_there_and_back_under_both_names_of_layer_scale():
    config = dataclasses.replace(
        presets.dinov2_large_reg4(is_whole=True), width=32, depth=3, num_heads=2, mlp_width=64
    )
    model = ViT(config, 56)
    ours = {name: torch.rand_like(tensor) for name, tensor in model.state_dict().items()}
    key_map = dinov2.timm_key_map(config)
    theirs = key_map.export(ours)
    assert {"cls_token", "reg_token", "norm.weight", "blocks.2.ls2.gamma"} <= theirs.keys()
    assert theirs["reg_token"].shape == (1, 4, 32)
    renamed = {name.replace(".gamma", ".scale_factor"): theirs[name] for name in theirs}
    for weights in (theirs, renamed):
        back = key_map.convert(weights, model)
        assert all(torch.equal(back[name], ours[name]) for name in ours)


# Qwen2-VL's tower


@pytest.fixture(scope="module")
def qwen_reference() -> Any:
    from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLVisionConfig
    from transformers.models.qwen2_vl.modeling_qwen2_vl import (
        Qwen2VisionTransformerPretrainedModel,
    )

    config = Qwen2VLVisionConfig(
        depth=3, embed_dim=32, num_heads=2, mlp_ratio=3, patch_size=4, hidden_size=24
    )
    return randomised(Qwen2VisionTransformerPretrainedModel(config))


QWEN_MAP_OF_MERGER = {
    f"merger.{ours}.{kind}": f"merger.{theirs}.{kind}"
    for ours, theirs in {"norm": "ln_q", "up": "mlp.0", "down": "mlp.2"}.items()
    for kind in ("weight", "bias")
}


@pytest.fixture(scope="module")
def qwen_model(qwen_reference) -> TowerWithMerger:
    config = dataclasses.replace(
        presets.qwen2_vl_tower(), patch_size=4, width=32, depth=3, num_heads=2, mlp_width=96
    )
    model = TowerWithMerger(ViT(config), MergeConnector(32, 24))
    return loaded(model, qwen_key_map(model), qwen_reference)


def qwen_key_map(model: TowerWithMerger) -> KeyMap:
    table = prefixed("tower.", "", towers.qwen2_vl_tower(model.tower.config)) | QWEN_MAP_OF_MERGER
    return KeyMap(family="Qwen2-VL's tower", table=table)


GRIDS = torch.tensor([[1, 4, 6], [2, 2, 4], [1, 6, 2]])  # the second is a video of two frame pairs


def block_major(rows: int, columns: int) -> Tensor:
    """Places of patches in the reference's order: squares of 2 x 2 one after another."""
    places = grid_positions(rows, columns).view(rows // 2, 2, columns // 2, 2, 2)
    return places.transpose(1, 2).reshape(-1, 2)


def qwen_batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Patches in the reference's form, all frames of all pictures in a row; then in ours, a row a frame."""
    frames = [tuple(grid[1:]) for grid in GRIDS.tolist() for _ in range(grid[0])]
    flat = pictures(sum(rows * columns for rows, columns in frames), 3 * 2 * 4 * 4)
    ours = flat.view(-1, 3, 2 * 4 * 4).transpose(1, 2).flatten(1)  # channels last
    patches = torch.zeros(len(frames), 24, ours.shape[1])
    positions = torch.full((len(frames), 24, 2), -1)
    valid = torch.zeros(len(frames), 24, dtype=torch.bool)
    start = 0
    for i, (rows, columns) in enumerate(frames):
        count = rows * columns
        patches[i, :count] = ours[start : start + count]
        positions[i, :count] = block_major(rows, columns)
        valid[i, :count] = True
        start += count
    return flat, patches, positions, valid


def test_qwen2_vl_tower_and_merger_agree_on_pictures_and_a_video_in_one_batch(
    qwen_model, qwen_reference
):
    flat, patches, positions, valid = qwen_batch()
    expected = qwen_reference(flat, grid_thw=GRIDS)
    features = qwen_model.tower.encode(patches, positions, valid)
    torch.testing.assert_close(features[valid], expected.last_hidden_state, **TOLERANCE)
    merged = qwen_model.merger(features)[valid[:, ::4]]
    torch.testing.assert_close(merged, expected.pooler_output, **TOLERANCE)


def test_qwen2_vl_pictures_matter_and_padding_and_neighbours_do_not(qwen_model):
    _, patches, positions, valid = qwen_batch()
    together = qwen_model.tower.encode(patches, positions, valid)[1, :8]
    alone = qwen_model.tower.encode(patches[1:2, :8], positions[1:2, :8])[0]
    torch.testing.assert_close(together, alone, **TOLERANCE)
    other = qwen_model.tower.encode(patches[2:3, :8], positions[1:2, :8])[0]
    assert (alone - other).abs().amax(dim=-1).min() > 0.1


def test_a_still_picture_as_pixels_fills_both_frames_of_a_patch(qwen_model, qwen_reference):
    pixels = pictures(1, 3, 8, 16)
    squares = pixels.view(1, 3, 2, 4, 4, 4).permute(2, 4, 1, 3, 5, 0)  # rows columns C r c 1
    frames = squares.squeeze(-1)[:, :, :, None].expand(-1, -1, -1, 2, -1, -1)
    order = block_major(2, 4)
    flat = frames[order[:, 0], order[:, 1]].reshape(8, -1)
    expected = qwen_reference(flat, grid_thw=torch.tensor([[1, 2, 4]])).last_hidden_state
    found = qwen_model.tower(pixels)[0].view(2, 4, 32)[order[:, 0], order[:, 1]]
    torch.testing.assert_close(found, expected, **TOLERANCE)


def test_qwen2_vl_tower_goes_there_and_back(qwen_model, qwen_reference):
    check_round_trip(qwen_model, qwen_key_map(qwen_model), qwen_reference)


# Gemma 4's tower


class TowerWithPool(nn.Module):
    """What the reference's tower holds."""

    def __init__(self, tower: ViT, pool: AveragePool) -> None:
        super().__init__()
        self.tower, self.pool = tower, pool


def check_pooled(pooled: Tensor, expected: Tensor) -> None:
    """Both are multiplied by the square root of the width at the end; compared before."""
    root = pooled.shape[-1] ** 0.5
    torch.testing.assert_close(pooled / root, expected / root, **TOLERANCE)


def gemma4_pair(size: str) -> tuple[TowerWithPool, Any]:
    """Small towers (E2B, E4B) have clipped linear layers, large ones (26B, 31B) standardise what they pool."""
    from transformers.models.gemma4.configuration_gemma4 import Gemma4VisionConfig
    from transformers.models.gemma4.modeling_gemma4 import Gemma4VisionModel

    is_large = size == "large"
    reference = randomised(
        Gemma4VisionModel(
            Gemma4VisionConfig(
                **SMALL,
                num_key_value_heads=2,
                head_dim=16,
                patch_size=4,
                position_embedding_size=40,
                pooling_kernel_size=3,
                use_clipped_linears=not is_large,
                standardize=is_large,
            )
        )
    )
    preset = presets.gemma4_tower_large() if is_large else presets.gemma4_tower_small()
    config = dataclasses.replace(
        preset, patch_size=4, width=32, depth=3, num_heads=2, mlp_width=56, num_axis_positions=40
    )
    model = TowerWithPool(ViT(config), AveragePool(32, 3, is_standardised=is_large))
    return loaded(model, gemma4_key_map(model), reference), reference


def gemma4_key_map(model: TowerWithPool) -> KeyMap:
    table = prefixed("tower.", "", towers.gemma4_tower(model.tower.config))
    if model.pool.shift is not None:
        table |= {"pool.shift": "std_bias", "pool.gain": "std_scale"}
    return KeyMap(family="Gemma 4's tower", table=table)


@pytest.fixture(scope="module", params=["small", "large"])
def gemma4_models(request) -> tuple[TowerWithPool, Any]:
    with torch.no_grad():
        return gemma4_pair(request.param)


GEMMA_SHAPES = torch.tensor([[3, 9], [6, 3], [6, 6]])


def test_gemma4_tower_and_pooling_agree_on_three_shapes_in_one_batch(gemma4_models):
    """The reference takes pixels in [0, 1] and (x, y), with -1 for padding."""
    model, reference = gemma4_models
    patches, positions, valid = naflex_batch(GEMMA_SHAPES, 45)
    expected = reference(patches / 2 + 0.5, positions.flip(-1)).last_hidden_state
    features = model.tower.encode(patches, positions, valid)
    pooled, there = model.pool(features, positions, valid)
    assert there.sum(dim=1).tolist() == [3, 2, 4]
    check_pooled(pooled[there], expected)


def test_gemma4_fixed_size_pictures_agree_too(gemma4_models):
    model, reference = gemma4_models
    pixels = pictures(2, 3, 12, 24)
    squares = pixels.view(2, 3, 3, 4, 6, 4).permute(0, 2, 4, 3, 5, 1).reshape(2, 18, 48)
    positions = grid_positions(3, 6).expand(2, -1, -1)
    expected = reference(squares / 2 + 0.5, positions.flip(-1)).last_hidden_state
    pooled, _ = model.pool(model.tower(pixels), positions)
    check_pooled(pooled.flatten(0, 1), expected)


def test_gemma4_image_tokens_agree_after_the_connector(gemma4_models):
    from transformers.models.gemma4.configuration_gemma4 import Gemma4TextConfig
    from transformers.models.gemma4.modeling_gemma4 import Gemma4MultimodalEmbedder

    model, reference = gemma4_models
    text = Gemma4TextConfig(hidden_size=24)
    embedder = randomised(Gemma4MultimodalEmbedder(reference.config, text))
    connector = AveragePoolConnector(32, 24, side=3, is_standardised=model.pool.shift is not None)
    connector.projection.weight.copy_(embedder.embedding_projection.weight)
    connector.pool.load_state_dict(model.pool.state_dict())
    patches, positions, valid = naflex_batch(GEMMA_SHAPES, 45)
    expected = embedder(reference(patches / 2 + 0.5, positions.flip(-1)).last_hidden_state)
    tokens, there = connector(model.tower.encode(patches, positions, valid), positions, valid)
    torch.testing.assert_close(tokens[there], expected, **TOLERANCE)


def test_gemma4_pictures_matter_and_padding_and_neighbours_do_not(gemma4_models):
    model, _ = gemma4_models
    patches, positions, valid = naflex_batch(GEMMA_SHAPES, 45)
    together = model.tower.encode(patches, positions, valid)[0, :27]
    alone = model.tower.encode(patches[:1, :27], positions[:1, :27])[0]
    torch.testing.assert_close(together, alone, **TOLERANCE)
    other = model.tower.encode(patches[1:2, :27], positions[:1, :27])[0]
    assert (alone - other).abs().amax(dim=-1).min() > 0.1


def test_gemma4_tower_goes_there_and_back(gemma4_models):
    model, reference = gemma4_models
    check_round_trip(model, gemma4_key_map(model), reference)
