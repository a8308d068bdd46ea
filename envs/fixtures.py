"""What stands on the table for some tasks: a bowl, a marked square and a cabinet with one drawer."""

from __future__ import annotations

import math

BOWL_RADIUS_M = 0.068  # to the inner face of the wall, at half height
BOWL_HEIGHT_M = 0.035
BOWL_OUTER_RADIUS_M = 0.085
ZONE_HALF_SIDE_M = 0.055
DRAWER_TRAVEL_M = 0.16
HANDLE_OFFSET_M = (
    0.065  # from the drawer front to the middle of the bar: the closed fingers fit in between
)
HANDLE_HEIGHT_M = 0.060
CABINET_HALF_DEPTH_M = 0.09

FIXTURES = ("bowl", "zone", "cabinet")
_CONTACT = 'contype="0" conaffinity="3"'  # met by objects and gripper, not by the table: a resting bowl costs nothing
_NO_CONTACT = 'contype="0" conaffinity="0"'


def fixtures_xml() -> str:
    """Returns the MJCF bodies; each is moved into place (or out of sight) by editing its pose in the model."""
    return _bowl_xml() + _zone_xml() + _cabinet_xml()


def _bowl_xml() -> str:
    """Eight tilted walls around the bare table; the floor is drawn only, objects come to rest on the table."""
    sides, tilt = 8, 0.30
    half_length = (BOWL_RADIUS_M + 0.006) * math.tan(math.pi / sides)
    walls = "".join(
        f'<geom type="box" size="0.004 {half_length:.4f} {BOWL_HEIGHT_M / 2}" pos="{_polar(BOWL_RADIUS_M, angle)} '
        f'{BOWL_HEIGHT_M / 2 + 0.001}" quat="{_lean(angle, tilt)}" rgba="0.93 0.92 0.88 1" {_CONTACT}/>'
        for angle in (2 * math.pi * side / sides for side in range(sides))
    )
    floor = f'<geom type="cylinder" size="{BOWL_RADIUS_M - 0.004} 0.001" pos="0 0 0.001" rgba="0.80 0.79 0.75 1" {_NO_CONTACT}/>'
    return f'<body name="bowl">{floor}{walls}</body>'


def _zone_xml() -> str:
    half = ZONE_HALF_SIDE_M
    frame = f'<geom type="box" size="{half} {half} 0.0004" pos="0 0 0.0004" rgba="0.95 0.95 0.95 1" {_NO_CONTACT}/>'
    inside = f'<geom type="box" size="{half - 0.008} {half - 0.008} 0.0005" pos="0 0 0.0007" rgba="0.25 0.25 0.28 1" {_NO_CONTACT}/>'
    return f'<body name="zone">{frame}{inside}</body>'


def _cabinet_xml() -> str:
    """A low box whose drawer slides out along its own +x; a bar handle stands off the drawer front."""
    depth, width, height, wall = CABINET_HALF_DEPTH_M, 0.085, 0.040, 0.005
    body = 'rgba="0.45 0.33 0.24 1" ' + _CONTACT
    shell = (
        f'<geom type="box" size="{depth} {width} {wall}" pos="0 0 {2 * height - wall}" {body}/>'
        f'<geom type="box" size="{depth} {wall} {height - 0.002}" pos="0 {width - wall} {height}" {body}/>'
        f'<geom type="box" size="{depth} {wall} {height - 0.002}" pos="0 {wall - width} {height}" {body}/>'
        f'<geom type="box" size="{wall} {width} {height - 0.002}" pos="{wall - depth} 0 {height}" {body}/>'
    )
    inner, front = width - 0.013, depth + 0.001
    tray = 'rgba="0.72 0.58 0.42 1" ' + _NO_CONTACT
    bar = f'rgba="0.12 0.12 0.13 1" friction="1 0.02 0.0001" {_CONTACT}'
    drawer = (
        f'<geom type="box" size="{depth - 0.012} {inner} 0.003" pos="-0.006 0 0.012" mass="0.2" {tray}/>'
        f'<geom type="box" size="{depth - 0.012} 0.003 0.02" pos="-0.006 {inner} 0.032" mass="0.05" {tray}/>'
        f'<geom type="box" size="{depth - 0.012} 0.003 0.02" pos="-0.006 -{inner} 0.032" mass="0.05" {tray}/>'
        f'<geom type="box" size="0.004 {inner} 0.033" pos="{front - 0.006} 0 0.037" mass="0.1" rgba="0.80 0.66 0.48 1" {_CONTACT}/>'
    )
    reach = HANDLE_OFFSET_M
    handle = (
        f'<geom name="handle" type="box" size="0.006 0.055 0.007" pos="{front + reach} 0 {HANDLE_HEIGHT_M}" mass="0.03" {bar}/>'
        f'<geom type="box" size="{reach / 2} 0.004 0.005" pos="{front + reach / 2} 0.050 {HANDLE_HEIGHT_M}" mass="0.01" {bar}/>'
        f'<geom type="box" size="{reach / 2} 0.004 0.005" pos="{front + reach / 2} -0.050 {HANDLE_HEIGHT_M}" mass="0.01" {bar}/>'
        f'<site name="handle" pos="{front + reach} 0 {HANDLE_HEIGHT_M}" size="0.003" rgba="0 0 0 0"/>'
    )
    slide = f'<joint name="drawer" type="slide" axis="1 0 0" range="0 {DRAWER_TRAVEL_M}" damping="6" frictionloss="1.5" armature="0.1"/>'
    return f'<body name="cabinet">{shell}<body name="drawer" gravcomp="1">{slide}{drawer}{handle}</body></body>'


def _polar(radius: float, angle: float) -> str:
    return f"{radius * math.cos(angle):.5f} {radius * math.sin(angle):.5f}"


def _lean(angle: float, tilt: float) -> str:
    """Returns the quaternion that turns by `angle` about z, then leans outwards by `tilt` about the turned y."""
    cz, sz, cy, sy = (
        math.cos(angle / 2),
        math.sin(angle / 2),
        math.cos(tilt / 2),
        math.sin(tilt / 2),
    )
    return f"{cz * cy:.6f} {-sz * sy:.6f} {cz * sy:.6f} {sz * cy:.6f}"
