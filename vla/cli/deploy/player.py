"""The policy's side of a simulated robot: the tabletop looked at through snapshots, judged, and filmed afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.config import PolicyKind
from vla.cli import build
from vla.cli.deploy.command import DeployConfig
from vla.control.channel import Message
from vla.errors import ConfigError
from vla.robots.sim import physics_state, restore, scene_fields, set_physics_state
from vla.types import END_EFFECTOR_DELTA_7D, ActionChunk, ImageArray, Observation, Policy

FILM_SIZE_PX = 320
MAX_FILM_FRAMES = 3000  # five minutes; a drive may take hours
_STEP_S = END_EFFECTOR_DELTA_7D.dt_s
_SAME_INSTANT_S = 1e-3


@dataclass
class EpisodeRecord:
    """One finished or cut-off episode; the outcome is "success", a failure class, or "" when the time ran out."""

    seed: int
    task: str
    instruction: str
    outcome: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class _Frame:
    """A physics state to film: which episode, and when on the control loop's clock."""

    seed: int
    captured_at_s: float
    physics: NDArray[np.float64]


class TabletopPlayer:
    """Plays tabletop episodes with a policy (vla.control.policy_side.Player).

    Its environment is never stepped. It is put into the state of each snapshot, and then looked at and judged as
    if it had come there by itself: once per policy step of the robot's time, as in training.
    """

    def __init__(self, cfg: DeployConfig) -> None:
        self._cfg = cfg
        is_expert = (
            cfg.policy.kind is PolicyKind.EXPERT
        )  # reads the simulation's state and needs no pictures
        policy = None if is_expert else build.build_policy(cfg.policy)
        size = getattr(policy, "image_size", cfg.env.image_size)
        cameras = list(policy.camera_names) if policy else []
        self._env = build.build_env(replace(cfg.env, image_size=size, cameras=cameras))
        self._policy = policy or build.build_policy(cfg.policy, self._env)
        check_action_space(self._policy)
        self._options = {"instruction": cfg.instruction} if cfg.instruction else {}
        self._next_seed = cfg.seed
        self._began_s = self._judged_s = 0.0
        self._outcome = ""
        self._frames: list[_Frame] = []
        self.episodes: list[EpisodeRecord] = []

    def warm_up(self) -> None:
        """Lets the policy act once: the first inference of a process allocates and compiles."""
        self._env.reset(seed=self._cfg.seed, options=self._options)
        self._policy.reset(seed=self._cfg.seed)
        self._policy.act(self._look(0.0))

    def begin_episode(self) -> Mapping[str, Any]:
        seed = self._next_seed
        self._next_seed += 1
        _, info = self._env.reset(seed=seed, options=self._options)
        self._policy.reset(seed=seed)
        scene = self._env.scene
        self._began_s = self._judged_s = float(scene.data.time)
        self._outcome = ""
        self.episodes.append(EpisodeRecord(seed, info["task"], info["instruction"]))
        return scene_fields(scene.model, scene.data)

    def observe(self, snapshot: Message) -> Observation:
        scene, captured_at_s = self._env.scene, snapshot.number("captured_at_s")
        restore(scene.model, scene.data, snapshot)
        self._judge(float(scene.data.time))
        self._keep_for_film(captured_at_s)
        return self._look(captured_at_s)

    def outcome(self) -> str:
        return self._outcome

    def act(self, observation: Observation) -> ActionChunk:
        return self._policy.act(observation)

    def film(self, path: Path) -> None:
        """Writes what was seen as an mp4 of the front camera; does nothing when there was nothing."""
        if self._frames:
            _encode(path, self._pictures(), fps=round(1 / _STEP_S))

    def close(self) -> None:
        """Frees the renderer."""
        self._env.close()

    def _look(self, captured_at_s: float) -> Observation:
        raw = self._env.observe()
        return Observation(
            images=raw["images"],
            state=raw["state"],
            instruction=raw["instruction"],
            captured_at_s=captured_at_s,
        )

    def _judge(self, robot_time_s: float) -> None:
        """Judges the present state when a policy step has passed since the last time."""
        if self._outcome or robot_time_s - self._judged_s < _STEP_S - _SAME_INSTANT_S:
            return
        task, record = self._env.task, self.episodes[-1]
        self._judged_s, record.seconds = robot_time_s, robot_time_s - self._began_s
        max_steps = self._cfg.env.max_steps or task.max_steps
        limit_s = self._cfg.episode_seconds or 2 * max_steps * _STEP_S
        self._outcome = str(task.judge(self._env.scene))
        if not self._outcome and record.seconds >= limit_s:
            self._outcome = task.failure_at_timeout()
        record.outcome = self._outcome

    def _keep_for_film(self, captured_at_s: float) -> None:
        scene = self._env.scene
        last = self._frames[-1] if self._frames else None
        seed = self.episodes[-1].seed
        due_s = _STEP_S - _SAME_INSTANT_S
        if not self._cfg.save_video or len(self._frames) == MAX_FILM_FRAMES:
            return
        if last is None or last.seed != seed or captured_at_s - last.captured_at_s >= due_s:
            self._frames.append(_Frame(seed, captured_at_s, physics_state(scene.model, scene.data)))

    def _pictures(self) -> Iterator[ImageArray]:
        """Yields the front camera's view of every kept frame, in an environment of its own."""
        config = replace(self._cfg.env, image_size=FILM_SIZE_PX, cameras=["front"])
        env, seed = build.build_env(config), None
        for frame in self._frames:
            if frame.seed != seed:
                seed = frame.seed
                env.reset(seed=seed, options=self._options)
            set_physics_state(env.scene.model, env.scene.data, frame.physics)
            yield env.observe()["images"]["front"]
        env.close()


def check_action_space(policy: Policy) -> None:
    """Raises ConfigError when the policy does not give what a robot here takes."""
    spec = policy.action_spec
    if spec.names != END_EFFECTOR_DELTA_7D.names or spec.rate_hz != END_EFFECTOR_DELTA_7D.rate_hz:
        raise ConfigError(
            f"this robot takes {', '.join(END_EFFECTOR_DELTA_7D.names)} at {END_EFFECTOR_DELTA_7D.rate_hz:g} Hz; "
            f"the policy gives {', '.join(spec.names)} at {spec.rate_hz:g} Hz: use another policy"
        )


def _encode(path: Path, pictures: Iterator[ImageArray], fps: int) -> None:
    import av

    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream: Any = container.add_stream(
            "libx264", rate=fps, options={"crf": "23", "preset": "veryfast"}
        )
        stream.height = stream.width = FILM_SIZE_PX
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
