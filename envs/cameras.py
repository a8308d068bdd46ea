"""The two cameras of the arm, free ones for other purposes, and the pictures they take."""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.rotations import Matrix, Vector, look_at
from vla.errors import ConfigError

CAMERAS = ("front", "wrist")


@dataclass(frozen=True, kw_only=True)
class CameraPlacement:
    """A camera in the frame of the body that carries it: world for `front`, the hand for `wrist`.

    Attributes:
        position_m: where it stands.
        target_m: the point in the middle of its picture.
        up: the direction that is up in the picture.
        field_of_view_deg: vertical (and, pictures being square, horizontal) opening.
    """

    position_m: tuple[float, float, float]
    target_m: tuple[float, float, float]
    up: tuple[float, float, float]
    field_of_view_deg: float

    def rotation(self) -> Matrix:
        return look_at(np.array(self.position_m), np.array(self.target_m), np.array(self.up))


PLACEMENTS: dict[str, CameraPlacement] = {
    # Across the table from the arm, so that the hand never hides what it reaches for; the workspace fills the picture.
    "front": CameraPlacement(
        position_m=(1.10, 0.0, 0.62),
        target_m=(0.470, 0.0, 0.070),
        up=(0.0, 0.0, 1.0),
        field_of_view_deg=33.0,
    ),
    # On the far side of the hand, looking down past the fingertips: the object stays in view until it is grasped.
    "wrist": CameraPlacement(
        position_m=(0.060, 0.0, 0.030),
        target_m=(0.0, 0.0, 0.300),
        up=(1.0, 0.0, 0.0),
        field_of_view_deg=75.0,
    ),
}


def camera_xml(name: str) -> str:
    """Returns the MJCF camera element, to stand inside the body that carries it."""
    placement = PLACEMENTS[name]
    position = " ".join(f"{value}" for value in placement.position_m)
    x_and_y = " ".join(f"{value:.6f}" for value in placement.rotation().T[:2].ravel())
    return f'<camera name="{name}" pos="{position}" xyaxes="{x_and_y}" fovy="{placement.field_of_view_deg}"/>'


@dataclass(frozen=True, kw_only=True)
class Viewpoint:
    """Where a picture was taken from.

    Attributes:
        position: (3,) m.
        rotation: (3, 3) world_from_camera; x right, y up, z backwards as in OpenGL.
        field_of_view_deg: vertical opening.
        aspect: width of the picture by its height.
    """

    position: Vector
    rotation: Matrix
    field_of_view_deg: float
    aspect: float = 1.0

    def project(self, points: NDArray[np.float64]) -> tuple[Matrix, Vector]:
        """Returns (N, 2) picture shares (u, v), (0, 0) the top left, and (N,) m depth, of `points` (N, 3).

        Shares of points that are not in front of the camera (depth not above 0) mean nothing.
        """
        in_camera = (points - self.position) @ self.rotation
        depth = -in_camera[:, 2]
        half = np.maximum(depth, 1e-4) * np.tan(0.5 * np.deg2rad(self.field_of_view_deg))
        u = 0.5 + 0.5 * in_camera[:, 0] / (half * self.aspect)
        return np.stack([u, 0.5 - 0.5 * in_camera[:, 1] / half], axis=1), depth


@dataclass(frozen=True, kw_only=True)
class FreeCamera:
    """A camera that no body carries: it circles a point; angles as in MuJoCo (azimuth 180: from +x towards the arm)."""

    target_m: tuple[float, float, float]
    distance_m: float
    azimuth_deg: float
    elevation_deg: float  # negative: from above
    field_of_view_deg: float

    def viewpoint(self, aspect: float) -> Viewpoint:
        azimuth, elevation = np.deg2rad(self.azimuth_deg), np.deg2rad(self.elevation_deg)
        forward = np.array(
            [
                np.cos(elevation) * np.cos(azimuth),
                np.cos(elevation) * np.sin(azimuth),
                np.sin(elevation),
            ]
        )
        right = np.array([np.sin(azimuth), -np.cos(azimuth), 0.0])
        return Viewpoint(
            position=np.asarray(self.target_m) - self.distance_m * forward,
            rotation=np.stack([right, np.cross(right, forward), -forward], axis=1),
            field_of_view_deg=self.field_of_view_deg,
            aspect=aspect,
        )


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A flat dot drawn into a picture, not part of the model: centre (3,) m, facing along z of `rotation`."""

    position: Vector
    rotation: Matrix
    radius_m: float
    rgb: tuple[float, float, float]


class Pictures:
    """Takes pictures of one simulation. The renderer is made on first use and freed by `close` or at exit.

    Args:
        height: rows of a picture.
        width: columns; as many as rows when None.
    """

    def __init__(self, model: mujoco.MjModel, height: int, width: int | None = None) -> None:
        self._model = model
        self._size = (height, height if width is None else width)
        self._renderer: _Renderer | None = None
        self._finalizer: weakref.finalize | None = None

    def color(
        self, data: mujoco.MjData, camera: str | FreeCamera, marks: Sequence[Mark] = ()
    ) -> NDArray[np.uint8]:
        """Returns (height, width, 3) uint8 RGB, row 0 at the top."""
        renderer = self._ready()
        self._look(renderer, data, camera)
        for mark in marks:
            _draw_mark(renderer.scene, mark)
        return renderer.render()

    def geom_ids(self, data: mujoco.MjData, camera: str | FreeCamera) -> NDArray[np.int32]:
        """Returns (height, width) int32 with the geom seen at each pixel, -1 where there is none."""
        renderer = self._ready()
        renderer.enable_segmentation_rendering()
        try:
            self._look(renderer, data, camera)
            pixels = renderer.render()
        finally:
            renderer.disable_segmentation_rendering()
        is_geom = pixels[..., 1] == int(mujoco.mjtObj.mjOBJ_GEOM)
        return np.where(is_geom, pixels[..., 0], -1).astype(np.int32)

    def viewpoint(self, data: mujoco.MjData, camera: str | FreeCamera) -> Viewpoint:
        """Returns where a picture of `camera` is taken from."""
        aspect = self._size[1] / self._size[0]
        if isinstance(camera, FreeCamera):
            return camera.viewpoint(aspect)
        number = self._model.camera(camera).id
        return Viewpoint(
            position=data.cam_xpos[number].copy(),
            rotation=data.cam_xmat[number].reshape(3, 3).copy(),
            field_of_view_deg=float(self._model.cam_fovy[number]),
            aspect=aspect,
        )

    def _look(self, renderer: _Renderer, data: mujoco.MjData, camera: str | FreeCamera) -> None:
        if isinstance(camera, str):
            renderer.update_scene(data, camera=camera)
            return
        placed = mujoco.MjvCamera()
        placed.lookat[:] = camera.target_m
        placed.distance = camera.distance_m
        placed.azimuth, placed.elevation = camera.azimuth_deg, camera.elevation_deg
        self._model.vis.global_.fovy = camera.field_of_view_deg  # of free cameras alone
        renderer.update_scene(data, camera=placed)

    def close(self) -> None:
        """Frees the renderer; a later picture makes a new one."""
        if self._finalizer is not None:
            self._finalizer()
            atexit.unregister(self._finalizer)
        self._renderer, self._finalizer = None, None

    def _ready(self) -> _Renderer:
        if self._renderer is None:
            renderer = _make_renderer(self._model, *self._size)
            # At interpreter exit MuJoCo's EGL display may go before weakref's own finalizers run, and then
            # every context left complains; a hook registered after MuJoCo's runs before it.
            self._finalizer = weakref.finalize(self, renderer.close)
            atexit.register(self._finalizer)
            self._renderer = renderer
        return self._renderer


class _Renderer(mujoco.Renderer):
    # What `close` frees: a constructor that fails leaves them unset, and collecting it would print a traceback.
    _gl_context = None
    _mjr_context = None


def _make_renderer(model: mujoco.MjModel, height: int, width: int) -> _Renderer:
    buffer = model.vis.global_  # read when a renderer is made: each gets the size it needs
    buffer.offwidth, buffer.offheight = width, height
    try:
        return _Renderer(model, height=height, width=width)
    except Exception as error:
        raise ConfigError(
            f"no off-screen renderer ({type(error).__name__}: {error}); on Debian or Ubuntu run "
            "`apt-get install -y libegl1 libgl1-mesa-dri` and set MUJOCO_GL=egl"
        ) from error


def _draw_mark(scene: mujoco.MjvScene, mark: Mark) -> None:
    geom = scene.geoms[scene.ngeom]
    size = np.array([mark.radius_m, 0.0001, 0.0])  # radius, half length
    rgba = np.array([*mark.rgb, 1.0], dtype=np.float32)
    mujoco.mjv_initGeom(
        geom,
        int(mujoco.mjtGeom.mjGEOM_CYLINDER),
        size,
        mark.position,
        mark.rotation.ravel(),
        rgba,
    )
    geom.specular = 0.0
    scene.ngeom += 1


def project(
    data: mujoco.MjData, camera_id: int, field_of_view_deg: float, point: Vector
) -> tuple[float, float] | None:
    """Returns (u, v) in picture shares, (0, 0) the top left; None when `point` (3,) m is behind the camera."""
    rotation = data.cam_xmat[camera_id].reshape(3, 3)
    right, up, backwards = rotation.T @ (point - data.cam_xpos[camera_id])
    if backwards > -1e-4:
        return None
    half = -backwards * np.tan(0.5 * np.deg2rad(field_of_view_deg))
    return float(0.5 + 0.5 * right / half), float(0.5 - 0.5 * up / half)
