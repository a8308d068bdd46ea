"""Small datasets written by the real writer, and a table with an expert to record from."""

import os
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from vla.data.layout import DatasetLayout, ImageStorage
from vla.data.recorder import Job, record_episodes
from vla.data.staging import Episode, stage_episode
from vla.data.write import DatasetWriter
from vla.types import TABLETOP


def smooth_pictures(num_frames: int, size: int, seed: int) -> np.ndarray:
    """Pictures that PNG and H.264 both like: gradients that move with the frame."""
    rows, columns = np.mgrid[0:size, 0:size] / size
    shades = [rows + 0.05 * np.arange(num_frames)[:, None, None], columns, (rows + columns) / 2]
    stacked = np.stack([np.broadcast_to(s, (num_frames, size, size)) for s in shades], axis=-1)
    return (255 * ((stacked + 0.11 * seed) % 1.0)).astype(np.uint8)


def make_episode(
    seed: int, num_frames: int = 5, size: int = 16, scene: int | None = None
) -> Episode:
    rng = np.random.default_rng(seed)
    front = smooth_pictures(num_frames, size, seed)
    names = ("observation.state", "action", "action.executed", "observation.environment_state")
    vectors = {name: rng.uniform(-0.03, 0.03, (num_frames, 7)).astype(np.float32) for name in names}
    vectors["action"][:, 6] = rng.integers(0, 2, num_frames)
    return Episode(
        images={"front": front, "wrist": front[:, ::-1].copy()},
        vectors=vectors,
        task=f"pick up cube {seed % 3}",
        record={"scene": seed if scene is None else scene},
    )


def layout_of(size: int = 16, storage: ImageStorage = ImageStorage.IMAGE) -> DatasetLayout:
    return DatasetLayout.for_embodiment(TABLETOP, size, storage=storage)


def write_dataset(
    root: Path,
    episodes: list[Episode] | None = None,
    storage: ImageStorage = ImageStorage.IMAGE,
    size: int = 16,
) -> Path:
    """Writes episodes (by default of 4, 5 and 6 frames) to `root` and returns it."""
    layout = layout_of(size, storage)
    episodes = episodes or [make_episode(k, 4 + k, size) for k in range(3)]
    with DatasetWriter(root, layout, {}) as writer:
        for key, episode in enumerate(episodes):
            stage_episode(root, layout, key, episode)
        writer.finalize()
    return root


class FakeTable:
    """A tool to bring to a target along x, under a second instruction to its mirror image; every fifth seed fails."""

    def __init__(self, steps_s: float = 0.0) -> None:
        self._dt_s = steps_s

    @property
    def unwrapped(self) -> "FakeTable":
        return self

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        assert seed is not None
        sign = -1.0 if (options or {}).get("swap_instruction") else 1.0
        self.seed, self.x, self.steps = seed, 0.0, 0
        self.target = sign * (0.05 + 0.01 * (seed % 7))
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        time.sleep(self._dt_s)
        self.x += float(action[0])
        self.steps += 1
        is_success = abs(self.x - self.target) < 0.01 and self.seed % 5 != 4
        info = {
            "is_success": is_success,
            "failure": "" if is_success else "timeout",
            "target": "mark",
        }
        return self._observation(), float(is_success), is_success, self.steps >= 12, info

    def grounding(self) -> SimpleNamespace:
        offset = np.array([self.target - self.x, 0, 0], np.float32)
        return SimpleNamespace(
            target_from_tool=offset,
            pixels={"front": (0.5, 0.25), "wrist": (3.0, 0.5)},
            visible={"front": True, "wrist": False},
        )

    def _observation(self) -> dict[str, Any]:
        shade = np.uint8(100 + 255 * self.x)
        picture = np.full((16, 16, 3), shade, np.uint8)
        state = np.array([self.x, 0, 0, 0, 0, 0, 0.08], np.float32)
        side = "left" if self.target < 0 else "right"
        return {
            "images": {"front": picture, "wrist": 255 - picture},
            "state": state,
            "instruction": f"go {side}",
        }


class CrashingTable(FakeTable):
    """Breaks in scene 2."""

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self.seed == 2:
            raise FloatingPointError("the simulation is unstable")
        return super().step(action)


class DyingTable(FakeTable):
    """Takes its process with it."""

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        os._exit(9)


class FakeExpert:
    """Knows where the target of its FakeTable is."""

    def __init__(self, env: Any) -> None:
        self._env = env

    def reset(self, rng: np.random.Generator) -> None:
        pass

    def act(self) -> np.ndarray:
        action = np.zeros(7, np.float32)
        action[0] = np.clip(self._env.target - self._env.x, -0.02, 0.02)
        return action


def shake(action: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (action + rng.normal(0, 0.002, 7)).astype(np.float32)


def make_shake() -> Any:
    return shake


def count_two(env: Any) -> int:
    return 2


def job_in(
    root: Path,
    *,
    steps_s: float = 0.0,
    instructions_per_scene: int = 2,
    make_env: Any = None,
    **changes: Any,
) -> Job:
    settings = {
        "make_expert": FakeExpert,
        "make_perturb": make_shake,
        "count_instructions": count_two,
    } | changes
    return Job(
        make_env=make_env or partial(FakeTable, steps_s),
        layout=layout_of(),
        root=root,
        instructions_per_scene=instructions_per_scene,
        **settings,
    )


def collect_main(root: str, num_episodes: str, num_workers: str) -> None:
    """What `vla collect` does, on the fake table; run in a process of its own so that it can be killed."""
    job = job_in(Path(root), steps_s=0.004)
    with DatasetWriter(job.root, job.layout, {}) as writer:
        record_episodes(
            job,
            int(num_episodes),
            finished=writer.finished,
            rejected=writer.rejected,
            max_attempts=1000,
            num_workers=int(num_workers),
        )
        writer.finalize()
