"""The MJCF of the whole table: arm, object slots, fixtures, light and front camera."""

from __future__ import annotations

from envs.arms import panda_actuators_xml, panda_assets_xml, panda_xml
from envs.cameras import camera_xml
from envs.fixtures import fixtures_xml
from envs.objects import OBJECT_MASS_KG, SHAPES

PHYSICS_DT_S = 0.0025  # a whole number of steps fits both the 10 Hz of a policy and a 100 Hz servo
NUM_SLOTS = 5  # objects that can lie on the table at once
TABLE_MATERIALS = ("table_plain", "table_wood", "table_checker")
_ROLLING_DAMPING = 0.0003  # N m s/rad: a fallen cylinder stops within a few centimetres; 0.0003 N s/m slows no fall
_OBJECT_CONTACT = (
    'contype="2" conaffinity="3" condim="3" friction="1.5 0.02 0.0001" solref="0.005 1"'
)


def scene_xml() -> str:
    """Returns the complete model."""
    slots = "".join(
        f'<body name="object{slot}" pos="{-3.0 - slot} 0 2" gravcomp="1">'
        f'<joint type="free" damping="{_ROLLING_DAMPING}"/>'
        f'<geom type="box" size="0.02 0.02 0.02" mass="{OBJECT_MASS_KG}" material="paint" {_OBJECT_CONTACT}/></body>'
        for slot in range(NUM_SLOTS)
    )
    return f"""
<mujoco model="tabletop">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="{PHYSICS_DT_S}" integrator="implicitfast" iterations="30" ls_iterations="20"/>
  <statistic extent="1" center="0.5 0 0.1"/>
  <visual>
    <quality offsamples="0" shadowsize="0" numslices="12" numstacks="6" numquads="1"/>
    <headlight ambient="0.35 0.35 0.35" diffuse="0.25 0.25 0.25" specular="0 0 0"/>
    <map znear="0.01" zfar="10"/>
  </visual>
  <asset>{panda_assets_xml()}
    <texture name="sky" type="skybox" builtin="gradient" width="32" height="192"
             rgb1="0.62 0.66 0.70" rgb2="0.35 0.38 0.42"/>
    <texture name="wood" type="2d" builtin="gradient" width="64" height="64"
             rgb1="0.95 0.90 0.84" rgb2="0.78 0.72 0.66"/>
    <texture name="checker" type="2d" builtin="checker" width="64" height="64"
             rgb1="0.92 0.92 0.92" rgb2="0.80 0.80 0.80"/>
    <material name="paint" specular="0.1" shininess="0.1"/>
    <material name="table_plain" rgba="0.62 0.58 0.54 1" specular="0" shininess="0"/>
    <material name="table_wood" texture="wood" texrepeat="5 1" rgba="0.70 0.62 0.55 1" specular="0" shininess="0"/>
    <material name="table_checker" texture="checker" texrepeat="8 8"
              rgba="0.66 0.64 0.62 1" specular="0" shininess="0"/>
  </asset>
  <worldbody>
    <light name="key" pos="0.9 0.5 1.6" dir="-0.3 -0.35 -1" directional="true"
           diffuse="0.55 0.55 0.55" specular="0.1 0.1 0.1" castshadow="false"/>
    {camera_xml("front")}
    <geom name="table" type="plane" pos="0.35 0 0" size="0.55 0.8 0.1" material="table_plain"
          contype="0" conaffinity="3" priority="1" condim="3" friction="0.6 0.01 0.0001" solref="0.005 1"/>
    {panda_xml(hand_extras=camera_xml("wrist"))}
    {slots}
    {fixtures_xml()}
  </worldbody>
  {panda_actuators_xml()}
</mujoco>"""


def shapes_xml() -> str:
    """Returns a model of one free body per shape, in the order of SHAPES: prototypes for the object slots."""
    bodies = "".join(
        f'<body><freejoint/><geom type="{shape.geom_type}" size="{" ".join(map(str, shape.size_m))}" '
        f'mass="{OBJECT_MASS_KG}"/></body>'
        for shape in SHAPES.values()
    )
    return f"<mujoco><worldbody>{bodies}</worldbody></mujoco>"
