"""To which height and width a picture is brought before it is cut into patches, one rule a family. No pixels here.

OpenVLA, PaliGemma   the model's square, whatever the picture's shape
SigLIP 2 (NaFlex)    the largest grid of whole patches within a number of patches, sides rounded up
Qwen2-VL             sides rounded to multiples of 28 px, then scaled into [min_pixels, max_pixels]
Gemma 4              the largest size within a budget of tokens of 48 x 48 px, sides rounded down
"""

from __future__ import annotations

import math

from vla.errors import ConfigError

MAX_ASPECT_RATIO = 200  # Qwen2-VL's limit (transformers 5.5.4, smart_resize), kept for every family
GEMMA4_TOKEN_BUDGETS = (70, 140, 280, 560, 1120)  # transformers 5.5.4, image_processing_gemma4.py
QWEN2_VL_IMAGE_PIXELS = (56 * 56, 28 * 28 * 1280)  # least and most pixels, Qwen2VLImageProcessor
QWEN2_VL_VIDEO_PIXELS = (128 * 28 * 28, 768 * 28 * 28)  # of a frame, Qwen2VLVideoProcessor


def check_picture_size(height: int, width: int) -> None:
    """Returns nothing; a picture with these sides can be shown to a model.

    Raises:
        ConfigError: a side is zero, or one side is more than 200 times the other.
    """
    if min(height, width) < 1:
        raise ConfigError(
            f"a picture of {height} x {width} px (height x width) holds no pixels; check the camera or the file"
        )
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise ConfigError(
            f"a picture of {height} x {width} px (height x width) is longer than {MAX_ASPECT_RATIO} times its "
            "other side; crop it, or check that height and width are not swapped with the channels"
        )


def siglip2_size(
    height: int, width: int, *, patch_size: int = 16, max_patches: int = 256
) -> tuple[int, int]:
    """Returns the (height, width) that SigLIP 2's NaFlex towers read, in pixels.

    The scale is found by halving [1e-6, 100] until it is known to 1e-5, as the reference does; an exact
    solution would round some sides differently. Source: transformers 5.5.4, image_processing_siglip2.py.
    """

    def patches(scale: float, side: int) -> int:
        return max(1, math.ceil(side * scale / patch_size))

    low, high = 1e-6, 100.0
    while high - low >= 1e-5:
        middle = (low + high) / 2
        if patches(middle, height) * patches(middle, width) <= max_patches:
            low = middle
        else:
            high = middle
    return patches(low, height) * patch_size, patches(low, width) * patch_size


def qwen2_vl_size(
    height: int,
    width: int,
    *,
    factor: int = 28,
    min_pixels: int = QWEN2_VL_IMAGE_PIXELS[0],
    max_pixels: int = QWEN2_VL_IMAGE_PIXELS[1],
) -> tuple[int, int]:
    """Returns the (height, width) that Qwen2-VL's tower reads, in pixels: multiples of `factor`.

    Halves round to the even multiple. Source: transformers 5.5.4, image_processing_qwen2_vl.py, smart_resize.

    Args:
        height: of the picture, pixels.
        width: of the picture, pixels.
        factor: side of one image token, patch size times merge size, pixels.
        min_pixels: smaller pictures are enlarged.
        max_pixels: larger pictures are reduced.

    Raises:
        ConfigError: the two bounds exclude each other.
    """
    if not 0 < min_pixels <= max_pixels:
        raise ConfigError(
            f"min_pixels {min_pixels} and max_pixels {max_pixels} exclude each other; "
            "expected 0 < min_pixels <= max_pixels"
        )
    rows, columns = round(height / factor), round(width / factor)
    if rows * columns * factor**2 > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        rows = max(1, math.floor(height / shrink / factor))
        columns = max(1, math.floor(width / shrink / factor))
    elif rows * columns * factor**2 < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rows = math.ceil(height * grow / factor)
        columns = math.ceil(width * grow / factor)
    return rows * factor, columns * factor


def gemma4_size(
    height: int, width: int, *, token_budget: int = 280, token_size: int = 48
) -> tuple[int, int]:
    """Returns the (height, width) that Gemma 4 reads, in pixels: multiples of `token_size`.

    Source: transformers 5.5.4, image_processing_pil_gemma4.py, get_aspect_ratio_preserving_size.

    Args:
        height: of the picture, pixels.
        width: of the picture, pixels.
        token_budget: the most image tokens; the released models take one of 70, 140, 280, 560, 1120.
        token_size: side of one image token, pixels: 3 x 3 patches of 16.

    Raises:
        ConfigError: a budget below 1.
    """
    if token_budget < 1:
        raise ConfigError(
            f"token_budget = {token_budget} image tokens; give at least 1 (the released models take one of "
            f"{', '.join(map(str, GEMMA4_TOKEN_BUDGETS))})"
        )
    scale = math.sqrt(token_budget * token_size**2 / (height * width))
    rows, columns = math.floor(scale * height / token_size), math.floor(scale * width / token_size)
    if rows == 0:  # a strip: one row of tokens that keeps the ratio, not the area
        rows, columns = 1, min(width // height, token_budget)
    elif columns == 0:
        rows, columns = min(height // width, token_budget), 1
    return rows * token_size, columns * token_size
