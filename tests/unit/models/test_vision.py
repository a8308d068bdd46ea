import dataclasses

import pytest
import torch

from vla.errors import ConfigError
from vla.models.vision import presets
from vla.models.vision.fused import FusedTowers
from vla.models.vision.patchify import PatchEmbedding
from vla.models.vision.vit import ViT, ViTConfig, resize_position_table
from vla.nn.mlp import Activation

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
