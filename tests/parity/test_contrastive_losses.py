"""Our contrastive losses against those that transformers computes with its SigLIP and CLIP."""

from typing import Any

import pytest
import torch
import transformers

from vla.losses.contrastive import clip_loss, siglip_loss

BATCH = 5
SMALL = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
TEXT = {
    **SMALL,
    "vocab_size": 50,
    "max_position_embeddings": 8,
    "eos_token_id": 49,
    "pad_token_id": 0,
}
VISION = {**SMALL, "image_size": 16, "patch_size": 8}


@torch.no_grad()
def _output(model: Any, **scalars: float) -> Any:
    """One batch through a reference with random weights and the given learnt scalars (zero after its own start)."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    for name, value in scalars.items():
        getattr(model, name).fill_(value)
    return model.eval()(
        input_ids=torch.randint(1, 49, (BATCH, 8), generator=generator),
        pixel_values=torch.randn(BATCH, 3, 16, 16, generator=generator),
        return_loss=True,
    )


@pytest.mark.parametrize(("scale", "bias"), [(2.3, -10.0), (0.7, 1.5)])
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_siglip_s_loss_agrees(scale, bias, chunk_size):
    config = transformers.SiglipConfig(text_config=TEXT, vision_config=VISION)
    output = _output(transformers.SiglipModel(config), logit_scale=scale, logit_bias=bias)
    loss = siglip_loss(
        output.image_embeds,
        output.text_embeds,
        torch.tensor(scale),
        torch.tensor(bias),
        chunk_size=chunk_size,
    )
    assert output.loss > 0.5
    torch.testing.assert_close(loss, output.loss, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("scale", [2.6593, 0.5])
def test_clip_s_loss_agrees(scale):
    config = transformers.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=12)
    output = _output(transformers.CLIPModel(config), logit_scale=scale)
    loss = clip_loss(output.image_embeds, output.text_embeds, torch.tensor(scale))
    assert output.loss > 0.5
    torch.testing.assert_close(loss, output.loss, atol=1e-6, rtol=1e-6)
