"""Pictures prepared by us and by transformers 5.5.4, value by value.

The reference is the image processor backed by torchvision, which 5.5.4 takes when torchvision is installed; the
one backed by Pillow rounds differently and is named so. OpenVLA's own code needs other versions of everything:
its transforms (Pillow) are written out here. Gemma 4 unified exists from 5.23.0 on: its output is recorded.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision.transforms.v2 import functional as transforms
from transformers.models.gemma4.image_processing_gemma4 import Gemma4ImageProcessor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor
from transformers.models.siglip.image_processing_siglip import SiglipImageProcessor
from transformers.models.siglip2.image_processing_siglip2 import Siglip2ImageProcessor

from vla.models.vision import preprocessing
from vla.models.vision.resize_rules import GEMMA4_TOKEN_BUDGETS

GOLDEN = Path(__file__).parent / "goldens" / "gemma4_unified_pictures" / "io.safetensors"
SIZES = [  # height, width
    (480, 640), (224, 224), (37, 51), (1, 1), (1, 7), (3, 2), (65, 301), (31, 900), (900, 31), (255, 257), (720, 1280),
]  # fmt: skip


def picture(height: int, width: int, *leading: int) -> torch.Tensor:
    """Noise over a gradient: every value occurs, with sharp and with soft edges."""
    generator = torch.Generator().manual_seed(height * 10_007 + width)
    noise = torch.randint(0, 256, (*leading, 3, height, width), generator=generator)
    ramp = torch.linspace(0, 255, width).expand(height, width)
    return torch.where(noise % 3 == 0, noise.to(torch.float32), ramp).to(torch.uint8)


def channels_first(patches: torch.Tensor, frames: int, patch_size: int) -> torch.Tensor:
    """Our (frames, rows, columns, channels) as Qwen2-VL's reference flattens it."""
    shape = (frames, patch_size, patch_size, 3)
    return patches.unflatten(-1, shape).permute(0, 4, 1, 2, 3).flatten(1)


@pytest.mark.parametrize("size", [56, 224, 448])
def test_squares_for_siglip_and_paligemma_are_the_references(size):
    pictures = [picture(*shape) for shape in SIZES]
    processor = SiglipImageProcessor(size={"height": size, "width": size})
    theirs = processor(pictures, return_tensors="pt")["pixel_values"]
    assert torch.equal(preprocessing.siglip_pixels(pictures, size), theirs)


def test_a_batch_is_prepared_as_its_pictures_are():
    batch = picture(96, 130, 3)
    one_by_one = torch.cat([preprocessing.siglip_pixels(x[None], 56) for x in batch])
    assert torch.equal(preprocessing.siglip_pixels(batch, 56), one_by_one)


@pytest.mark.parametrize("max_patches", [16, 256, 729])
def test_siglip2_patches_are_the_references(max_patches):
    pictures = [picture(*shape) for shape in SIZES]
    processor = Siglip2ImageProcessor(max_num_patches=max_patches)
    theirs = processor(pictures, return_tensors="pt")
    ours = preprocessing.siglip2_patches(pictures, max_patches=max_patches)
    assert torch.equal(ours.pixels, theirs["pixel_values"])
    assert torch.equal(ours.valid, theirs["pixel_attention_mask"].bool())
    assert torch.equal(ours.grids, theirs["spatial_shapes"])


@pytest.mark.parametrize(
    ("min_pixels", "max_pixels"), [(56 * 56, 28 * 28 * 1280), (28 * 28, 200 * 200)]
)
def test_qwen2_vl_patches_are_the_references(min_pixels, max_pixels):
    pictures = [picture(*shape) for shape in SIZES]
    processor = Qwen2VLImageProcessor(min_pixels=min_pixels, max_pixels=max_pixels)
    theirs = processor(pictures, return_tensors="pt")
    ours = preprocessing.qwen2_vl_patches(pictures, min_pixels=min_pixels, max_pixels=max_pixels)
    assert torch.equal(channels_first(ours.pixels, 2, 14), theirs["pixel_values"])
    assert torch.equal(ours.grids, theirs["image_grid_thw"])


@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_qwen2_vl_clips_are_the_references(num_frames):
    clips = [picture(120, 90, num_frames), picture(61, 200, num_frames + 1)]
    bounds = {"min_pixels": 56 * 56, "max_pixels": 150 * 150}
    processor = Qwen2VLVideoProcessor(**bounds)
    theirs = processor(clips, return_tensors="pt", do_sample_frames=False)
    ours = preprocessing.qwen2_vl_clip_patches(clips, **bounds)
    assert torch.equal(channels_first(ours.pixels, 2, 14), theirs["pixel_values_videos"])
    assert torch.equal(ours.grids, theirs["video_grid_thw"])


@pytest.mark.parametrize("budget", GEMMA4_TOKEN_BUDGETS)
def test_gemma4_patches_are_the_references(budget):
    pictures = [picture(*shape) for shape in [*SIZES, (2, 300), (300, 2)]]
    theirs = Gemma4ImageProcessor(max_soft_tokens=budget)(pictures, return_tensors="pt")
    ours = preprocessing.gemma4_patches(pictures, token_budget=budget)
    assert torch.equal(ours.pixels, theirs["pixel_values"])
    assert torch.equal(ours.positions, theirs["image_position_ids"])
    assert ours.num_tokens == list(theirs["num_soft_tokens_per_image"])


def test_gemma4_unified_patches_are_the_recorded_ones():
    recorded = load_file(GOLDEN)
    pictures = [recorded[f"input.{index}"] for index in range(3)]
    ours = preprocessing.gemma4_unified_patches(pictures, token_budget=70)
    chosen = recorded["chosen"]
    assert torch.equal(ours.pixels[:, :, chosen], recorded["output.pixel_values"])
    sums = (ours.pixels * 255).round().long().sum(dim=-1)
    assert torch.equal(sums, recorded["output.sums"])
    assert torch.equal(ours.positions, recorded["output.positions"])
    assert ours.num_tokens == recorded["output.num_tokens"].tolist()


@pytest.mark.parametrize(
    ("shape", "levels"),
    [
        ((480, 640), 1),
        ((720, 1280), 1),
        ((224, 224), 0),
        ((256, 256), 1),
        ((37, 51), 2),
        ((65, 301), 2),
    ],
)
def test_openvla_pictures_are_within_a_level_or_two_of_pillows(shape, levels):
    ours = preprocessing.openvla_pictures(picture(*shape)[None])[0].int()
    assert (ours - _pillow(picture(*shape)).int()).abs().max() <= levels


def test_openvla_pixels_hold_dinov2s_then_siglips_normalisation():
    square = _pillow(picture(224, 224)).float() / 255
    dino = transforms.normalize(square, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    siglip = transforms.normalize(square, [0.5] * 3, [0.5] * 3)
    ours = preprocessing.openvla_pixels(picture(224, 224)[None])[0]
    torch.testing.assert_close(ours, torch.cat([dino, siglip]), atol=1e-6, rtol=0)


def _pillow(x: torch.Tensor) -> torch.Tensor:
    image = Image.fromarray(x.permute(1, 2, 0).numpy()).resize((224, 224), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
