"""The Gymnasium environment around the simulated table."""

from __future__ import annotations

import string
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from envs.arms import HOME_JOINTS, HOME_ROTATION, MAX_GRIP_WIDTH_M
from envs.cameras import CAMERAS, Pictures
from envs.config import EnvConfig
from envs.controller import ToolController
from envs.instructions import MAX_INSTRUCTION_LENGTH, PHRASINGS, SPLITS
from envs.kinematics import ArmKinematics
from envs.labels.grounding import Grounding, ground
from envs.randomize import STRENGTHS, Looks, draw_start_pose
from envs.rotations import to_rpy
from envs.scene import Scene
from envs.tasks import TASKS
from envs.tasks.task import Goal, Outcome, Task
from vla.errors import ConfigError, unknown_name
from vla.types import END_EFFECTOR_DELTA_7D

RENDER_SIZE = 256  # pixels, of the picture that `render` gives
RESET_OPTIONS = ("instruction", "instruction_split", "swap_instruction")
_STATE_LOW = np.array([-1.5, -1.5, -1.5, -np.pi, -np.pi, -np.pi, 0.0], dtype=np.float32)
_STATE_HIGH = np.array(
    [1.5, 1.5, 1.5, np.pi, np.pi, np.pi, MAX_GRIP_WIDTH_M + 1e-3], dtype=np.float32
)


class TabletopEnv(gymnasium.Env[dict[str, Any], NDArray[np.float32]]):
    """A seven-joint arm at a table, driven at 10 Hz by `vla.types.END_EFFECTOR_DELTA_7D`.

    Observation: {"images": {camera: (image_size, image_size, 3) uint8 RGB}, "state": (7,) float32 as in
    `vla.types.TOOL_POSE_7D` with roll, pitch, yaw taken from the straight-down orientation, "instruction": str}.
    Reward is 1 on the step that confirms success. `info` names the task, the instruction, the target, `is_success`
    and, once an episode ends without success, `failure`: "timeout", "dropped" or "wrong_object".

    An episode is determined by its seed and reset options. Scene, wording and looks draw from separate streams, so
    `swap_instruction` shows the same pictures with another object named.
    """

    metadata = {  # noqa: RUF012 - Gymnasium declares it without ClassVar
        "render_modes": ["rgb_array"],
        "render_fps": int(END_EFFECTOR_DELTA_7D.rate_hz),
    }

    def __init__(
        self, config: EnvConfig | None = None, render_mode: str | None = "rgb_array"
    ) -> None:
        self.config = config or EnvConfig()
        self.render_mode = render_mode
        self.scene = Scene()
        self._looks = Looks(self.scene)
        self._kinematics = ArmKinematics()
        self._controller = ToolController(self.scene, self._kinematics)
        self._pictures = Pictures(self.scene.model, self.config.image_size)
        self._large_pictures = Pictures(self.scene.model, RENDER_SIZE)
        self._tasks: list[Task] = [task() for task in TASKS[self.config.task]]
        self._task: Task | None = None
        self._goal: Goal | None = None
        self._instruction = ""
        self._num_steps = 0
        self._handled = ""
        self.action_space = gymnasium.spaces.Box(
            np.array(END_EFFECTOR_DELTA_7D.low, np.float32),
            np.array(END_EFFECTOR_DELTA_7D.high, np.float32),
        )
        self.observation_space = _observation_space(self.config)

    @property
    def task(self) -> Task:
        """The task of the present episode."""
        if self._task is None:
            raise ConfigError("the environment has not been reset; call reset() first")
        return self._task

    @property
    def goal(self) -> Goal:
        """What is asked for in the present episode."""
        if self._goal is None:
            raise ConfigError("the environment has not been reset; call reset() first")
        return self._goal

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts an episode.

        Args:
            seed: determines the whole episode; None draws one from the environment's own generator.
            options: "instruction_split": "train" or "held_out"; "swap_instruction": True names another object of the
                same scene (a mixture draws another task where there is nothing else to name); "instruction": these
                words in place of the drawn ones, the goal unchanged.

        Raises:
            ConfigError: an unknown option, or a swap where the task has a single goal.
        """
        super().reset(seed=seed)
        options = _checked_options(options)
        episode_seed = int(self.np_random.integers(2**63)) if seed is None else seed
        scene_rng, words_rng, looks_rng = (
            np.random.default_rng(stream)
            for stream in np.random.SeedSequence(episode_seed).spawn(3)
        )
        swaps = bool(options.get("swap_instruction", False))
        self._task = self._draw_task(scene_rng, swaps)
        self._arrange(self._task, scene_rng, looks_rng)
        self._goal = _draw_goal(self._task.goals(self.scene), words_rng, swaps)
        split = str(options.get("instruction_split", self.config.instruction_split))
        phrasing = words_rng.random()
        sentences = PHRASINGS[self._task.name].of(split)
        drawn = sentences[int(phrasing * len(sentences))].format(**self._goal.words)
        self._instruction = str(options.get("instruction", drawn))
        self._task.begin(self.scene, self._goal)
        self._num_steps, self._handled = 0, ""
        return self.observe(), self._info(Outcome.RUNNING, "")

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Carries out `action` (7,) for a tenth of a second; values outside the limits are clipped.

        Raises:
            ActionError: a value is not finite, or there are not 7 of them.
        """
        task = self.task
        self._controller.move_by(np.asarray(action))
        self._num_steps += 1
        self._note_handled()
        outcome = task.judge(self.scene)
        terminated = outcome is not Outcome.RUNNING
        truncated = not terminated and self._num_steps >= (self.config.max_steps or task.max_steps)
        failure = task.failure_at_timeout() if truncated else ""
        if outcome in (Outcome.WRONG_OBJECT, Outcome.DROPPED):
            failure = outcome.value
        reward = 1.0 if outcome is Outcome.SUCCESS else 0.0
        return self.observe(), reward, terminated, truncated, self._info(outcome, failure)

    def observe(self) -> dict[str, Any]:
        """Returns the observation of the present state."""
        roll_pitch_yaw = to_rpy(self.scene.tool_rotation @ HOME_ROTATION.T)
        state = np.concatenate(
            [self.scene.tool_position, roll_pitch_yaw, [self.scene.grip_width_m]]
        )
        return {
            "images": {
                camera: self._pictures.color(self.scene.data, camera)
                for camera in self.config.cameras
            },
            "state": state.astype(np.float32),
            "instruction": self._instruction,
        }

    def render(self) -> NDArray[np.uint8] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Returns the front picture for people (RENDER_SIZE, RENDER_SIZE, 3), or None without a render mode."""
        if self.render_mode is None:
            return None
        return self._large_pictures.color(self.scene.data, "front")

    def close(self) -> None:
        """Frees the renderer."""
        self._pictures.close()
        self._large_pictures.close()

    def grounding(self) -> Grounding:
        """Returns where the named object is, relative to the tool and in both pictures."""
        return ground(self.scene, *self.task.focus(self.scene))

    def segmentation(self, camera: str) -> tuple[NDArray[np.int32], list[str]]:
        """Returns (image_size, image_size) int32 indices into the list of names that comes with it; 0 is background."""
        if camera not in CAMERAS:
            raise ConfigError(unknown_name("camera", camera, CAMERAS))
        index = self.scene.object_index_of_geom()
        return index[self._pictures.geom_ids(self.scene.data, camera)], self.scene.object_names()

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _draw_task(self, rng: np.random.Generator, swaps: bool) -> Task:
        task = self._tasks[int(rng.integers(len(self._tasks)))]
        others = [candidate for candidate in self._tasks if candidate.has_alternatives]
        if not swaps or task.has_alternatives or not others:
            return task
        return others[int(rng.integers(len(others)))]  # a mixture swaps among those that can

    def _arrange(
        self, task: Task, scene_rng: np.random.Generator, looks_rng: np.random.Generator
    ) -> None:
        strength = STRENGTHS[self.config.randomization]
        self._looks.draw(strength, looks_rng)
        start = draw_start_pose(strength, scene_rng)
        self.scene.clear(self._kinematics.solve(HOME_JOINTS, *start, max_iterations=30))
        task.arrange(self.scene, strength.max_distractors, scene_rng)
        self.scene.settle()
        self._controller.reset()

    def _note_handled(self) -> None:
        for slot, spec in enumerate(self.scene.objects):
            if self.scene.is_held(slot):
                self._handled = spec.name

    def _info(self, outcome: Outcome, failure: str) -> dict[str, Any]:
        return {
            "task": self.task.name,
            "instruction": self._instruction,
            "target": self.goal.target_name,
            "is_success": outcome is Outcome.SUCCESS,
            "failure": failure,
            "handled": self._handled,
        }


def _draw_goal(goals: list[Goal], rng: np.random.Generator, swaps: bool) -> Goal:
    goal = goals[int(rng.integers(len(goals)))]
    other = rng.random()  # drawn either way: the wording must not depend on the swap
    if not swaps:
        return goal
    others = [candidate for candidate in goals if candidate.target != goal.target]
    if not others:
        raise ConfigError("swap_instruction needs a task with several goals; this one has only one")
    return others[int(other * len(others))]


def _checked_options(options: dict[str, Any] | None) -> dict[str, Any]:
    options = dict(options or {})
    for name in options:
        if name not in RESET_OPTIONS:
            raise ConfigError(unknown_name("reset option", name, RESET_OPTIONS))
    split = options.get("instruction_split", "train")
    if split not in SPLITS:
        raise ConfigError(unknown_name("instruction_split", split, SPLITS))
    if len(str(options.get("instruction", ""))) > MAX_INSTRUCTION_LENGTH:
        raise ConfigError(
            f"the instruction is longer than {MAX_INSTRUCTION_LENGTH} characters; shorten it"
        )
    return options


def _observation_space(config: EnvConfig) -> gymnasium.spaces.Dict:
    shape = (config.image_size, config.image_size, 3)
    return gymnasium.spaces.Dict(
        {
            "images": gymnasium.spaces.Dict(
                {camera: gymnasium.spaces.Box(0, 255, shape, np.uint8) for camera in config.cameras}
            ),
            "state": gymnasium.spaces.Box(_STATE_LOW, _STATE_HIGH),
            "instruction": gymnasium.spaces.Text(
                MAX_INSTRUCTION_LENGTH,
                charset=string.ascii_letters + string.digits + string.punctuation + " ",
            ),
        }
    )
