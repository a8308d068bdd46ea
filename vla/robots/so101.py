"""The SO-101 arm as numbers: bodies, hinges, motors and a MuJoCo model of them.

Body frames, masses, inertias, hinge ranges and motor constants are those of `Simulation/SO101/so101_new_calib.xml` in
TheRobotStudio/SO-ARM100 (Apache-2.0), generated from the CAD model; zero is the middle of each range, as in LeRobot's
calibration. The shapes are our own boxes and capsules around the same parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

ARM_JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll")
GRIPPER_JOINT = "gripper"
MOTORS = (*ARM_JOINTS, GRIPPER_JOINT)  # in the order of their ids on the bus, from 1
TOOL_SITE = "tool"

# rad. Folded onto its base: where the arm may be left without torque.
PARKED_JOINTS = (0.0, -1.72, 1.64, 1.10, 0.0)
# rad. The tool 0.11 m above the table, in front of the base and nearly pointing down.
READY_JOINTS = (0.0, -0.6, 0.3, 1.6, 0.0)

# m between the jaws per opening (1 open, 0 closed): the chord of the moving jaw, 0.075 m long, over its range.
OPEN_GRIP_WIDTH_M = 0.075 * 2 * float(np.sin(0.5 * 1.9198))

JOINT_DAMPING = 0.60  # N m s/rad   } class sts3215 of the source
JOINT_FRICTION = 0.052  # N m       }
JOINT_ARMATURE = 0.028  # kg m^2    }
MAX_TORQUE = 3.35  # N m            } forcerange of the source
SERVO_STIFFNESS = 17.8  # N m/rad   } kp of the source, at the firmware's own P_Coefficient of 32

_WHITE, _GREY, _DARK = (0.95, 0.95, 0.93, 1), (0.45, 0.45, 0.47, 1), (0.16, 0.16, 0.17, 1)
_ARM, _WORLD = 2, 1  # collision bits: parts of the arm meet the world, not one another


@dataclass(frozen=True, kw_only=True)
class Link:
    """One body of the chain, hinged about its own z axis.

    Attributes:
        name, joint: of the body and of the hinge that carries it.
        position, quaternion: in the frame of the body before it; m and (w, x, y, z).
        range: rad.
        mass: kg.
        centre: of mass, m.
        inertia: about the centre, xx yy zz xy xz yz, kg m^2.
        shapes: (kind, place, size, colour): a capsule from the first three numbers to the next with a radius, or a box
            of half widths around a point.
    """

    name: str
    joint: str
    position: tuple[float, float, float]
    quaternion: tuple[float, float, float, float]
    range: tuple[float, float]
    mass: float
    centre: tuple[float, float, float]
    inertia: tuple[float, float, float, float, float, float]
    shapes: tuple[tuple[str, tuple[float, ...], tuple[float, ...], tuple[float, ...]], ...]


# fmt: off
LINKS = (
    Link(name="shoulder", joint="shoulder_pan", position=(0.0388353, 0.0, 0.0624), quaternion=(0.0, 0.0, -1.0, 0.0),
         range=(-1.91986, 1.91986), mass=0.100006, centre=(-0.0307604, -1.66727e-05, -0.0252713),
         inertia=(8.3759e-05, 8.10403e-05, 2.39783e-05, 7.55525e-08, -1.16342e-06, 1.54663e-07),
         shapes=(("box", (-0.0304, 0.0, -0.03), (0.024, 0.02, 0.03), _DARK),)),
    Link(name="upper_arm", joint="shoulder_lift", position=(-0.0303992, -0.0182778, -0.0542),
         quaternion=(0.5, -0.5, -0.5, -0.5), range=(-1.74533, 1.74533), mass=0.103,
         centre=(-0.0898471, -0.00838224, 0.0184089),
         inertia=(4.08002e-05, 0.000147318, 0.000142487, -1.97819e-05, -4.03016e-08, 8.97326e-09),
         shapes=(("capsule", (-0.01, -0.002, 0.0184, -0.11, -0.024, 0.0184), (0.018,), _WHITE),
                 ("box", (-0.11257, -0.0155, 0.0187), (0.02, 0.024, 0.018), _DARK))),
    Link(name="lower_arm", joint="elbow_flex", position=(-0.11257, -0.028, 0.0),
         quaternion=(0.707107, 0.0, 0.0, 0.707107), range=(-1.69, 1.69), mass=0.104,
         centre=(-0.0980701, 0.00324376, 0.0182831),
         inertia=(2.87438e-05, 0.000159844, 0.00014529, 7.41152e-06, 1.26409e-06, -4.90188e-08),
         shapes=(("capsule", (-0.01, 0.0, 0.0182, -0.125, 0.005, 0.0182), (0.016,), _WHITE),
                 ("box", (-0.1224, 0.0052, 0.0187), (0.022, 0.016, 0.018), _DARK))),
    Link(name="wrist", joint="wrist_flex", position=(-0.1349, 0.0052, 0.0), quaternion=(0.707107, 0.0, 0.0, -0.707107),
         range=(-1.65806, 1.65806), mass=0.079, centre=(-0.000103312, -0.0386143, 0.0281156),
         inertia=(3.68263e-05, 2.5391e-05, 2.1e-05, 1.7893e-08, -5.28128e-08, 3.6412e-06),
         shapes=(("capsule", (0.0, -0.005, 0.0181, 0.0, -0.05, 0.0181), (0.017,), _WHITE),
                 ("box", (0.0, -0.0424, 0.0306), (0.013, 0.02, 0.018), _DARK))),
    Link(name="gripper", joint="wrist_roll", position=(0.0, -0.0611, 0.0181),
         quaternion=(0.0172091, -0.0172091, 0.706897, 0.706897), range=(-2.74385, 2.84121), mass=0.087,
         centre=(0.000213627, 0.000245138, -0.025187),
         inertia=(2.75087e-05, 4.33657e-05, 3.45059e-05, -3.35241e-07, -5.7352e-06, -5.17847e-08),
         shapes=(("box", (0.0077, 0.0001, -0.0234), (0.02, 0.018, 0.018), _DARK),
                 ("capsule", (-0.012, 0.0, -0.03, -0.012, 0.0, -0.092), (0.008,), _WHITE))),
    Link(name="moving_jaw", joint="gripper", position=(0.0202, 0.0188, -0.0234),
         quaternion=(0.707107, 0.707107, 0.0, 0.0),
         range=(-0.174533, 1.74533), mass=0.012, centre=(-0.00157495, -0.0300244, 0.0192755),
         inertia=(6.61427e-06, 1.89032e-06, 5.28738e-06, -3.19807e-07, -5.90717e-09, -1.09945e-07),
         shapes=(("capsule", (0.0, -0.005, 0.0189, -0.012, -0.068, 0.0189), (0.007,), _GREY),)),
)
# fmt: on

# In the frame of the gripper body; `gripperframe` of the source, turned so that z points along the fingers and, with
# the tool pointing down in front of the base, x away from it.
_TOOL_POSITION = (-0.0079, -0.000218121, -0.0981274)


def build_spec(*, timestep_s: float = 0.002) -> Any:
    """Returns a mujoco.MjSpec of the arm on a table, without actuators, with cameras `front` and `wrist`."""
    spec = mujoco.MjSpec()
    spec.modelname = "so101"
    spec.compiler.degree = False
    spec.option.timestep = timestep_s
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.visual.headlight.ambient = [0.4, 0.4, 0.4]
    _add_table(spec)
    body = spec.worldbody.add_body(name="base")
    _add_shape(body, ("box", (-0.01, 0.0, 0.03), (0.045, 0.035, 0.03), _WHITE))
    for link in LINKS:
        body = body.add_body(name=link.name, pos=link.position, quat=link.quaternion)
        body.add_joint(
            name=link.joint,
            type=mujoco.mjtJoint.mjJNT_HINGE,
            axis=(0, 0, 1),
            limited=True,
            range=link.range,
            damping=JOINT_DAMPING,
            frictionloss=JOINT_FRICTION,
            armature=JOINT_ARMATURE,
        )
        body.mass, body.ipos, body.fullinertia = link.mass, link.centre, link.inertia
        body.explicitinertial = True
        for shape in link.shapes:
            _add_shape(body, shape)
        if link.name == "gripper":
            _add_tool(body)
    return spec


def build_model(*, timestep_s: float = 0.002) -> Any:
    """Returns the compiled mujoco.MjModel of `build_spec`."""
    return build_spec(timestep_s=timestep_s).compile()


def _add_table(spec: Any) -> None:
    world = spec.worldbody
    texture = spec.add_texture(
        name="table",
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
        rgb1=(0.62, 0.53, 0.42),
        rgb2=(0.58, 0.49, 0.38),
        width=256,
        height=256,
    )
    material = spec.add_material(name="table", texrepeat=(8, 8))
    material.textures[int(mujoco.mjtTextureRole.mjTEXROLE_RGB)] = texture.name
    world.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=(1, 1, 0.1),
        material="table",
        contype=_WORLD,
        conaffinity=_ARM | _WORLD,
    )
    world.add_light(pos=(0.3, -0.4, 1.2), dir=(-0.1, 0.3, -1))
    world.add_camera(name="front", pos=(0.75, 0.0, 0.45), xyaxes=(0, 1, 0, -0.62, 0, 0.78), fovy=48)


def _add_tool(body: Any) -> None:
    # columns of the rotation: x, y, z of the tool in the gripper's frame
    body.add_site(
        name=TOOL_SITE, pos=_TOOL_POSITION, quat=(0.0, 1.0, 0.0, 0.0), size=[0.005, 0.005, 0.005]
    )
    body.add_camera(name="wrist", pos=(0.0, -0.07, -0.01), xyaxes=(1, 0, 0, 0, 0.9, 0.43), fovy=70)


def _add_shape(body: Any, shape: tuple[Any, ...]) -> None:
    kind, place, size, colour = shape
    common = {"rgba": colour, "contype": _ARM, "conaffinity": 0, "mass": 0.0}
    if kind == "capsule":
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_CAPSULE, fromto=place, size=(*size, 0, 0), **common
        )
    else:
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, pos=place, size=size, **common)
