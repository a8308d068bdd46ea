import dataclasses

import pytest
import torch

from vla.errors import ConfigError
from vla.models.initialisation import initialise
from vla.models.vision import presets
from vla.models.vision.fused import FusedTowers
from vla.models.vision.patchify import PatchEmbedding
from vla.models.vision.position_tables import gather_positions, resize_position_table
from vla.models.vision.vit import ViT
from vla.models.vision.vit_config import Positions, Resampling, ViTConfig
from vla.nn.mlp import Activation
from vla.nn.positions import grid_positions

SMALL = ViTConfig(
    patch_size=4, width=16, depth=3, num_heads=2, mlp_width=32, output_block=-1, layer_scale=None,
    has_class_token=False, num_registers=0,
)  # fmt: skip


def test_a_linear_patch_embedding_equals_the_strided_convolution_of_vit():
    embedding = PatchEmbedding(8, 4)
    convolution = torch.nn.Conv2d(3, 8, kernel_size=4, stride=4)
    weight = convolution.weight.data.permute(0, 2, 3, 1).flatten(1)
    embedding.projection.weight.data.copy_(weight)
    embedding.projection.bias.data.copy_(convolution.bias.data)
    pixels = torch.randn(2, 3, 8, 12)
    expected = convolution(pixels).flatten(2).transpose(1, 2)
    torch.testing.assert_close(embedding(pixels), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("patch_size", "num_tokens"), [(16, 16), (8, 64)])
def test_a_stem_of_three_convolutions_leaves_the_grid_of_the_patch_size(patch_size, num_tokens):
    embedding = PatchEmbedding(24, patch_size, stem_channels=[4, 8, 12])
    assert embedding(torch.randn(2, 3, 64, 64)).shape == (2, num_tokens, 24)


def test_a_stem_token_sees_its_own_corner_of_the_picture():
    embedding = PatchEmbedding(24, 16, stem_channels=[4, 8, 12])
    blank = torch.zeros(1, 3, 64, 64)
    marked = blank.clone()
    marked[:, :, 50:54, 2:6] = 1.0  # bottom left: row 3, column 0
    changed = (embedding(marked) - embedding(blank)).abs().sum(dim=-1)[0]
    assert int(changed.argmax()) == 12


def test_the_second_to_last_block_is_read_and_the_last_is_not_built():
    released, short = (
        dataclasses.replace(SMALL, output_block=-2),
        dataclasses.replace(SMALL, depth=2),
    )
    torch.manual_seed(0)
    second_to_last, of_two = ViT(released, 8), ViT(short, 8)
    of_two.load_state_dict(second_to_last.state_dict())
    pixels = torch.randn(1, 3, 8, 8)
    assert len(second_to_last.blocks) == 2
    torch.testing.assert_close(second_to_last(pixels), of_two(pixels))


def test_class_and_register_tokens_take_part_but_are_not_handed_out():
    tower = ViT(dataclasses.replace(SMALL, has_class_token=True, num_registers=4), 8)
    pixels = torch.randn(1, 3, 8, 8)
    before = tower(pixels)
    assert before.shape == (1, 4, 16)
    tower.extra_tokens.data.normal_()
    assert not torch.allclose(before, tower(pixels))


def test_layer_scale_zero_switches_every_branch_off():
    tower = ViT(dataclasses.replace(SMALL, layer_scale=0.0), 8)
    pixels = torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(tower(pixels), tower.patches(pixels))


def test_a_position_table_of_the_right_size_is_left_alone():
    table = torch.randn(16, 8)
    assert resize_position_table(table, 4) is table


def test_a_resampled_position_table_keeps_rows_and_columns_apart():
    row, column = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
    table = torch.stack([row, column], dim=-1).view(16, 2)
    larger = resize_position_table(table, 8).view(8, 8, 2)
    assert (larger[1:, :, 0] >= larger[:-1, :, 0]).all()
    torch.testing.assert_close(larger[..., 0], larger[..., 1].T)


def test_pictures_of_another_size_get_a_resampled_table():
    assert ViT(SMALL, 8)(torch.randn(1, 3, 16, 16)).shape == (1, 16, 16)


def test_each_tower_normalises_in_its_own_way_and_dinov2_comes_first():
    dino = dataclasses.replace(SMALL, pixel_mean=[0.0] * 3, pixel_std=[1.0] * 3)
    siglip = dataclasses.replace(SMALL, width=24)
    towers = FusedTowers([dino, siglip], 8)
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    fused = towers(images)
    assert fused.shape == (2, 4, 40)
    first = towers.towers[0](images.float() / 255)
    second = towers.towers[1]((images.float() / 255 - 0.5) / 0.5)
    torch.testing.assert_close(fused, torch.cat([first, second], dim=-1), atol=1e-5, rtol=1e-5)


def test_the_released_towers_have_the_widths_and_depths_openvla_reads():
    with torch.device("meta"):
        towers = FusedTowers([presets.dinov2_large_reg4(), presets.siglip_so400m()], 224)
    assert towers.width == 2176
    assert towers.num_patches == 256
    assert [len(tower.blocks) for tower in towers.towers] == [23, 26]


def test_siglip_style_has_no_class_token_and_the_tanh_gelu():
    siglip, dino = presets.tiny_siglip(), presets.tiny_dinov2()
    assert ViT(siglip, 64).extra_tokens is None
    assert siglip.activation is Activation.GELU_TANH
    assert ViT(dino, 64).extra_tokens.shape == (5, 96)
    assert dino.activation is Activation.GELU


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_heads": 3}, "width 16 cannot be split into 3 heads"),
        ({"stem_channels": [4, 4, 4]}, "3 stride-2 convolutions do not fit a patch of 4 px"),
        ({"output_block": 3}, "output_block 3 is not among the 3 blocks"),
    ],
)
def test_a_tower_that_cannot_be_built_says_why(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(SMALL, **change)


def test_pictures_that_cannot_be_cut_into_patches_are_refused():
    with pytest.raises(ConfigError, match="10 px cannot be cut into patches of 4 px"):
        ViT(SMALL, 10)


def test_towers_of_different_grids_are_refused():
    with pytest.raises(ConfigError, match=r"patches of \[4, 8\] px"):
        FusedTowers([SMALL, dataclasses.replace(SMALL, patch_size=8)], 16)


def test_a_whole_tower_holds_the_rest_without_reading_or_training_it():
    part = dataclasses.replace(SMALL, output_block=-2)
    whole = dataclasses.replace(part, is_whole=True, has_attention_pool=True)
    torch.manual_seed(0)
    short, long = ViT(part, 8), ViT(whole, 8)
    long.load_state_dict(short.state_dict(), strict=False)
    pixels = torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(long(pixels), short(pixels), atol=0.0, rtol=0.0)
    trained = {name for name, p in long.named_parameters() if p.requires_grad}
    assert trained == set(short.state_dict())
    assert {"blocks.2.mlp.up.weight", "final_norm.weight", "attention_pool.probe"} <= set(
        long.state_dict()
    )


def test_the_last_block_and_the_pool_are_trained_where_they_are_read():
    tower = ViT(dataclasses.replace(SMALL, has_final_norm=True, has_attention_pool=True), 8)
    tower.summarise(torch.randn(1, 3, 8, 8)).sum().backward()
    assert all(p.grad is not None for p in tower.parameters())


def test_the_position_of_the_class_token_is_added_to_it_alone():
    config = dataclasses.replace(SMALL, has_class_token=True, has_class_position=True)
    tower = ViT(config, 8)
    assert tower.position_table.shape == (5, 16)
    tower.position_table.data[0] = 1.0
    moved = ViT(config, 8)
    moved.load_state_dict(tower.state_dict())
    moved.position_table.data.zero_()
    moved.extra_tokens.data += 1.0
    pixels = torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(tower(pixels), moved(pixels))


def test_pictures_need_not_be_square():
    assert ViT(SMALL, 8)(torch.randn(1, 3, 8, 20)).shape == (1, 10, 16)


@pytest.mark.parametrize("theta", [None, 100.0])
def test_a_tower_without_a_table_sees_where_patches_are_by_rotation_alone(theta):
    config = dataclasses.replace(SMALL, positions=Positions.NONE, rope_theta=theta)
    torch.manual_seed(0)
    tower = ViT(config)
    patches, positions = torch.randn(1, 4, 48), grid_positions(2, 2)[None]
    before, after = (tower.encode(patches, places) for places in (positions, positions.flip(1)))
    assert torch.allclose(before, after, atol=1e-5) == (theta is None)
    shifted = tower.encode(patches, positions + 7)
    torch.testing.assert_close(shifted, before, atol=1e-5, rtol=0.0)  # displacements count


@pytest.mark.parametrize("resampling", list(Resampling))
def test_a_table_is_gathered_for_each_picture_s_own_shape(resampling):
    table = torch.randn(9, 4)
    positions = torch.stack([grid_positions(2, 4), grid_positions(4, 2).flip(0)])
    found = gather_positions(table, positions, resampling)
    torch.testing.assert_close(found[0], resize_position_table(table, 2, 4, resampling))
    torch.testing.assert_close(found[1], resize_position_table(table, 4, 2, resampling).flip(0))


def test_what_a_tower_cannot_do_it_says():
    with pytest.raises(ConfigError, match="needs an image_size"):
        ViT(SMALL)
    with pytest.raises(ConfigError, match="neither a class token nor an attention pool"):
        ViT(SMALL, 8).summarise(torch.randn(1, 3, 8, 8))
    with pytest.raises(ConfigError, match="no mask token"):
        ViT(SMALL, 8)(torch.randn(1, 3, 8, 8), is_masked=torch.ones(1, 4, dtype=torch.bool))
    with pytest.raises(ConfigError, match="a stem of convolutions sees whole pictures"):
        ViT(presets.tiny_siglip(), 64).encode(torch.zeros(1, 4, 768), grid_positions(2, 2)[None])
    with pytest.raises(ConfigError, match="rotary embedding turns patches alone"):
        dataclasses.replace(SMALL, has_class_token=True, rope_theta=100.0)
    with pytest.raises(ConfigError, match="needs has_class_token and positions=GRID"):
        dataclasses.replace(SMALL, has_class_position=True)


@pytest.mark.parametrize(
    "preset",
    [
        presets.dinov2_large_reg4,
        presets.siglip_so400m,
        presets.siglip2_base_naflex,
        presets.clip_vit_l_14,
        presets.qwen2_vl_tower,
        presets.gemma4_tower_small,
        presets.gemma4_tower_large,
    ],
)
def test_bf16_weights_give_nearly_the_features_of_fp32_and_stay_bf16(preset):
    """Within 2 % of the length of a feature over four blocks; Gemma 4's undivided scores make its softmax sharper."""
    config = dataclasses.replace(
        preset(), patch_size=4, width=64, depth=4, num_heads=4, mlp_width=128, output_block=-1
    )
    torch.manual_seed(0)
    tower = ViT(config, 16).eval()
    initialise(tower)
    patches = torch.randn(2, 16, 48 * config.num_frames)
    positions = grid_positions(4, 4).expand(2, -1, -1)
    with torch.no_grad():
        expected = tower.encode(patches, positions)
        found = tower.bfloat16().encode(patches, positions)
    assert found.dtype is torch.bfloat16
    assert {p.dtype for p in tower.parameters()} == {torch.bfloat16}
    error = (found.float() - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert error.max() < (0.1 if config.attention_scale == 1.0 else 0.02)
