"""A picture of what a dataset shows: first frames and instructions side by side, to be looked at before training."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFont

from vla.data.atomic import replacing
from vla.data.frames_cache import PictureSource, episode_files
from vla.data.layout import IMAGE_PREFIX, picture_size, read_info
from vla.types import ImageArray

_PICTURE_PX = 128
_CAPTION_PX = 30
_GAP_PX = 6
_COLUMNS = 4


def write_contact_sheet(root: Path, path: Path, *, num_episodes: int = 24) -> None:
    """Writes a PNG with the first frame of every camera and the instruction of the first `num_episodes` episodes."""
    info = read_info(root)
    cameras = [
        key
        for key, feature in info["features"].items()
        if key.startswith(IMAGE_PREFIX) and len(feature["shape"]) == 3
    ]
    columns = ["episode_index", "tasks", "dataset_from_index", "dataset_to_index"]
    episodes = [
        row
        for file in episode_files(root)
        for row in pq.read_table(file, columns=columns).to_pylist()
    ]
    episodes = episodes[:num_episodes]
    starts = [row["dataset_from_index"] for row in episodes]
    ends = [row["dataset_to_index"] for row in episodes]
    sizes = {key: picture_size(info["features"][key]) for key in cameras}
    views = [
        PictureSource(root, info, key, (ends[-1], *sizes[key]), ends).pick(starts)
        for key in cameras
    ]
    captions = [f"{row['episode_index']}: {row['tasks'][0]}" for row in episodes]
    tiles = [_tile([view[i] for view in views], caption) for i, caption in enumerate(captions)]
    with replacing(path) as temporary:
        _grid(tiles).save(temporary, "PNG")


def _tile(pictures: Sequence[ImageArray], caption: str) -> Image.Image:
    strip = Image.fromarray(np.concatenate([_scaled(picture) for picture in pictures], axis=1))
    tile = Image.new("RGB", (strip.width, strip.height + _CAPTION_PX), "white")
    tile.paste(strip, (0, 0))
    lines = textwrap.wrap(caption, max(12, strip.width // 6))[:2]
    ImageDraw.Draw(tile).text(
        (2, strip.height + 1), "\n".join(lines), "black", ImageFont.load_default(11)
    )
    return tile


def _scaled(picture: ImageArray) -> ImageArray:
    """Returns the picture at tile size; small ones keep their pixels as squares, to show what a policy gets to see."""
    height, width, _ = picture.shape
    size = (max(1, round(_PICTURE_PX * width / height)), _PICTURE_PX)
    method = Image.Resampling.NEAREST if height < _PICTURE_PX else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(picture).resize(size, method))


def _grid(tiles: Sequence[Image.Image]) -> Image.Image:
    width, height = tiles[0].width + _GAP_PX, tiles[0].height + _GAP_PX
    columns = min(_COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * width + _GAP_PX, rows * height + _GAP_PX), "white")
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (_GAP_PX + i % columns * width, _GAP_PX + i // columns * height))
    return sheet
