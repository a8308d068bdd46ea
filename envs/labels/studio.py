"""One simulation with everything that labelled pictures of it need."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from envs.cameras import FreeCamera, Mark, Pictures, Viewpoint
from envs.kinematics import ArmKinematics
from envs.labels.arrange import arrange
from envs.labels.config import SceneLabelsConfig, parse_size
from envs.labels.seen import Onlooker, View
from envs.labels.views import draw_camera
from envs.randomize import STRENGTHS, Looks
from envs.scene import Scene
from envs.scene_xml import TABLE_MATERIALS

Size = tuple[int, int]
Camera = str | FreeCamera
ATTEMPTS = 12  # at a picture that shows what it should


def retried[T](draw: Callable[[], T], is_good: Callable[[T], bool]) -> T:
    """Returns what `draw` gives, again and again until it is good, the last of ATTEMPTS as it is."""
    drawn = draw()
    for _ in range(ATTEMPTS - 1):
        if is_good(drawn):
            break
        drawn = draw()
    return drawn


class Studio:
    """The table, its looks, the arm, and a renderer for each size of picture."""

    def __init__(self, cfg: SceneLabelsConfig, randomization: str) -> None:
        self.cfg, self.randomization = cfg, randomization
        self.scene = Scene()
        self.kinematics = ArmKinematics()
        self._looks = Looks(self.scene)
        self._onlooker = Onlooker(self.scene)
        self._pictures = {
            parse_size(size): Pictures(self.scene.model, *parse_size(size)) for size in cfg.sizes
        }

    def draw_size(self, rng: np.random.Generator) -> Size:
        """Returns (height, width) of the next picture."""
        return parse_size(self.cfg.sizes[int(rng.integers(len(self.cfg.sizes)))])

    def draw_looks(self, rng: np.random.Generator) -> None:
        """Draws light, table and fixed cameras afresh."""
        self._looks.draw(STRENGTHS[self.randomization], rng)

    def plain_table(self) -> None:
        """Takes the pattern off the table: its squares would tell a picture's true proportions."""
        model = self.scene.model
        model.geom_matid[model.geom("table").id] = model.material(TABLE_MATERIALS[0]).id

    def draw_view(self, size: Size, rng: np.random.Generator) -> tuple[View, Camera]:
        """Returns a view of a random table, and the camera."""
        self.draw_looks(rng)
        supports = arrange(self.scene, self.kinematics, self.cfg.max_objects, rng)
        name, camera = draw_camera(
            self.scene, self.cfg.cameras, self.randomization, size[1] / size[0], rng
        )
        return self.look(size, name, camera, supports), camera

    def look(
        self,
        size: Size,
        name: str,
        camera: Camera,
        supports: dict[int, str],
        shapes: dict[int, str] | None = None,
    ) -> View:
        """Returns what a picture of `size` shows of the scene as it stands; see `Onlooker.look`."""
        ids = self._pictures[size].geom_ids(self.scene.data, camera)
        viewpoint = self.viewpoint(size, camera)
        return self._onlooker.look(ids, viewpoint, name, supports, shapes or {})

    def viewpoint(self, size: Size, camera: Camera) -> Viewpoint:
        """Returns where a picture of `camera` is taken from."""
        return self._pictures[size].viewpoint(self.scene.data, camera)

    def photograph(
        self, size: Size, camera: Camera, marks: tuple[Mark, ...] = ()
    ) -> NDArray[np.uint8]:
        """Returns (H, W, 3) uint8."""
        return self._pictures[size].color(self.scene.data, camera, marks)

    def close(self) -> None:
        """Frees the renderers."""
        for pictures in self._pictures.values():
            pictures.close()
