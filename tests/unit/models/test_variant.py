"""What each switch changes in a backbone, and that it changes nothing else."""

import dataclasses

import pytest
import torch

from vla.errors import ConfigError
from vla.models.backbones import prismatic_config
from vla.models.backbones.gemma4 import Gemma4
from vla.models.backbones.gemma4_config import tiny_gemma4, tiny_gemma4_encoder
from vla.models.backbones.paligemma import PaliGemma
from vla.models.backbones.paligemma_config import tiny_paligemma
from vla.models.backbones.qwen2_vl import Qwen2VL
from vla.models.backbones.qwen2_vl_config import tiny as tiny_qwen2_vl
from vla.models.backbones.variant import TowerName, TowerRope, Variant, apply_variant
from vla.models.connectors import ConnectorKind, MLPConnector
from vla.models.vision.vit import ViT
from vla.nn.masks import PrefixAttention
from vla.nn.positions import grid_positions

VOCAB = 300
WORDS = 5


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def asked(model: PaliGemma | Qwen2VL | Gemma4, image_id: int, picture: torch.Tensor):
    """Returns what embeds one picture behind one word and before others, in a batch of one."""
    num_tokens = model.num_image_tokens(picture.shape)
    ids = torch.tensor([[1, *[image_id] * num_tokens, *range(2, 2 + WORDS)]])
    return model.embed_pictures(ids, torch.ones_like(ids, dtype=torch.bool), [[picture]])


def picture(rows: int, columns: int) -> torch.Tensor:
    return torch.randint(0, 256, (3, rows, columns), dtype=torch.uint8)


def test_no_switch_leaves_every_family_as_it_is():
    for config in (
        prismatic_config.tiny(VOCAB),
        tiny_paligemma(VOCAB),
        tiny_qwen2_vl(VOCAB),
        tiny_gemma4(VOCAB),
    ):
        assert apply_variant(config, Variant()) == config


@pytest.mark.parametrize(
    ("config", "variant", "named"),
    [
        (tiny_paligemma(VOCAB), Variant(mrope=False), "PaliGemma: unknown switch 'mrope'"),
        (tiny_gemma4(VOCAB), Variant(towers=[TowerName.SIGLIP]), "Gemma4: unknown switch 'towers'"),
        (tiny_gemma4(VOCAB), Variant(tower_depth=2), "woven"),
        (prismatic_config.tiny(VOCAB), Variant(towers=[]), "dinov2, siglip or both"),
        (tiny_qwen2_vl(VOCAB), Variant(fixed_size=40), "fixed_size = 40"),
    ],
)
def test_a_switch_that_a_family_does_not_have_is_refused(config, variant, named):
    with pytest.raises(ConfigError, match=named):
        apply_variant(config, variant)


def test_prismatic_keeps_the_towers_that_are_named_in_their_order():
    config = prismatic_config.tiny(VOCAB)
    both = apply_variant(config, Variant(towers=[TowerName.SIGLIP, TowerName.DINOV2]))
    alone = apply_variant(config, Variant(towers=[TowerName.SIGLIP], tower_depth=5))
    assert both == config
    assert [tower.has_class_token for tower in alone.towers] == [False]
    assert alone.towers[0].depth == 5


def test_depths_change_blocks_and_gemma4_keeps_its_last_layer_full():
    deep = apply_variant(tiny_gemma4(VOCAB), Variant(encoder=True, decoder_depth=6, tower_depth=2))
    model = Gemma4(deep)
    assert len(model.decoder.layers) == 6
    assert deep.decoder.full_layers == [3, 5]
    assert isinstance(model.vision, ViT)
    assert len(model.vision.blocks) == 2


def test_the_encoder_switch_is_the_preset_with_an_encoder():
    assert apply_variant(tiny_gemma4(VOCAB), Variant(encoder=True)) == tiny_gemma4_encoder(VOCAB)


def test_a_raster_tower_cannot_tell_two_rows_of_three_from_one_row_of_six():
    config = tiny_qwen2_vl(VOCAB)
    raster = apply_variant(config, Variant(tower_rope=TowerRope.RASTER))
    tower, flat = ViT(config.tower).eval(), ViT(raster.tower).eval()
    flat.load_state_dict(tower.state_dict())
    patches = torch.randn(1, 6, tower.patches.projection.in_features)
    block, line = grid_positions(2, 3)[None], grid_positions(1, 6)[None]
    torch.testing.assert_close(flat.encode(patches, block), flat.encode(patches, line))
    assert not torch.allclose(tower.encode(patches, block), tower.encode(patches, line), atol=1e-3)


def test_a_raster_tower_counts_each_picture_by_its_own_columns():
    tower = ViT(apply_variant(tiny_qwen2_vl(VOCAB), Variant(tower_rope=TowerRope.RASTER)).tower)
    patches = torch.randn(2, 6, tower.patches.projection.in_features)
    places = torch.zeros(2, 6, 2, dtype=torch.long)
    places[0], places[1, :4] = grid_positions(2, 3), grid_positions(2, 2)
    places[1, 4:] = 99  # padding, anything
    valid = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    together = tower.encode(patches, places, valid)
    alone = tower.encode(patches[1:, :4], grid_positions(2, 2)[None])
    torch.testing.assert_close(together[1:, :4], alone, atol=1e-5, rtol=1e-4)


def test_without_mrope_positions_count_tokens():
    config = tiny_qwen2_vl(VOCAB)
    shown = picture(64, 32)
    plain = apply_variant(config, Variant(mrope=False))
    counted = asked(Qwen2VL(plain), config.image_id, shown).positions
    placed = asked(Qwen2VL(config), config.image_id, shown).positions
    assert counted.tolist() == [list(range(1 + 8 + WORDS))]
    assert placed.shape[-1] == 3
    assert counted.max() > placed.max()


def test_a_fixed_size_takes_the_shape_from_pictures_and_clips():
    config = dataclasses.replace(tiny_qwen2_vl(VOCAB), max_pixels=128 * 128)
    fixed = apply_variant(config, Variant(fixed_size=32))
    wide, tall = (3, 32, 128), (3, 128, 32)
    assert fixed.num_image_tokens(wide) == fixed.num_image_tokens(tall) == 4
    assert config.num_image_tokens(wide) == 16
    assert fixed.num_image_tokens((4, *wide)) == 2 * 4
    prefix = asked(Qwen2VL(fixed), config.image_id, picture(32, 128))
    assert prefix.embeddings.shape[1] == 1 + 4 + WORDS
    clip = torch.randint(0, 256, (4, *wide), dtype=torch.uint8)
    assert fixed.prepare_clips([clip]).grids.tolist() == [[2, 4, 4]]


def test_a_fixed_size_beyond_the_bounds_moves_them():
    fixed = apply_variant(tiny_qwen2_vl(VOCAB), Variant(fixed_size=96))
    assert fixed.num_image_tokens((3, 50, 50)) == 36
    assert fixed.prepare_pictures(picture(50, 50)[None]).grids.tolist() == [[1, 12, 12]]


def test_causal_paligemma_reads_the_prompt_from_left_to_right():
    config = tiny_paligemma(VOCAB)
    shown = picture(64, 64)
    whole = asked(PaliGemma(config), config.image_id, shown)
    causal = apply_variant(config, Variant(attention=PrefixAttention.CAUSAL))
    one_way = asked(PaliGemma(causal), config.image_id, shown)
    assert set(whole.blocks[0].tolist()) == {0}
    assert one_way.blocks[0].tolist() == list(range(1 + 64 + WORDS))


def test_paligemmas_connector_can_be_an_mlp():
    config = apply_variant(tiny_paligemma(VOCAB), Variant(connector=ConnectorKind.MLP))
    model = PaliGemma(config)
    assert isinstance(model.connector, MLPConnector)
    assert asked(model, config.image_id, picture(64, 64)).embeddings.shape[1] == 1 + 64 + WORDS
