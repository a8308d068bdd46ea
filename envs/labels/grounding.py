"""Where the object is that an instruction names: relative to the tool and in both pictures."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.cameras import CAMERAS, project
from envs.rotations import Vector
from envs.scene import Scene


@dataclass(frozen=True, kw_only=True)
class Grounding:
    """Where the named object is.

    Attributes:
        target_from_tool: (3,) float32 m, object centre minus tool centre, along the base axes.
        pixels: camera name to (u, v), shares of the picture, (0, 0) its top left corner; may lie outside [0, 1].
        visible: camera name to whether the camera sees the object's centre or one of six points near its surface.
    """

    target_from_tool: NDArray[np.float32]
    pixels: dict[str, tuple[float, float]]
    visible: dict[str, bool]


def ground(scene: Scene, position: Vector, geoms: frozenset[int]) -> Grounding:
    """Returns the grounding of an object centred at `position` (3,) m and made of the MuJoCo `geoms`."""
    probes = position + 0.8 * 0.015 * np.array(
        [[0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]]
    )
    pixels, visible = {}, {}
    for name in CAMERAS:
        camera = scene.model.camera(name).id
        opening = float(scene.model.cam_fovy[camera])
        pixels[name] = project(scene.data, camera, opening, position) or (-1.0, -1.0)
        visible[name] = any(_sees(scene, camera, opening, probe, geoms) for probe in probes)
    return Grounding(
        target_from_tool=(position - scene.tool_position).astype(np.float32),
        pixels=pixels,
        visible=visible,
    )


def _sees(scene: Scene, camera: int, opening: float, point: Vector, geoms: frozenset[int]) -> bool:
    pixel = project(scene.data, camera, opening, point)
    if pixel is None or not (0.0 <= pixel[0] < 1.0 and 0.0 <= pixel[1] < 1.0):
        return False
    origin = scene.data.cam_xpos[camera]
    hit = np.full(1, -1, dtype=np.int32)
    mujoco.mj_ray(scene.model, scene.data, origin, point - origin, None, 1, -1, hit)
    return int(hit[0]) in geoms
