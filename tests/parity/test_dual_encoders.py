"""SigLIP, SigLIP2 and CLIP, pictures and texts, against transformers.

Random weights go through the key tables first.
"""

from typing import Any

import pytest
import torch
import transformers
from reference_towers import (
    SHAPES,
    SMALL,
    TOLERANCE,
    check_round_trip,
    loaded,
    naflex_batch,
    pictures,
    randomised,
)

from vla.checkpoints.keymap import KeyMap
from vla.checkpoints.maps import clip, siglip, siglip2, towers
from vla.errors import CheckpointError
from vla.models import dual_encoder
from vla.models.dual_encoder import DualEncoder
from vla.models.vision.vit import ViT
from vla.nn.positions import grid_positions

TEXT = {**SMALL, "vocab_size": 50, "max_position_embeddings": 9}


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


# SigLIP


@pytest.fixture(scope="module")
def siglip_reference() -> Any:
    vision = {**SMALL, "patch_size": 4, "image_size": 16}
    config = transformers.SiglipConfig(
        text_config={**TEXT, "projection_size": 32}, vision_config=vision
    )
    return randomised(transformers.SiglipModel(config))


@pytest.fixture(scope="module")
def siglip_model(siglip_reference) -> DualEncoder:
    config = siglip.model_config(siglip_reference.config.to_dict())
    return loaded(DualEncoder(config), siglip.key_map(config), siglip_reference)


def test_siglip_patches_and_pooled_vectors_agree(siglip_model, siglip_reference):
    pixels = pictures(2, 3, 16, 16)
    expected = siglip_reference.vision_model(pixels)
    tower = siglip_model.vision
    torch.testing.assert_close(tower(pixels), expected.last_hidden_state, **TOLERANCE)
    torch.testing.assert_close(tower.summarise(pixels), expected.pooler_output, **TOLERANCE)


def test_siglip_embeddings_and_logits_agree(siglip_model, siglip_reference):
    pixels, ids = pictures(2, 3, 16, 16), torch.randint(0, 50, (3, 9))
    check_pairs(siglip_model(pixels, ids), siglip_reference(input_ids=ids, pixel_values=pixels))


def test_siglip_text_features_agree(siglip_model, siglip_reference):
    ids = torch.randint(0, 50, (3, 9))
    expected = siglip_reference.text_model(ids).last_hidden_state
    torch.testing.assert_close(siglip_model.text(ids), expected, **TOLERANCE)


@pytest.mark.parametrize("size", [(24, 24), (12, 32)])
def test_siglip_agrees_with_stretched_positions(siglip_model, siglip_reference, size):
    pixels = pictures(2, 3, *size)
    expected = siglip_reference.vision_model(
        pixels, interpolate_pos_encoding=True
    ).last_hidden_state
    torch.testing.assert_close(siglip_model.vision(pixels), expected, **TOLERANCE)


def test_siglip_goes_there_and_back(siglip_model, siglip_reference):
    check_round_trip(siglip_model, siglip.key_map(siglip_model.config), siglip_reference)


def test_siglip_tower_is_read_from_a_checkpoint_with_and_without_prefix(siglip_reference):
    tower = siglip_reference.vision_model.state_dict()
    config = siglip.tower_config(siglip_reference.config.to_dict())
    model = ViT(config, 16)
    bare = siglip.tower_key_map(config).convert(tower, model)
    with_prefix = {f"vision_model.{name}": tensor for name, tensor in tower.items()}
    converted = siglip.tower_key_map(config).convert(with_prefix, model)
    assert all(torch.equal(bare[name], converted[name]) for name in bare)


def test_timm_layout_of_siglip_gives_the_same_tower(siglip_model):
    config = siglip_model.config.vision
    ours = siglip_model.vision.state_dict()
    key_map = KeyMap(family="timm", table=towers.timm_tower(config))
    theirs = key_map.export(ours)
    assert theirs["attn_pool.latent"].shape == (1, 1, 32)
    assert theirs["attn_pool.q.weight"].shape == (32, 32)
    assert theirs["attn_pool.kv.weight"].shape == (64, 32)
    back = key_map.convert(theirs, siglip_model.vision)
    assert all(torch.equal(back[name], ours[name]) for name in ours)


def check_pairs(found: dual_encoder.Pairs, expected: Any) -> None:
    torch.testing.assert_close(found.image_embeddings, expected.image_embeds, **TOLERANCE)
    torch.testing.assert_close(found.text_embeddings, expected.text_embeds, **TOLERANCE)
    torch.testing.assert_close(found.logits, expected.logits_per_image, **TOLERANCE)


# SigLIP2 NaFlex


@pytest.fixture(scope="module")
def siglip2_reference() -> Any:
    vision = {**SMALL, "patch_size": 4, "num_patches": 16}
    config = transformers.Siglip2Config(
        text_config={**TEXT, "projection_size": 32}, vision_config=vision
    )
    return randomised(transformers.Siglip2Model(config))


@pytest.fixture(scope="module")
def siglip2_model(siglip2_reference) -> DualEncoder:
    config = siglip2.model_config(siglip2_reference.config.to_dict())
    return loaded(DualEncoder(config), siglip2.key_map(config), siglip2_reference)


def test_siglip2_patches_and_pooled_vectors_of_three_shapes_agree(siglip2_model, siglip2_reference):
    patches, positions, valid = naflex_batch()
    expected = siglip2_reference.vision_model(patches, valid.long(), SHAPES)
    tower = siglip2_model.vision
    features = tower.encode(patches, positions, valid)
    torch.testing.assert_close(features[valid], expected.last_hidden_state[valid], **TOLERANCE)
    pooled = tower.summarise_patches(patches, positions, valid)
    torch.testing.assert_close(pooled, expected.pooler_output, **TOLERANCE)


def test_siglip2_embeddings_and_logits_agree(siglip2_model, siglip2_reference):
    (patches, positions, valid), ids = naflex_batch(), torch.randint(0, 50, (2, 9))
    expected = siglip2_reference(
        input_ids=ids,
        pixel_values=patches,
        pixel_attention_mask=valid.long(),
        spatial_shapes=SHAPES,
    )
    images = siglip2_model.embed_patches(patches, positions, valid)
    texts = siglip2_model.embed_texts(ids)
    check_pairs(dual_encoder.Pairs(images, texts, siglip2_model.logits(images, texts)), expected)


def test_siglip2_goes_there_and_back(siglip2_model, siglip2_reference):
    check_round_trip(siglip2_model, siglip2.key_map(siglip2_model.config), siglip2_reference)


# CLIP


@pytest.fixture(scope="module")
def clip_reference() -> Any:
    config = transformers.CLIPConfig(
        text_config={**TEXT, "eos_token_id": 7, "bos_token_id": 0, "pad_token_id": 1},
        vision_config={**SMALL, "patch_size": 4, "image_size": 16},
        projection_dim=24,
    )
    return randomised(transformers.CLIPModel(config))


@pytest.fixture(scope="module")
def clip_model(clip_reference) -> DualEncoder:
    config = clip.model_config(clip_reference.config.to_dict())
    return loaded(DualEncoder(config), clip.key_map(config), clip_reference)


def test_clip_patches_and_class_token_agree(clip_model, clip_reference):
    """The reference hands out patches before the final norm, which it keeps for the class token."""
    pixels = pictures(2, 3, 16, 16)
    expected = clip_reference.vision_model(pixels)
    patches = clip_reference.vision_model.post_layernorm(expected.last_hidden_state[:, 1:])
    torch.testing.assert_close(clip_model.vision(pixels), patches, **TOLERANCE)
    torch.testing.assert_close(
        clip_model.vision.summarise(pixels), expected.pooler_output, **TOLERANCE
    )


def test_clip_embeddings_and_logits_agree_whatever_follows_the_end_of_a_text(
    clip_model, clip_reference
):
    ids = torch.randint(8, 50, (3, 9))
    ids[0, 4], ids[1, 8], ids[2, 1] = 7, 7, 7
    ids[2, 5] = 7  # the first one counts
    pixels = pictures(2, 3, 16, 16)
    check_pairs(clip_model(pixels, ids), clip_reference(input_ids=ids, pixel_values=pixels))


def test_an_early_clip_config_means_the_largest_id_by_its_end_token(clip_reference):
    """They say eos_token_id 2; the reference then looks for the largest id, which released tokenizers give the end."""
    values = clip_reference.config.to_dict()
    values["text_config"]["eos_token_id"] = 2
    config = clip.model_config(values)
    model = loaded(DualEncoder(config), clip.key_map(config), clip_reference)
    ids = torch.randint(8, 49, (3, 9))
    ids[0, 4], ids[1, 8], ids[2, 1] = 49, 49, 49
    text = clip_reference.text_model
    text.eos_token_id, kept = 2, text.eos_token_id
    expected = clip_reference.text_projection(text(ids).pooler_output)
    text.eos_token_id = kept
    expected = expected / expected.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(model.embed_texts(ids), expected, **TOLERANCE)


def test_a_checkpoint_of_another_family_is_refused_by_name(siglip_reference, clip_reference):
    with pytest.raises(CheckpointError, match="model_type 'clip', expected siglip"):
        siglip.model_config(clip_reference.config.to_dict())
    config = siglip.model_config(siglip_reference.config.to_dict())
    with pytest.raises(
        CheckpointError, match=r"has no vision_model\.embeddings\.patch_embedding\.bias"
    ):
        siglip.key_map(config).convert(clip_reference.state_dict(), DualEncoder(config))


def test_clip_text_features_agree(clip_model, clip_reference):
    ids = torch.randint(8, 50, (3, 9))
    expected = clip_reference.text_model(ids).last_hidden_state
    torch.testing.assert_close(clip_model.text(ids), expected, **TOLERANCE)


@pytest.mark.parametrize("size", [(24, 24), (12, 32)])
def test_clip_agrees_with_stretched_positions(clip_model, clip_reference, size):
    pixels = pictures(2, 3, *size)
    expected = clip_reference.vision_model(pixels, interpolate_pos_encoding=True).pooler_output
    torch.testing.assert_close(clip_model.vision.summarise(pixels), expected, **TOLERANCE)


def test_clip_goes_there_and_back(clip_model, clip_reference):
    check_round_trip(clip_model, clip.key_map(clip_model.config), clip_reference)


# All of them


@pytest.mark.parametrize("name", ["siglip_model", "siglip2_model", "clip_model"])
def test_another_picture_gives_other_features(name, request):
    tower = request.getfixturevalue(name).vision
    first, second = (tower(pictures(1, 3, 16, 16, seed=seed)) for seed in (1, 2))
    assert (first - second).abs().amax(dim=-1).min() > 0.1


@pytest.mark.parametrize("name", ["siglip2_model", "clip_model"])
def test_padding_and_neighbours_change_nothing_for_a_picture(name, request):
    tower = request.getfixturevalue(name).vision
    patches, positions, valid = naflex_batch()
    together = tower.encode(patches, positions, valid)[0, :15]
    alone = tower.encode(patches[:1, :15], positions[:1, :15])[0]
    torch.testing.assert_close(together, alone, **TOLERANCE)


def test_the_order_of_patches_is_free(siglip2_model):
    patches, positions, _ = naflex_batch(SHAPES[:1], 15)
    order = torch.randperm(15)
    features = siglip2_model.vision.encode(patches, positions)
    shuffled = siglip2_model.vision.encode(patches[:, order], positions[:, order])
    torch.testing.assert_close(shuffled, features[:, order], **TOLERANCE)


def test_patches_of_one_size_cut_before_equal_pixels(clip_model):
    pixels = pictures(2, 3, 16, 24)
    patches = pixels.view(2, 3, 4, 4, 6, 4).permute(0, 2, 4, 3, 5, 1).reshape(2, 24, 48)
    found = clip_model.vision.encode(patches, grid_positions(4, 6).expand(2, -1, -1))
    torch.testing.assert_close(found, clip_model.vision(pixels), **TOLERANCE)
