import dataclasses

import pytest
import torch

from vla.errors import ConfigError
from vla.losses.contrastive import clip_loss, siglip_loss
from vla.models.dual_encoder import DualEncoder, DualEncoderConfig, TextTowerConfig, clip_vit_l_14
from vla.models.initialisation import initialise
from vla.models.vision import presets

TEXT = TextTowerConfig(vocab_size=20, max_tokens=6, width=16, depth=2, num_heads=2, mlp_width=32)
VISION = dataclasses.replace(
    presets.siglip_so400m_released(), patch_size=4, width=16, depth=2, num_heads=2, mlp_width=32
)
SIGLIP = DualEncoderConfig(vision=VISION, image_size=8, text=TEXT, embedding_width=16)
CLIP = dataclasses.replace(
    SIGLIP,
    text=dataclasses.replace(TEXT, is_causal=True, end_id=3),
    embedding_width=12,
    has_image_projection=True,
    text_projection_bias=False,
    logit_bias=None,
)


def model(config: DualEncoderConfig) -> DualEncoder:
    torch.manual_seed(0)
    encoder = DualEncoder(config)
    initialise(encoder)
    return encoder


def test_embeddings_have_unit_length_and_siglip_s_first_temperature_and_bias_are_ten():
    encoder = model(SIGLIP)
    pairs = encoder(torch.randn(3, 3, 8, 8), torch.randint(0, 20, (2, 6)))
    torch.testing.assert_close(pairs.image_embeddings.norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(pairs.text_embeddings.norm(dim=-1), torch.ones(2))
    cosine = pairs.image_embeddings @ pairs.text_embeddings.T
    torch.testing.assert_close(pairs.logits, 10.0 * cosine - 10.0)


def test_both_losses_reach_every_weight_that_is_read():
    for config in (SIGLIP, CLIP):
        encoder = model(config)
        pairs = encoder(torch.randn(4, 3, 8, 8), torch.randint(0, 20, (4, 6)))
        images, texts = pairs.image_embeddings, pairs.text_embeddings
        if encoder.logit_bias is None:
            loss = clip_loss(images, texts, encoder.log_temperature)
        else:
            loss = siglip_loss(images, texts, encoder.log_temperature, encoder.logit_bias)
        loss.backward()
        unreached = [n for n, p in encoder.named_parameters() if p.grad is None]
        assert unreached == []


def test_a_causal_text_does_not_depend_on_what_follows_its_end():
    encoder = model(CLIP)
    ids = torch.tensor([[5, 6, 3, 1, 1, 1], [5, 6, 3, 9, 3, 8], [5, 7, 3, 1, 1, 1]])
    first, second, other = encoder.embed_texts(ids)
    torch.testing.assert_close(first, second)
    assert not torch.allclose(first, other, atol=1e-3)


def test_siglip_reads_the_last_token_and_everything_before_it():
    encoder = model(SIGLIP)
    ids = torch.randint(0, 20, (1, 6))
    before = encoder.embed_texts(ids)
    for place in range(6):
        changed = ids.clone()
        changed[0, place] = (ids[0, place] + 1) % 20
        assert not torch.allclose(before, encoder.embed_texts(changed), atol=1e-6)


def test_a_text_longer_than_the_tower_reads_is_refused():
    with pytest.raises(ConfigError, match="a text of 7 tokens; this tower reads 6"):
        model(SIGLIP).embed_texts(torch.zeros(1, 7, dtype=torch.int64))


def test_widths_that_do_not_meet_are_refused():
    with pytest.raises(ConfigError, match="pictures have 16 channels and embeddings 12"):
        dataclasses.replace(SIGLIP, embedding_width=12)


def test_the_released_clip_pools_at_its_end_token():
    assert clip_vit_l_14().text.end_id == 49407
