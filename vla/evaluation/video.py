"""Episodes side by side in one mp4, each with its instruction and how it ended."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vla.data.atomic import replacing
from vla.evaluation.episode import Episode
from vla.types import ImageArray

TILE_PX = 192
CAPTION_PX = 44
MARGIN_PX = 4
LINGER_S = 1.0  # how long the last pictures stay
RUNNING, SUCCESS, FAILURE = (40, 40, 44), (46, 160, 67), (200, 60, 50)


class FrameRecorder:
    """Keeps one picture per step: what the environment renders for people, or else its first camera."""

    def __init__(self, env: Any) -> None:
        self._env = env
        self._frames: list[ImageArray] = []

    def __call__(self, raw: Mapping[str, Any]) -> None:
        """Adds the picture that belongs to the observation `raw`."""
        if getattr(self._env, "render_mode", None) == "rgb_array":
            picture = np.asarray(self._env.render())
        else:
            picture = next(iter(raw["images"].values()))
        self._frames.append(_fitted(picture))

    def save(self, path: Path) -> None:
        """Writes the frames (steps, TILE_PX, TILE_PX, 3) uint8 to `path`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.stack(self._frames) if self._frames else _fitted_nothing())


def write_grid(
    path: Path, frames: Mapping[int, Path], episodes: Sequence[Episode], fps: float
) -> int:
    """Writes the recorded episodes as one grid; returns how many it shows.

    An episode that is over keeps its last picture, and its frame turns green or red.

    Args:
        path: the mp4 to write: H.264, yuv420p, with its index in front so that browsers start at once.
        frames: file of recorded frames by seed.
        episodes: outcomes; those without recorded frames are left out.
        fps: steps shown per second.
    """
    shown = [episode for episode in episodes if episode.seed in frames]
    if not shown:
        return 0
    clips = [np.load(frames[episode.seed], mmap_mode="r") for episode in shown]
    captions = [_caption(episode) for episode in shown]
    length = max(len(clip) for clip in clips) + round(LINGER_S * fps)
    with replacing(path) as temporary:
        _encode(temporary, (_page(clips, captions, shown, step) for step in range(length)), fps)
    return len(shown)


def _page(
    clips: list[Any], captions: list[ImageArray], episodes: list[Episode], step: int
) -> ImageArray:
    columns = math.ceil(math.sqrt(len(clips)))
    rows = math.ceil(len(clips) / columns)
    height, width = TILE_PX + CAPTION_PX + 2 * MARGIN_PX, TILE_PX + 2 * MARGIN_PX
    page = np.full((rows * height, columns * width, 3), RUNNING, dtype=np.uint8)
    for index, (clip, caption, episode) in enumerate(zip(clips, captions, episodes, strict=True)):
        top, left = index // columns * height, index % columns * width
        is_over = step >= len(clip) - 1
        if is_over:
            color = SUCCESS if episode.is_success else FAILURE
            page[top : top + height, left : left + width] = color
        top, left = top + MARGIN_PX, left + MARGIN_PX
        page[top : top + TILE_PX, left : left + TILE_PX] = clip[min(step, len(clip) - 1)]
        page[top + TILE_PX : top + TILE_PX + CAPTION_PX, left : left + TILE_PX] = caption[
            int(is_over)
        ]
    return page


def _caption(episode: Episode) -> ImageArray:
    """Returns (2, CAPTION_PX, TILE_PX, 3): the caption while the episode runs and after it."""
    outcome = "success" if episode.is_success else episode.failure.replace("_", " ")
    if episode.handled and episode.failure == "wrong_object":
        outcome = f"{outcome}: {episode.handled}"
    color = SUCCESS if episode.is_success else FAILURE
    return np.stack([_text(episode, "", RUNNING), _text(episode, outcome, color)])


def _text(episode: Episode, outcome: str, color: tuple[int, int, int]) -> ImageArray:
    picture = Image.new("RGB", (TILE_PX, CAPTION_PX), color)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=12)
    lines = _wrapped(draw, episode.instruction, font, TILE_PX - 8)[:2]
    footer = f"seed {episode.seed}" + (f", {outcome}" if outcome else "")
    for row, line in enumerate([*lines, *[""] * (2 - len(lines)), footer]):
        draw.text((4, 1 + 14 * row), line, font=font, fill=(255, 255, 255))
    return np.asarray(picture)


def _wrapped(draw: ImageDraw.ImageDraw, text: str, font: Any, width: int) -> list[str]:
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and draw.textlength(longer, font=font) > width:
            lines.append(line)
            longer = word
        line = longer
    return [*lines, line]


def _fitted(picture: ImageArray) -> ImageArray:
    """Returns the middle square of a picture (height, width, 3) at TILE_PX."""
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(np.ascontiguousarray(picture[top : top + side, left : left + side]))
    return np.asarray(square.resize((TILE_PX, TILE_PX), Image.Resampling.LANCZOS))


def _fitted_nothing() -> ImageArray:
    return np.zeros((1, TILE_PX, TILE_PX, 3), dtype=np.uint8)


def _encode(path: Path, pages: Any, fps: float) -> None:
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream: Any = None
        for page in pages:
            if stream is None:
                rate = Fraction(fps).limit_denominator(1000)
                options = {"crf": "23", "preset": "veryfast"}
                stream = container.add_stream("libx264", rate=rate, options=options)
                stream.height, stream.width = page.shape[:2]
                stream.pix_fmt = "yuv420p"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(page, format="rgb24")))
        container.mux(stream.encode(None))
