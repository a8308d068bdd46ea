"""Makes docs/images/tabletop.webp: the scripted experts at work, one tile per task.

MUJOCO_GL=egl python scripts/make_images.py
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import mujoco
import numpy as np
from PIL import Image, ImageDraw, ImageFont

import envs
from envs.config import EnvConfig
from envs.experts import make_expert
from vla.types import ImageArray

TILES = {  # task to the seed of its scene
    "reach": 3,
    "pick_cube": 5,
    "place_in_bowl": 7,
    "push": 11,
    "stack": 13,
    "open_drawer": 17,
}
COLUMNS = 3
TILE_PX, CAPTION_PX = 240, 42
LINE_CHARACTERS = 34
FPS, LINGER_STEPS = 10, 12
PAPER, INK = (246, 245, 241), (27, 30, 35)


def main() -> None:
    clips = {task: _film(task, seed) for task, seed in TILES.items()}
    length = max(len(frames) for frames, _ in clips.values()) + LINGER_STEPS
    pages = [_page(list(clips.values()), step) for step in range(length)]
    path = Path(__file__).resolve().parents[1] / "docs" / "images" / "tabletop.webp"
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = pages
    first.save(
        path, save_all=True, append_images=rest, duration=1000 // FPS, loop=0, quality=62, method=6
    )
    print(f"{path}: {length} frames, {path.stat().st_size / 1024:.0f} KiB")


def _film(task: str, seed: int) -> tuple[list[ImageArray], str]:
    """Returns pictures of one solved episode from the side, and its instruction."""
    env = envs.make(EnvConfig(task=task, cameras=[]))
    _, info = env.reset(seed=seed)
    expert = make_expert(env)
    expert.reset(np.random.default_rng(seed))
    photographer = _Photographer(env.scene.model)
    frames, is_over = [photographer.picture(env.scene.data)], False
    while not is_over:
        _, _, terminated, truncated, info = env.step(expert.act())
        frames.append(photographer.picture(env.scene.data))
        is_over = terminated or truncated
    photographer.close()
    env.close()
    if not info["is_success"]:
        raise SystemExit(f"the expert fails {task} with seed {seed}; choose another in TILES")
    return frames, str(info["instruction"])


class _Photographer:
    """Takes pictures for people: from the side, smooth edges and shadows, which no policy gets to see."""

    def __init__(self, model: mujoco.MjModel) -> None:
        quality = model.vis.quality
        quality.offsamples, quality.shadowsize = 8, 4096
        quality.numslices, quality.numstacks, quality.numquads = 32, 16, 4
        model.vis.global_.offwidth = model.vis.global_.offheight = 2 * TILE_PX
        model.light_castshadow[:] = 1
        self._camera = mujoco.MjvCamera()
        self._camera.lookat[:] = (0.46, 0.0, 0.13)
        self._camera.distance, self._camera.azimuth, self._camera.elevation = 1.15, 136.0, -26.0
        self._renderer = mujoco.Renderer(model, height=2 * TILE_PX, width=2 * TILE_PX)

    def picture(self, data: mujoco.MjData) -> ImageArray:
        self._renderer.update_scene(data, self._camera)
        image = Image.fromarray(self._renderer.render())
        return np.asarray(image.resize((TILE_PX, TILE_PX), Image.Resampling.LANCZOS))

    def close(self) -> None:
        self._renderer.close()


def _page(clips: list[tuple[list[ImageArray], str]], step: int) -> Image.Image:
    rows = -(-len(clips) // COLUMNS)
    page = Image.new("RGB", (COLUMNS * TILE_PX, rows * (TILE_PX + CAPTION_PX)), PAPER)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=13)
    for index, (frames, instruction) in enumerate(clips):
        left, top = index % COLUMNS * TILE_PX, index // COLUMNS * (TILE_PX + CAPTION_PX)
        page.paste(Image.fromarray(frames[min(step, len(frames) - 1)]), (left, top))
        for row, line in enumerate(textwrap.wrap(instruction, LINE_CHARACTERS)):
            width = draw.textlength(line, font=font)
            draw.text((left + (TILE_PX - width) / 2, top + TILE_PX + 3 + 16 * row), line, INK, font)
    return page


if __name__ == "__main__":
    main()
