"""Parts that were trained apart go into a backbone whole, or not at all."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from vla.checkpoints.folder import save_folder
from vla.checkpoints.parts import load_parts
from vla.errors import CheckpointError, ConfigError
from vla.models.backbones.paligemma import PaliGemma
from vla.models.backbones.paligemma_config import tiny_paligemma
from vla.models.backbones.prismatic import Prismatic
from vla.models.backbones.prismatic_config import tiny
from vla.models.config_dict import config_to_dict
from vla.models.decoder import Decoder
from vla.models.dual_encoder import DualEncoder, tiny_siglip
from vla.models.initialisation import initialise
from vla.models.vision import presets
from vla.models.vision.vit import ViT
from vla.training.language import decoder_config
from vla.training.pretrain_config import DecoderFamily


def filled[M: nn.Module](model: M) -> M:
    with torch.no_grad():
        initialise(model)
    return model


def save_pair(
    path: Path, *, image_size: int = 64, width: int = 128, depth: int = 4, patch: int = 8
) -> DualEncoder:
    shape = tiny_siglip(
        64, image_size=image_size, width=width, depth=depth, patch_size=patch, text_depth=1
    )
    model = filled(DualEncoder(shape))
    described = {
        "kind": "picture_text",
        "model": {"family": "dual_encoder", "config": config_to_dict(shape)},
    }
    save_folder(path, described, model.state_dict())
    return model


def save_decoder(path: Path, family: DecoderFamily, vocab_size: int) -> Decoder:
    shape = decoder_config(family, vocab_size)
    model = filled(Decoder(shape))
    described = {
        "kind": "decoder",
        "model": {"family": family.value, "config": config_to_dict(shape)},
    }
    save_folder(path, described, model.state_dict())
    return model


def test_a_siglip_tower_sees_the_same_inside_paligemma(tmp_path: Path):
    pair = save_pair(tmp_path)
    backbone = PaliGemma(tiny_paligemma(64))
    assert load_parts(backbone, vision=[tmp_path]) == [f"vision from {tmp_path}"]
    pixels = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(backbone.vision(pixels), pair.vision(pixels))


def test_each_tower_of_prismatic_gets_the_weights_that_fit_it(tmp_path: Path):
    pair = save_pair(tmp_path / "siglip", width=96, depth=2, patch=16)
    shape = presets.tiny_dinov2()
    dinov2 = filled(ViT(shape, 64))
    described = {
        "kind": "tower",
        "model": {"family": "vit", "config": {"tower": config_to_dict(shape), "image_size": 64}},
    }
    save_folder(tmp_path / "dinov2", described, dinov2.state_dict())
    backbone = Prismatic(tiny(64))
    filled_parts = load_parts(backbone, vision=[tmp_path / "siglip", tmp_path / "dinov2"])
    assert [part.split()[0] for part in filled_parts] == ["vision.towers.1", "vision.towers.0"]
    pixels = torch.randn(1, 3, 64, 64)
    first, second = backbone.vision.towers
    torch.testing.assert_close(first(pixels), dinov2(pixels))
    torch.testing.assert_close(second(pixels), pair.vision(pixels))


def test_positions_stretch_to_pictures_of_another_size(tmp_path: Path):
    pair = save_pair(tmp_path, image_size=96)
    backbone = PaliGemma(tiny_paligemma(64))
    load_parts(backbone, vision=[tmp_path])
    pixels = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(backbone.vision(pixels), pair.vision(pixels), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", [DecoderFamily.PRISMATIC, DecoderFamily.PALIGEMMA])
def test_a_decoder_says_the_same_inside_a_backbone_and_more_rows_stay_as_they_were(
    tmp_path: Path, family: DecoderFamily
):
    decoder = save_decoder(tmp_path, family, 60)
    is_prismatic = family is DecoderFamily.PRISMATIC
    backbone = Prismatic(tiny(64)) if is_prismatic else PaliGemma(tiny_paligemma(64))
    before = backbone.decoder.token_embedding.weight.detach().clone()
    load_parts(backbone, decoder=tmp_path)
    table = backbone.decoder.token_embedding.weight
    assert torch.equal(table[:60], decoder.token_embedding.weight)
    assert torch.equal(table[60:], before[60:])
    x = torch.randn(1, 5, backbone.decoder.config.width)
    arguments = {
        "may_attend": torch.ones(1, 1, 5, 5, dtype=torch.bool),
        "positions": torch.arange(5)[None],
    }
    torch.testing.assert_close(backbone.decoder(x, **arguments), decoder(x, **arguments))


def test_a_tower_of_another_shape_is_refused_by_the_tensor(tmp_path: Path):
    save_pair(tmp_path, width=96)
    with pytest.raises(CheckpointError, match=r"fits no tower of this model \(vision: "):
        load_parts(PaliGemma(tiny_paligemma(64)), vision=[tmp_path])


def test_a_decoder_of_another_family_is_refused_by_the_setting(tmp_path: Path):
    save_decoder(tmp_path, DecoderFamily.PRISMATIC, 64)
    with pytest.raises(CheckpointError, match="activation is SILU in the checkpoint, GELU_TANH"):
        load_parts(PaliGemma(tiny_paligemma(64)), decoder=tmp_path)


def test_a_larger_vocabulary_than_the_models_is_refused(tmp_path: Path):
    save_decoder(tmp_path, DecoderFamily.PALIGEMMA, 80)
    with pytest.raises(CheckpointError, match=r"has shape \(80, 192\), the model's decoder \(64"):
        load_parts(PaliGemma(tiny_paligemma(64)), decoder=tmp_path)


def test_a_checkpoint_without_a_tower_is_refused_by_its_kind(tmp_path: Path):
    save_decoder(tmp_path, DecoderFamily.PRISMATIC, 64)
    with pytest.raises(CheckpointError, match="holds no vision tower: unknown kind 'decoder'"):
        load_parts(PaliGemma(tiny_paligemma(64)), vision=[tmp_path])


def test_a_model_without_the_part_is_told_so(tmp_path: Path):
    save_pair(tmp_path)
    with pytest.raises(ConfigError, match="Linear has no vision tower to fill"):
        load_parts(nn.Linear(2, 2), vision=[tmp_path])


def test_a_tower_without_its_pool_is_refused_where_the_model_wants_one(tmp_path: Path):
    shape = presets.tiny_siglip(128, 4, 8)
    tower = filled(ViT(shape, 64))
    described = {
        "kind": "tower",
        "model": {"family": "vit", "config": {"tower": config_to_dict(shape), "image_size": 64}},
    }
    save_folder(tmp_path, described, tower.state_dict())
    wanted = tiny_paligemma(64)
    wanted.tower = replace(wanted.tower, has_attention_pool=True)
    with pytest.raises(CheckpointError, match="the checkpoint lacks 'attention_pool"):
        load_parts(PaliGemma(wanted), vision=[tmp_path])
