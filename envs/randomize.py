"""How much an episode's looks and start pose vary, in three named strengths."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from envs.arms import HOME_ROTATION
from envs.cameras import PLACEMENTS
from envs.rotations import Matrix, Vector, from_rotation_vector, from_rpy
from envs.scene import Scene
from envs.scene_xml import TABLE_MATERIALS

START_POSITION_M = np.array([0.46, 0.0, 0.20])


@dataclass(frozen=True, kw_only=True)
class Strength:
    """Half ranges of uniform draws around the nominal scene; everything zero is the nominal scene itself.

    Attributes:
        light_turn_rad: direction of the key light.
        light_gain: share by which key light and ambient light vary.
        light_tint: share by which each colour channel of the key light varies.
        camera_shift_m: front camera position, per axis; the wrist camera takes a fifth of it.
        camera_turn_rad: camera direction, per axis.
        table_gain: share by which the table's brightness varies; above 0 its pattern varies too.
        table_tint: share by which each colour channel of the table varies; small, or it takes an object's colour.
        start_shift_m: tool start position, per axis.
        start_yaw_rad: tool start yaw.
        max_distractors: largest number of unnamed objects added to a task's own.
    """

    light_turn_rad: float = 0.0
    light_gain: float = 0.0
    light_tint: float = 0.0
    camera_shift_m: float = 0.0
    camera_turn_rad: float = 0.0
    table_gain: float = 0.0
    table_tint: float = 0.0
    start_shift_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
    start_yaw_rad: float = 0.0
    max_distractors: int = 0


STRENGTHS: dict[str, Strength] = {
    "none": Strength(),
    "train": Strength(
        light_turn_rad=0.4, light_gain=0.20, light_tint=0.06, camera_shift_m=0.010, camera_turn_rad=0.0175,
        table_gain=0.20, table_tint=0.06, start_shift_m=(0.06, 0.10, 0.05), start_yaw_rad=0.25,
    ),
    "hard": Strength(
        light_turn_rad=0.8, light_gain=0.40, light_tint=0.15, camera_shift_m=0.030, camera_turn_rad=0.044,
        table_gain=0.40, table_tint=0.15, start_shift_m=(0.08, 0.14, 0.06), start_yaw_rad=0.5, max_distractors=2,
    ),
}  # fmt: skip


def draw_start_pose(strength: Strength, rng: np.random.Generator) -> tuple[Vector, Matrix]:
    """Returns tool position (3,) m and base_from_tool (3, 3) to start an episode from."""
    shift = np.asarray(strength.start_shift_m)
    position = START_POSITION_M + rng.uniform(-shift, shift)
    yaw = rng.uniform(-1.0, 1.0) * strength.start_yaw_rad
    return position, from_rpy(0.0, 0.0, yaw) @ HOME_ROTATION


class Looks:
    """Draws light, cameras and table of one scene afresh; remembers the nominal values, so draws never add up."""

    def __init__(self, scene: Scene) -> None:
        model = scene.model
        self._model = model
        self._key = model.light("key").id
        self._table = model.geom("table").id
        self._materials = [model.material(name).id for name in TABLE_MATERIALS]
        self._light_dir = model.light_dir[self._key].copy()
        self._light_diffuse = model.light_diffuse[self._key].copy()
        self._ambient = np.array(model.vis.headlight.ambient)
        self._table_rgba = model.mat_rgba[self._materials].copy()
        self._cameras = {name: model.camera(name).id for name in PLACEMENTS}

    def draw(self, strength: Strength, rng: np.random.Generator) -> None:
        """Sets every varying field of the model from `rng`; the number of draws does not depend on the strength."""
        self._draw_light(strength, rng)
        for name, camera in self._cameras.items():
            self._draw_camera(name, camera, strength, rng)
        self._draw_table(strength, rng)

    def _draw_light(self, strength: Strength, rng: np.random.Generator) -> None:
        turn = from_rotation_vector(strength.light_turn_rad * rng.uniform(-1.0, 1.0, 3))
        gain = 1.0 + strength.light_gain * rng.uniform(-1.0, 1.0, 2)
        tint = 1.0 + strength.light_tint * rng.uniform(-1.0, 1.0, 3)
        self._model.light_dir[self._key] = turn @ self._light_dir
        self._model.light_diffuse[self._key] = self._light_diffuse * gain[0] * tint
        self._model.vis.headlight.ambient[:] = self._ambient * gain[1]

    def _draw_camera(
        self, name: str, camera: int, strength: Strength, rng: np.random.Generator
    ) -> None:
        share = 1.0 if name == "front" else 0.2  # a wrist camera is bolted on
        shift = share * strength.camera_shift_m * rng.uniform(-1.0, 1.0, 3)
        turn = from_rotation_vector(strength.camera_turn_rad * rng.uniform(-1.0, 1.0, 3))
        placement = PLACEMENTS[name]
        quat = np.empty(4)
        mujoco.mju_mat2Quat(quat, (turn @ placement.rotation()).ravel())
        self._model.cam_pos[camera] = np.asarray(placement.position_m) + shift
        self._model.cam_quat[camera] = quat

    def _draw_table(self, strength: Strength, rng: np.random.Generator) -> None:
        drawn = int(rng.integers(len(self._materials)))
        pattern = drawn if strength.table_gain > 0 else 0
        tint = (
            1.0
            + strength.table_tint * rng.uniform(-1.0, 1.0, 3)
            + strength.table_gain * rng.uniform(-1.0, 1.0)
        )
        material = self._materials[pattern]
        self._model.geom_matid[self._table] = material
        rgba = self._table_rgba[pattern].copy()
        rgba[:3] = np.clip(rgba[:3] * tint, 0.0, 1.0)
        self._model.mat_rgba[material] = rgba
