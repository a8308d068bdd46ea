import pytest
import torch

from vla.data.jitter import ColorJitterConfig, jitter_colors
from vla.errors import ConfigError


def _pictures(*shape: int) -> torch.Tensor:
    return torch.randint(
        0, 256, (*shape, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def _one_by_one(
    picture: torch.Tensor, brightness: float, contrast: float, saturation: float
) -> torch.Tensor:
    """Brightness, contrast about the mean grey, saturation about each pixel's grey, one after another."""
    luma = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    x = picture.float() * brightness
    x = contrast * x + (1 - contrast) * (x * luma).sum(0).mean()
    x = saturation * x + (1 - saturation) * (x * luma).sum(0, keepdim=True)
    return x.clamp(0, 255)


def test_the_matrix_form_agrees_with_three_steps_one_after_another():
    pictures = _pictures(4, 2)
    cfg = ColorJitterConfig(brightness=0.2, contrast=0.3, saturation=0.4)
    moved = jitter_colors(pictures, cfg, torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(7)
    factors = [1 + a * (2 * torch.rand(8, 1, 1, generator=generator) - 1) for a in (0.2, 0.3, 0.4)]
    for i, picture in enumerate(pictures.flatten(0, 1)):
        expected = _one_by_one(picture, *(float(f[i]) for f in factors))
        assert (moved.flatten(0, 1)[i].float() - expected).abs().max() <= 0.51


def test_no_strength_changes_nothing():
    pictures = _pictures(3)
    assert torch.equal(
        jitter_colors(pictures, ColorJitterConfig(), torch.Generator().manual_seed(0)), pictures
    )


def test_every_picture_moves_by_its_own_amounts():
    pictures = _pictures(1).expand(6, 3, 8, 8)
    moved = jitter_colors(
        pictures, ColorJitterConfig(brightness=0.5), torch.Generator().manual_seed(0)
    )
    assert len({float(picture.float().mean()) for picture in moved}) == 6


def test_channels_innermost_give_the_same_pictures():
    pictures = _pictures(4)
    innermost = pictures.contiguous(memory_format=torch.channels_last)
    cfg = ColorJitterConfig(brightness=0.2, contrast=0.2, saturation=0.2)
    moved = [jitter_colors(p, cfg, torch.Generator().manual_seed(1)) for p in (pictures, innermost)]
    assert (moved[0].int() - moved[1].int()).abs().max() <= 1


def test_a_strength_of_one_or_more_is_refused():
    with pytest.raises(ConfigError, match=r"jitter.contrast must lie in \[0, 1\); got 1.5"):
        ColorJitterConfig(contrast=1.5)
