"""The simulated table: compiled once, then rearranged in place for every episode."""

from __future__ import annotations

import math

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.arms import FINGER_TRAVEL_M, HOME_JOINTS, MAX_GRIP_WIDTH_M, NUM_JOINTS
from envs.fixtures import DRAWER_TRAVEL_M, FIXTURES
from envs.objects import COLORS, SHAPES, ObjectSpec, Shape
from envs.rotations import Matrix, Vector
from envs.scene_xml import NUM_SLOTS, scene_xml, shapes_xml

_NO_TURN = (1.0, 0.0, 0.0, 0.0)
# What a body and its one geom take from their shape: copied from a compiled prototype when a slot changes shape.
_GEOM_FIELDS = ("geom_type", "geom_size", "geom_rbound", "geom_aabb")
_BODY_FIELDS = (
    "body_mass",
    "body_inertia",
    "body_iquat",
    "body_invweight0",
    "body_subtreemass",
    "body_sameframe",
)


class Scene:
    """One arm, `NUM_SLOTS` object slots and the fixtures; empty slots and unused fixtures are parked out of sight.

    Attributes:
        objects: what lies on the table, by slot number.
        fixtures: names of the fixtures in place.
    """

    def __init__(self) -> None:
        self.model = mujoco.MjModel.from_xml_string(scene_xml())
        self.data = mujoco.MjData(self.model)
        self.objects: list[ObjectSpec] = []
        self.fixtures: set[str] = set()
        model = self.model
        self._prototypes = mujoco.MjModel.from_xml_string(shapes_xml())
        self._object_bodies = [model.body(f"object{slot}").id for slot in range(NUM_SLOTS)]
        self._object_geoms = [int(model.body_geomadr[body]) for body in self._object_bodies]
        self._object_qpos = [
            int(model.jnt_qposadr[model.body_jntadr[body]]) for body in self._object_bodies
        ]
        self._object_dofs = [int(model.body_dofadr[body]) for body in self._object_bodies]
        self._fixture_geoms = {name: _geoms_below(model, model.body(name).id) for name in FIXTURES}
        self._fixture_alpha = {
            name: model.geom_rgba[geoms, 3].copy() for name, geoms in self._fixture_geoms.items()
        }
        self._finger_qpos = [
            int(model.joint(f"finger_{side}").qposadr[0]) for side in ("left", "right")
        ]
        self._drawer_qpos = int(model.joint("drawer").qposadr[0])
        self._tool = model.site("tool").id
        self._handle = model.site("handle").id
        self.handle_geoms = frozenset({model.geom("handle").id})
        self._pads = [model.geom(f"{side}_pad").id for side in ("left", "right")]

    # ---- arranging -------------------------------------------------------------------------------------------------

    def clear(self, joints: Vector = HOME_JOINTS) -> None:
        """Empties the table, closes the drawer and puts the arm at `joints` (7,) rad with the gripper open."""
        mujoco.mj_resetData(self.model, self.data)
        self.objects, self.fixtures = [], set()
        for slot in range(NUM_SLOTS):
            self._park(slot)
        for name in FIXTURES:
            self._hide(name)
        self.data.qpos[:NUM_JOINTS] = joints
        self.data.qpos[self._finger_qpos] = FINGER_TRAVEL_M
        self.data.ctrl[:NUM_JOINTS] = joints
        self.data.ctrl[NUM_JOINTS:] = FINGER_TRAVEL_M

    def add_object(self, spec: ObjectSpec, xy: Vector, yaw: float) -> int:
        """Lays an object on the table and returns its slot number; `xy` (2,) m in the base frame."""
        slot = len(self.objects)
        body, geom, start = (
            self._object_bodies[slot],
            self._object_geoms[slot],
            self._object_qpos[slot],
        )
        self.objects.append(spec)
        self._take_shape(slot, spec.shape)
        self.model.geom_rgba[geom] = (*COLORS[spec.color], 1.0)
        self.model.body_gravcomp[body] = 0.0
        self.data.qpos[start : start + 2] = xy
        self.data.qpos[start + 2] = spec.geometry.half_height_m
        self.data.qpos[start + 3 : start + 7] = (math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2))
        return slot

    def show_fixture(self, name: str, xy: Vector, yaw: float = 0.0) -> None:
        """Puts the fixture on the table at `xy` (2,) m, turned by `yaw` about the vertical."""
        body = self.model.body(name).id
        self.fixtures.add(name)
        self.model.body_pos[body] = (xy[0], xy[1], 0.0)
        self.model.body_quat[body] = (math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2))
        self.model.geom_rgba[self._fixture_geoms[name], 3] = self._fixture_alpha[name]

    def place_object(self, slot: int, position: Vector, yaw: float) -> None:
        """Puts an object's centre at `position` (3,) m, upright, for a picture; nothing holds it there."""
        start = self._object_qpos[slot]
        self.data.qpos[start : start + 3] = position
        self.data.qpos[start + 3 : start + 7] = (math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2))

    def object_place(self, slot: int) -> Vector:
        """Returns (4,) where an object was last put: x, y, z in m and its turn about the vertical in rad."""
        start = self._object_qpos[slot]
        pose = self.data.qpos[start : start + 7]
        return np.array([*pose[:3], 2.0 * math.atan2(pose[6], pose[3])])

    def resize_object(self, slot: int, half_sizes_m: Vector) -> None:
        """Makes the box in `slot` a box of other half sizes (3,) m, for a picture; its mass stays."""
        geom = self._object_geoms[slot]
        self.model.geom_size[geom] = half_sizes_m
        self.model.geom_aabb[geom, 3:] = half_sizes_m
        self.model.geom_rbound[geom] = float(np.linalg.norm(half_sizes_m))

    def open_gripper(self, width_m: float) -> None:
        """Puts the finger pads `width_m` apart."""
        self.data.qpos[self._finger_qpos] = 0.5 * width_m

    def open_drawer(self, opening_m: float) -> None:
        """Puts the drawer `opening_m` out of its cabinet."""
        self.data.qpos[self._drawer_qpos] = opening_m

    def settle(self) -> None:
        """Computes everything that follows from the arranged positions."""
        mujoco.mj_forward(self.model, self.data)

    # ---- looking ---------------------------------------------------------------------------------------------------

    @property
    def tool_position(self) -> Vector:
        """(3,) m, the point between the finger pads."""
        return self.data.site_xpos[self._tool].copy()

    @property
    def tool_rotation(self) -> Matrix:
        """(3, 3) base_from_tool."""
        return self.data.site_xmat[self._tool].reshape(3, 3).copy()

    @property
    def joints(self) -> Vector:
        """(7,) rad."""
        return self.data.qpos[:NUM_JOINTS].copy()

    @property
    def grip_width_m(self) -> float:
        """Distance between the finger pads."""
        return float(np.clip(self.data.qpos[self._finger_qpos].sum(), 0.0, MAX_GRIP_WIDTH_M))

    def object_position(self, slot: int) -> Vector:
        """Returns (3,) m, the centre of the object."""
        return self.data.xpos[self._object_bodies[slot]].copy()

    def object_yaw(self, slot: int) -> float:
        """Returns the angle of the object's own x axis about the vertical, rad; of its y axis if x stands upright."""
        rotation = self.data.xmat[self._object_bodies[slot]].reshape(3, 3)
        lying = rotation[:, 0] if abs(rotation[2, 0]) < 0.7 else rotation[:, 1]
        return math.atan2(lying[1], lying[0])

    def object_speed(self, slot: int) -> float:
        """Returns the speed of the object's centre, m/s."""
        start = self._object_dofs[slot]
        return float(np.linalg.norm(self.data.qvel[start : start + 3]))

    def object_height(self, slot: int) -> float:
        """Returns how far the object is above its place on the table, m."""
        return (
            float(self.data.xpos[self._object_bodies[slot]][2])
            - self.objects[slot].geometry.half_height_m
        )

    def fixture_position(self, name: str) -> Vector:
        """Returns (3,) m, the middle of the fixture's foot."""
        return self.model.body_pos[self.model.body(name).id].copy()

    def fixture_yaw(self, name: str) -> float:
        quat = self.model.body_quat[self.model.body(name).id]
        return 2.0 * math.atan2(quat[3], quat[0])

    @property
    def handle_position(self) -> Vector:
        """(3,) m, the middle of the drawer's bar."""
        return self.data.site_xpos[self._handle].copy()

    @property
    def drawer_opening_m(self) -> float:
        return float(np.clip(self.data.qpos[self._drawer_qpos], 0.0, DRAWER_TRAVEL_M))

    def is_held(self, slot: int) -> bool:
        """Whether both finger pads touch the object."""
        return self._touching_pads(slot) == 2

    def is_touched(self, slot: int) -> bool:
        """Whether at least one finger pad touches the object."""
        return self._touching_pads(slot) > 0

    def object_names(self) -> list[str]:
        """Returns the names `object_index` counts: "background" first, then objects by slot, then fixtures."""
        return ["background", *(spec.name for spec in self.objects), *sorted(self.fixtures)]

    def object_index_of_geom(self) -> NDArray[np.int32]:
        """Returns (ngeom + 1,) int32: position in `object_names` of each geom; the last entry stands for no geom."""
        index = np.zeros(self.model.ngeom + 1, dtype=np.int32)
        for slot in range(len(self.objects)):
            index[self._object_geoms[slot]] = slot + 1
        for number, name in enumerate(sorted(self.fixtures)):
            index[self._fixture_geoms[name]] = 1 + len(self.objects) + number
        return index

    def geoms_of_body(self, name: str) -> NDArray[np.int64]:
        """Returns the MuJoCo geom ids of a body and of all bodies that hang on it."""
        return _geoms_below(self.model, self.model.body(name).id)

    def object_geom(self, slot: int) -> int:
        """Returns the MuJoCo geom id of the object."""
        return self._object_geoms[slot]

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _touching_pads(self, slot: int) -> int:
        pairs = self.data.contact.geom
        pairs = pairs[(pairs == self._object_geoms[slot]).any(axis=1)]
        return sum(bool((pairs == pad).any()) for pad in self._pads)

    def _take_shape(self, slot: int, shape: Shape) -> None:
        prototype, number = self._prototypes, list(SHAPES).index(shape)
        body, geom, dof = (
            self._object_bodies[slot],
            self._object_geoms[slot],
            self._object_dofs[slot],
        )
        proto_body, proto_dof = number + 1, 6 * number
        for name in _GEOM_FIELDS:
            getattr(self.model, name)[geom] = getattr(prototype, name)[number]
        for name in _BODY_FIELDS:
            getattr(self.model, name)[body] = getattr(prototype, name)[proto_body]
        self.model.dof_invweight0[dof : dof + 6] = prototype.dof_invweight0[
            proto_dof : proto_dof + 6
        ]
        self.model.bvh_aabb[self.model.body_bvhadr[body]] = prototype.bvh_aabb[
            prototype.body_bvhadr[proto_body]
        ]

    def _park(self, slot: int) -> None:
        """Lets the object float behind the arm, where nothing touches it and no camera looks."""
        start = self._object_qpos[slot]
        self.model.body_gravcomp[self._object_bodies[slot]] = 1.0
        self.model.geom_rgba[self._object_geoms[slot], 3] = 0.0
        self.data.qpos[start : start + 3] = (-3.0, 0.3 * slot, 2.0)
        self.data.qpos[start + 3 : start + 7] = _NO_TURN

    def _hide(self, name: str) -> None:
        body = self.model.body(name).id
        self.model.body_pos[body] = (-3.0, -1.0 - FIXTURES.index(name), 2.0)
        self.model.body_quat[body] = _NO_TURN
        self.model.geom_rgba[self._fixture_geoms[name], 3] = 0.0


def _geoms_below(model: mujoco.MjModel, root: int) -> NDArray[np.int64]:
    def is_below(body: int) -> bool:
        while body not in (0, root):
            body = int(model.body_parentid[body])
        return body == root

    return np.array([geom for geom in range(model.ngeom) if is_below(int(model.geom_bodyid[geom]))])
