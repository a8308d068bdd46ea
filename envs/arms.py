"""The arm: a Panda drawn with capsules, with the real kinematics, joint limits and forces, and no mesh."""

from __future__ import annotations

import math

import numpy as np

NUM_JOINTS = 7

# Joint limits (rad), speeds (rad/s) and torques (N m): Franka Emika Panda datasheet.
JOINT_LOW = np.array([-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973])
JOINT_HIGH = np.array([2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973])
JOINT_SPEED = np.array([2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61])
JOINT_TORQUE = (87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0)

# Position servos: stiffness (N m/rad). Damping is SERVO_LAG_S of it: a ramp is followed that far behind, and what
# error is left decays with that time constant, so it has to be short against a policy step of 0.1 s.
SERVO_STIFFNESS = (4500.0, 4500.0, 3500.0, 3500.0, 2000.0, 2000.0, 2000.0)
SERVO_LAG_S = 0.035

# Arm posture over the middle of the table with the tool pointing straight down.
HOME_JOINTS = np.array([0.0, -0.0331, 0.0, -2.4767, 0.0, 2.4436, math.pi / 4])
HOME_ROTATION = np.diag([1.0, -1.0, -1.0])  # base_from_tool there: tool x forward, tool z down

FINGER_TRAVEL_M = 0.04
MAX_GRIP_WIDTH_M = 2 * FINGER_TRAVEL_M
FINGER_STIFFNESS = 400.0  # N/m: 8 N on a 4 cm cube
FINGER_DAMPING = 32.0  # N s/m
FINGER_FORCE_N = 40.0
TOOL_FROM_HAND_M = 0.1034

# Body pose in its parent, (pos, quat), in Franka's modified Denavit-Hartenberg frames; every joint turns about z.
_LINK_POSES = (
    ("0 0 0.333", "1 0 0 0"),
    ("0 0 0", "1 -1 0 0"),
    ("0 -0.316 0", "1 1 0 0"),
    ("0.0825 0 0", "1 1 0 0"),
    ("-0.0825 0.384 0", "1 -1 0 0"),
    ("0 0 0", "1 1 0 0"),
    ("0.088 0 0", "1 1 0 0"),
)
# Per link: (mass kg, from xyz, to xyz, radius m, material) of each capsule.
_LINK_CAPSULES: tuple[tuple[tuple[float, str, str, float, str], ...], ...] = (
    ((4.97, "0 0 -0.19", "0 0 -0.04", 0.060, "shell"),),
    ((0.65, "0 0 -0.06", "0 0 0.06", 0.062, "joint"),),
    ((3.23, "0 0 -0.20", "0 0 -0.06", 0.058, "shell"),),
    ((3.59, "0 0 -0.06", "0 0 0.06", 0.058, "joint"),),
    (
        (0.90, "0 0 -0.31", "0 0 -0.20", 0.056, "shell"),
        (0.33, "0 0.075 -0.15", "0 0.055 -0.03", 0.034, "shell"),
    ),
    ((1.67, "0 0 -0.06", "0 0 0.02", 0.050, "joint"),),
    ((0.74, "0 0 0.02", "0 0 0.07", 0.044, "shell"),),
)
_NO_CONTACT = 'contype="0" conaffinity="0"'
_GRIPPER_CONTACT = (
    'contype="1" conaffinity="0"'  # the gripper touches objects and table, never itself
)


def panda_assets_xml() -> str:
    """Returns the materials that `panda_xml` refers to."""
    return """
    <material name="shell" rgba="0.90 0.91 0.92 1" specular="0.2" shininess="0.3"/>
    <material name="joint" rgba="0.55 0.57 0.60 1" specular="0.2" shininess="0.3"/>
    <material name="dark" rgba="0.16 0.16 0.18 1" specular="0.1" shininess="0.1"/>
    <material name="pad" rgba="0.30 0.30 0.32 1" specular="0" shininess="0"/>"""


def panda_xml(hand_extras: str = "") -> str:
    """Returns the MJCF body tree of arm and gripper, based at the origin; `hand_extras` goes inside the hand body."""
    opened, closed = "", ""
    for index, (pos, quat) in enumerate(_LINK_POSES):
        capsules = "".join(
            f'<geom type="capsule" mass="{mass}" fromto="{start} {end}" size="{radius}" material="{material}" '
            f"{_NO_CONTACT}/>"
            for mass, start, end, radius, material in _LINK_CAPSULES[index]
        )
        opened += (
            f'<body name="link{index + 1}" pos="{pos}" quat="{quat}" gravcomp="1">'
            f'<joint name="joint{index + 1}" range="{JOINT_LOW[index]} {JOINT_HIGH[index]}" '
            'armature="0.1" damping="1"/>'
            f"{capsules}"
        )
        closed += "</body>"
    base = f'<geom type="capsule" fromto="-0.06 0 0.05 0 0 0.08" size="0.075" material="shell" {_NO_CONTACT}/>'
    return f'<body name="base">{base}{opened}{_hand_xml(hand_extras)}{closed}</body>'


def panda_actuators_xml() -> str:
    """Returns seven joint position servos and two finger servos, in that order."""
    servos = "".join(
        f'<position name="servo{i + 1}" joint="joint{i + 1}" kp="{SERVO_STIFFNESS[i]}" '
        f'kv="{SERVO_STIFFNESS[i] * SERVO_LAG_S}" forcerange="-{JOINT_TORQUE[i]} {JOINT_TORQUE[i]}"/>'
        for i in range(NUM_JOINTS)
    )
    fingers = "".join(
        f'<position name="grip_{side}" joint="finger_{side}" kp="{FINGER_STIFFNESS}" kv="{FINGER_DAMPING}" '
        f'ctrlrange="0 {FINGER_TRAVEL_M}" forcerange="-{FINGER_FORCE_N} {FINGER_FORCE_N}"/>'
        for side in ("left", "right")
    )
    return f"<actuator>{servos}{fingers}</actuator>"


def arm_only_xml() -> str:
    """Returns a complete model of the arm alone, for kinematics."""
    return (
        f'<mujoco model="panda"><compiler angle="radian" autolimits="true"/><asset>{panda_assets_xml()}</asset>'
        f"<worldbody>{panda_xml()}</worldbody></mujoco>"
    )


def _hand_xml(extras: str) -> str:
    fingers = "".join(
        f'<body name="{side}_finger" pos="0 0 0.0584" quat="{quat}" gravcomp="1">'
        f'<joint name="finger_{side}" type="slide" axis="0 1 0" range="0 {FINGER_TRAVEL_M}" '
        'armature="0.05" damping="2"/>'
        '<geom type="box" size="0.0085 0.0055 0.020" pos="0 0.0105 0.026" mass="0.01" material="dark" '
        f"{_GRIPPER_CONTACT}/>"
        f'<geom name="{side}_pad" type="box" size="0.0100 0.0035 0.0075" pos="0 0.0035 0.0450" mass="0.005" '
        f'material="pad" friction="2 0.02 0.0001" condim="4" solref="0.005 1" {_GRIPPER_CONTACT}/>'
        "</body>"
        for side, quat in (("left", "1 0 0 0"), ("right", "0 0 0 1"))
    )
    return (
        '<body name="hand" pos="0 0 0.107" quat="0.9238795 0 0 -0.3826834" gravcomp="1">'
        f'<geom type="box" size="0.024 0.095 0.022" pos="0 0 0.036" mass="0.73" material="shell" {_GRIPPER_CONTACT}/>'
        f'<site name="tool" pos="0 0 {TOOL_FROM_HAND_M}" size="0.003" rgba="0 0 0 0"/>'
        f"{extras}{fingers}</body>"
    )
