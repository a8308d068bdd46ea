"""A picture of what labelled scenes say: boxes, masks, phrases, captions and answers drawn in, to be looked at."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vla.data.atomic import replacing
from vla.data.scene_rows import SceneObject, SceneRow
from vla.data.scenes import open_scenes
from vla.types import ImageArray

_PICTURE_PX = 330  # the longer side
_TEXT_PX, _LINE_PX, _NUM_LINES = 11, 13, 19
_GAP_PX, _COLUMNS, _CLIP_FRAMES = 8, 4, 4
_INKS = ("#ff00ff", "#00ff00", "#ffff00", "#00ffff", "#ff8800", "#ffffff", "#88ff88", "#ff88ff")


def write_scene_sheet(root: Path, path: Path, *, num_rows: int = 24) -> None:
    """Writes a PNG with `num_rows` scenes spread over the dataset, each with what is said about it."""
    scenes = open_scenes(root, cache=False)
    chosen = np.unique(np.linspace(0, len(scenes) - 1, num_rows).astype(int))
    tiles = [_tile(scenes[int(index)]) for index in chosen]
    width = max(tile.width for tile in tiles) + _GAP_PX
    height = max(tile.height for tile in tiles) + _GAP_PX
    columns = min(_COLUMNS, len(tiles))
    size = (columns * width + _GAP_PX, -(-len(tiles) // columns) * height + _GAP_PX)
    sheet = Image.new("RGB", size, "white")
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (_GAP_PX + i % columns * width, _GAP_PX + i // columns * height))
    with replacing(path) as temporary:
        sheet.save(temporary, "PNG")


def _tile(row: SceneRow) -> Image.Image:
    pictures = [_labelled(row)]
    if len(row.frames) > 1:
        chosen = np.linspace(0, len(row.frames) - 1, _CLIP_FRAMES).astype(int)
        shown = [row.frames[int(index)].transpose(1, 2, 0) for index in chosen]
        pictures.append(_scaled(np.concatenate(shown, axis=1)))
    width = max(picture.width for picture in pictures)
    height = sum(picture.height for picture in pictures)
    tile = Image.new("RGB", (max(width, _PICTURE_PX), height + _NUM_LINES * _LINE_PX), "white")
    top = 0
    for picture in pictures:
        tile.paste(picture, (0, top))
        top += picture.height
    lines = [line for text in _texts(row) for line in textwrap.wrap(text, 56)][:_NUM_LINES]
    ImageDraw.Draw(tile).multiline_text(
        (1, top + 1), "\n".join(lines), "black", ImageFont.load_default(_TEXT_PX), spacing=1
    )
    return tile


def _texts(row: SceneRow) -> list[str]:
    things = [
        f"{thing.name}: {', '.join(thing.phrases[:3])}" for thing in row.objects if thing.phrases
    ]
    asked = [f"{q.kind}: {q.question} {q.answer}" for q in row.questions if q.split == "train"]
    return [f"[{row.scene_seed} {row.camera}] {row.captions[0]}", *asked, *things]


def _labelled(row: SceneRow) -> Image.Image:
    """Returns the last frame beside itself with boxes and masks drawn in."""
    frame = row.frames[-1].transpose(1, 2, 0)
    plain = _scaled(frame, 0.5)
    tinted = frame.astype(np.float32)
    for number, thing in enumerate(row.objects):
        ink = np.array(Image.new("RGB", (1, 1), _INKS[number % len(_INKS)]).getpixel((0, 0)))
        edge = thing.mask & ~_eroded(thing.mask)
        tinted[edge] = 0.4 * tinted[edge] + 0.6 * ink
    drawn = _scaled(tinted.astype(np.uint8), 0.5)
    draw = ImageDraw.Draw(drawn)
    for number, thing in enumerate(row.objects):
        _draw_box(draw, drawn.size, thing, _INKS[number % len(_INKS)])
    both = Image.new("RGB", (2 * plain.width + 2, plain.height), "white")
    both.paste(plain, (0, 0))
    both.paste(drawn, (plain.width + 2, 0))
    return both


def _draw_box(
    draw: ImageDraw.ImageDraw, size: tuple[int, int], thing: SceneObject, ink: str
) -> None:
    y0, x0, y1, x1 = thing.box
    corners = (x0 * size[0], y0 * size[1], x1 * size[0] - 1, y1 * size[1] - 1)
    draw.rectangle(corners, outline=ink if thing.is_clear else "#808080")
    label = thing.name if thing.is_clear else f"({thing.name})"
    draw.text(
        corners[:2], label, ink, ImageFont.load_default(9), stroke_width=1, stroke_fill="black"
    )


def _eroded(mask: np.ndarray) -> np.ndarray:
    padded = np.pad(mask, 1)
    return mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]


def _scaled(picture: ImageArray, share: float = 1.0) -> Image.Image:
    """Returns the picture with its longer side at tile size; small ones keep their pixels as squares."""
    height, width, _ = picture.shape
    factor = 2 * share * _PICTURE_PX / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    method = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.BICUBIC
    return Image.fromarray(picture).resize(size, method)
