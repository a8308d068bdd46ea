"""Reads the picture that `vla ask` is given, and draws what the answer found on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError

from vla.data.atomic import replacing
from vla.errors import ConfigError
from vla.types import ImageArray

if TYPE_CHECKING:
    from vla.inference.answer import Answer

_LEAST_PX = 480  # longer side of the drawn picture; small ones are enlarged, or nothing could be read on them
_COLORS = ["#ff3b30", "#0a84ff", "#30d158", "#ffd60a", "#bf5af2", "#ff9f0a"]
_MASK_SHARE = 0.45  # of the colour in the pixels of a mask


def read_picture(path: Path) -> ImageArray:
    """Returns (H, W, 3) uint8; raises ConfigError when there is no such file or it is no picture."""
    if not path.is_file():
        what = "is a folder, not a picture" if path.is_dir() else "does not exist"
        raise ConfigError(f"image={path} {what}; give a PNG or JPEG file")
    try:
        with Image.open(path) as picture:
            return np.array(picture.convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise ConfigError(
            f"image={path} is not a picture that can be read ({error}); give a PNG or JPEG file"
        ) from None


def draw_answer(pixels: ImageArray, answer: Answer, path: Path) -> None:
    """Writes a PNG of the picture with the boxes, masks, names and probabilities of an answer."""
    factor = max(1, -(-_LEAST_PX // max(pixels.shape[:2])))
    canvas = pixels.repeat(factor, axis=0).repeat(factor, axis=1).astype(np.float32)
    for number, item in enumerate(answer.objects):
        if item.mask is not None:
            inside = item.mask.repeat(factor, axis=0).repeat(factor, axis=1)
            canvas[inside] = (1 - _MASK_SHARE) * canvas[inside] + _MASK_SHARE * _rgb(number)
    picture = Image.fromarray(canvas.astype(np.uint8))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(14)
    height, width = canvas.shape[:2]
    for number, item in enumerate(answer.objects):
        y_min, x_min, y_max, x_max = item.box
        top, bottom = sorted((y_min * height, y_max * height))
        left, right = sorted((x_min * width, x_max * width))
        color = _COLORS[number % len(_COLORS)]
        draw.rectangle((left, top, right, bottom), outline=color, width=2)
        text = f"{item.label} {item.confidence:.2f}"
        text_width, text_height = draw.textlength(text, font), 18
        corner = (min(left, max(0, width - text_width - 4)), max(0, top - text_height))
        draw.rectangle((*corner, corner[0] + text_width + 4, corner[1] + text_height), fill=color)
        draw.text((corner[0] + 2, corner[1] + 1), text, "black", font)
    with replacing(path) as temporary:
        picture.save(temporary, "PNG")


def _rgb(number: int) -> np.ndarray:
    color = _COLORS[number % len(_COLORS)]
    return np.array([int(color[index : index + 2], 16) for index in (1, 3, 5)], np.float32)
