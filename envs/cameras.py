"""The two cameras: where they stand, and the pictures they take."""

from __future__ import annotations

import atexit
import weakref
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


class Pictures:
    """Takes pictures of one simulation. The renderer is made on first use and freed by `close` or at exit."""

    def __init__(self, model: mujoco.MjModel, image_size: int) -> None:
        self._model = model
        self._image_size = image_size
        self._renderer: _Renderer | None = None
        self._finalizer: weakref.finalize | None = None

    def color(self, data: mujoco.MjData, camera: str) -> NDArray[np.uint8]:
        """Returns (image_size, image_size, 3) uint8 RGB, row 0 at the top."""
        renderer = self._ready()
        renderer.update_scene(data, camera=camera)
        return renderer.render()

    def geom_ids(self, data: mujoco.MjData, camera: str) -> NDArray[np.int32]:
        """Returns (image_size, image_size) int32 with the geom seen at each pixel, -1 where there is none."""
        renderer = self._ready()
        renderer.enable_segmentation_rendering()
        try:
            renderer.update_scene(data, camera=camera)
            pixels = renderer.render()
        finally:
            renderer.disable_segmentation_rendering()
        is_geom = pixels[..., 1] == int(mujoco.mjtObj.mjOBJ_GEOM)
        return np.where(is_geom, pixels[..., 0], -1).astype(np.int32)

    def close(self) -> None:
        """Frees the renderer; a later picture makes a new one."""
        if self._finalizer is not None:
            self._finalizer()
            atexit.unregister(self._finalizer)
        self._renderer, self._finalizer = None, None

    def _ready(self) -> _Renderer:
        if self._renderer is None:
            renderer = _make_renderer(self._model, self._image_size)
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


def _make_renderer(model: mujoco.MjModel, image_size: int) -> _Renderer:
    buffer = model.vis.global_  # read when a renderer is made: each gets the size it needs
    buffer.offwidth, buffer.offheight = image_size, image_size
    try:
        return _Renderer(model, height=image_size, width=image_size)
    except Exception as error:
        raise ConfigError(
            f"no off-screen renderer ({type(error).__name__}: {error}); on Debian or Ubuntu run "
            "`apt-get install -y libegl1 libgl1-mesa-dri` and set MUJOCO_GL=egl"
        ) from error


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
