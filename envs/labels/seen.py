"""What a picture shows of a scene: every thing with its pixels, and whether a person would know it there."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from envs.cameras import Viewpoint
from envs.rotations import Vector
from envs.scene import Scene

MIN_PIXELS = 16  # of a thing that counts as seen; a 4 x 4 square
MIN_SHARE = 0.0025  # ... and of the whole picture
_MIN_VISIBLE = {True: 0.55, False: 0.30}  # share of its outline that must show; objects, fixtures
_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=float)
_OBJECT_RADIUS_M = 0.022
_FIXTURE_RADIUS_M = {
    "bowl": 0.075,
    "square": 0.055,
    "cabinet": 0.10,
    "drawer": 0.09,
    "gripper": 0.05,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Thing:
    """One object or fixture as a picture shows it.

    Attributes:
        name: "red cube", or "bowl", "square", "cabinet", "drawer", "gripper".
        color: word for its colour, "" for fixtures.
        shape: word for its shape; a fixture's is its name.
        position: (3,) m, its centre.
        radius_m: of its footprint.
        support: name of what it is in or on: "table", "bowl", "gripper", "drawer" or the name of an object.
        mask: (H, W) bool, its pixels.
        is_clear: whether enough of it shows for a person to name it.
    """

    name: str
    color: str
    shape: str
    position: Vector
    radius_m: float
    support: str
    mask: NDArray[np.bool_]
    num_pixels: int
    is_clear: bool

    @property
    def is_object(self) -> bool:
        return bool(self.color)

    @cached_property
    def box(self) -> tuple[float, float, float, float]:
        """(y0, x0, y1, x1), shares of the picture: the smallest box around the mask."""
        height, width = self.mask.shape
        rows = np.flatnonzero(self.mask.any(axis=1))
        columns = np.flatnonzero(self.mask.any(axis=0))
        top, bottom = int(rows[0]) / height, (int(rows[-1]) + 1) / height
        return top, int(columns[0]) / width, bottom, (int(columns[-1]) + 1) / width

    @cached_property
    def is_cut(self) -> bool:
        """Whether the edge of the picture cuts it."""
        y0, x0, y1, x1 = self.box
        return min(y0, x0) <= 0.0 or max(y1, x1) >= 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """One picture and all that can be said about it.

    Attributes:
        things: those with at least one pixel, objects first; unclear ones keep a question from being asked.
        camera: "front", "wrist", "zoom" or "above".
        viewpoint: where it was taken from.
        drawer_opening_m: None without a cabinet.
        grip_width_m: between the finger pads.
        carriers: what carries an object, also one that the picture does not show: "bowl", "gripper" or a name.
        held: what `envs.labels.relations.relate` has found so far.
    """

    things: tuple[Thing, ...]
    camera: str
    viewpoint: Viewpoint
    drawer_opening_m: float | None
    grip_width_m: float
    carriers: frozenset[str] = frozenset()
    held: dict[tuple[str, int, int], bool | None] = field(default_factory=dict, repr=False)

    @property
    def objects(self) -> tuple[Thing, ...]:
        return tuple(thing for thing in self.things if thing.is_object)

    @property
    def standing(self) -> tuple[Thing, ...]:
        """Everything that a person might call an object: all but the gripper and the drawer, which are parts."""
        return tuple(thing for thing in self.things if thing.name not in ("gripper", "drawer"))

    @property
    def clear(self) -> tuple[Thing, ...]:
        return tuple(thing for thing in self.things if thing.is_clear)

    def clear_fixture(self, name: str) -> Thing | None:
        """Returns the fixture if the picture clearly shows it."""
        return next(
            (thing for thing in self.clear if thing.name == name and not thing.is_object), None
        )


class Onlooker:
    """Tells the things in pictures of one scene; looks up once what never changes."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        drawer = scene.geoms_of_body("drawer")
        cabinet = scene.geoms_of_body("cabinet")
        self._fixture_geoms = {
            "bowl": scene.geoms_of_body("bowl"),
            "square": scene.geoms_of_body("zone"),
            "cabinet": np.setdiff1d(cabinet, drawer),
            "drawer": drawer,
            "gripper": scene.geoms_of_body("hand"),
        }

    def look(
        self,
        geom_ids: NDArray[np.int32],
        viewpoint: Viewpoint,
        camera: str,
        supports: dict[int, str],
        shapes: dict[int, str],
    ) -> View:
        """Returns the view of a picture whose pixels show `geom_ids` (H, W), -1 for none.

        Args:
            geom_ids: from `envs.cameras.Pictures.geom_ids`.
            viewpoint: where the picture was taken from.
            camera: its name.
            supports: what objects lie in or on, by slot; the table where it says nothing.
            shapes: words for the shapes of objects, by slot; the shape's own name where it says nothing.
        """
        scene = self._scene
        parts = self._parts()
        number_of_geom = np.zeros(scene.model.ngeom + 1, dtype=np.uint8)
        for number, geoms in enumerate(parts.values(), 1):
            number_of_geom[geoms] = number
        numbers = number_of_geom[geom_ids]
        counts = np.bincount(numbers.ravel(), minlength=len(parts) + 1)
        seen = [(name, n) for n, name in enumerate(parts, 1) if counts[n]]
        outlines = _outline_areas(scene, [parts[name] for name, _ in seen], viewpoint)
        smallest = max(MIN_PIXELS, MIN_SHARE * geom_ids.size)
        things = []
        for (key, number), outline in zip(seen, outlines, strict=True):
            pixels = int(counts[number])
            shown = pixels / max(1.0, outline * geom_ids.size)
            is_clear = pixels >= smallest and shown >= _MIN_VISIBLE[isinstance(key, int)]
            things.append(self._thing(key, numbers == number, pixels, is_clear, supports, shapes))
        return View(
            things=tuple(things),
            camera=camera,
            viewpoint=viewpoint,
            drawer_opening_m=scene.drawer_opening_m if "cabinet" in scene.fixtures else None,
            grip_width_m=scene.grip_width_m,
            carriers=frozenset(supports.values()),
        )

    def _parts(self) -> dict[int | str, NDArray[np.int64]]:
        """Returns the geoms of each slot and each fixture in place."""
        scene = self._scene
        parts: dict[int | str, NDArray[np.int64]] = {
            slot: np.array([scene.object_geom(slot)]) for slot in range(len(scene.objects))
        }
        shown = {"bowl": {"bowl"}, "zone": {"square"}, "cabinet": {"cabinet", "drawer"}}
        names = set().union({"gripper"}, *(shown[fixture] for fixture in scene.fixtures))
        return parts | {name: geoms for name, geoms in self._fixture_geoms.items() if name in names}

    def _thing(
        self,
        key: int | str,
        mask: NDArray[np.bool_],
        num_pixels: int,
        is_clear: bool,
        supports: dict[int, str],
        shapes: dict[int, str],
    ) -> Thing:
        scene = self._scene
        if isinstance(key, int):
            spec = scene.objects[key]
            shape = shapes.get(key, spec.shape.value)
            words = (f"{spec.color} {shape}", spec.color, shape)
            position, radius = scene.object_position(key), _OBJECT_RADIUS_M
            support = supports.get(key, "table")
        else:
            words, radius, support = (key, "", key), _FIXTURE_RADIUS_M[key], "table"
            body = {"gripper": "", "square": "zone", "drawer": "cabinet"}.get(key, key)
            position = scene.fixture_position(body) if body else scene.tool_position
        return Thing(
            name=words[0],
            color=words[1],
            shape=words[2],
            position=position,
            radius_m=radius,
            support=support,
            mask=mask,
            num_pixels=num_pixels,
            is_clear=is_clear,
        )


def _outline_areas(
    scene: Scene, parts: list[NDArray[np.int64]], viewpoint: Viewpoint
) -> list[float]:
    """Returns, as shares of the picture's area, how much each thing would cover if nothing hid or cut it."""
    if not parts:
        return []
    model, data = scene.model, scene.data
    geoms = np.concatenate(parts)
    boxes = model.geom_aabb[geoms]
    local = boxes[:, None, :3] + _CORNERS * boxes[:, None, 3:]
    rotations = data.geom_xmat[geoms].reshape(-1, 3, 3)
    corners = np.einsum("gij,gcj->gci", rotations, local) + data.geom_xpos[geoms][:, None]
    pixels, depth = viewpoint.project(corners.reshape(-1, 3))
    areas, start = [], 0
    for part in parts:
        end = start + 8 * len(part)
        is_ahead = bool((depth[start:end] > 0.02).all())
        areas.append(_hull_area(pixels[start:end]) if is_ahead else np.inf)
        start = end
    return areas


def _hull_area(points: NDArray[np.float64]) -> float:
    """Returns the area of the convex hull of (N, 2) points (Andrew's monotone chain)."""
    ordered = sorted(map(tuple, points.tolist()))
    hull: list[tuple[float, ...]] = []
    for sweep in (ordered, ordered[::-1]):
        start = len(hull)
        for point in sweep:
            while len(hull) - start >= 2 and _turn(hull[-2], hull[-1], point) <= 0:
                hull.pop()
            hull.append(point)
        hull.pop()
    pairs = zip(hull, hull[1:] + hull[:1], strict=True)
    return 0.5 * abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in pairs))


def _turn(a: tuple[float, ...], b: tuple[float, ...], c: tuple[float, ...]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
