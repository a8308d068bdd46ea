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
# Met by objects and gripper but not by the table, so that a fixture at rest costs no contacts.
_SOLID = 'contype="0" conaffinity="3"'
_DRAWN_ONLY = 'contype="0" conaffinity="0"'


def fixtures_xml() -> str:
    """Returns the MJCF bodies; each is moved into place (or out of sight) by editing its pose in the model."""
    return _bowl_xml() + _zone_xml() + _cabinet_xml()


def _box(half_sizes: str, center: str, rgb: str, extras: str) -> str:
    return f'<geom type="box" size="{half_sizes}" pos="{center}" rgba="{rgb} 1" {extras}/>'


def _bowl_xml() -> str:
    """Eight tilted walls around the bare table; the floor is drawn only, objects come to rest on the table."""
    sides, tilt, half_height = 8, 0.30, 0.5 * BOWL_HEIGHT_M
    half_length = (BOWL_RADIUS_M + 0.006) * math.tan(math.pi / sides)
    walls = "".join(
        _box(
            f"0.004 {half_length:.4f} {half_height}",
            f"{_polar(BOWL_RADIUS_M, angle)} {half_height + 0.001}",
            "0.93 0.92 0.88",
            f'quat="{_lean(angle, tilt)}" {_SOLID}',
        )
        for angle in (2 * math.pi * side / sides for side in range(sides))
    )
    floor = (
        f'<geom type="cylinder" size="{BOWL_RADIUS_M - 0.004} 0.001" pos="0 0 0.001" '
        f'rgba="0.80 0.79 0.75 1" {_DRAWN_ONLY}/>'
    )
    return f'<body name="bowl">{floor}{walls}</body>'


def _zone_xml() -> str:
    outer, inner = ZONE_HALF_SIDE_M, ZONE_HALF_SIDE_M - 0.008
    frame = _box(f"{outer} {outer} 0.0004", "0 0 0.0004", "0.95 0.95 0.95", _DRAWN_ONLY)
    area = _box(f"{inner} {inner} 0.0005", "0 0 0.0007", "0.25 0.25 0.28", _DRAWN_ONLY)
    return f'<body name="zone">{frame}{area}</body>'


def _cabinet_xml() -> str:
    """A low box whose drawer slides out along its own +x; a bar handle stands off the drawer front."""
    depth, width, height, wall = CABINET_HALF_DEPTH_M, 0.085, 0.040, 0.005
    wood, upright = "0.45 0.33 0.24", height - 0.002
    shell = (
        _box(f"{depth} {width} {wall}", f"0 0 {2 * height - wall}", wood, _SOLID)
        + _box(f"{depth} {wall} {upright}", f"0 {width - wall} {height}", wood, _SOLID)
        + _box(f"{depth} {wall} {upright}", f"0 {wall - width} {height}", wood, _SOLID)
        + _box(f"{wall} {width} {upright}", f"{wall - depth} 0 {height}", wood, _SOLID)
    )
    slide = (
        f'<joint name="drawer" type="slide" axis="1 0 0" range="0 {DRAWER_TRAVEL_M}" damping="6" '
        'frictionloss="1.5" armature="0.1"/>'
    )
    drawer = (
        f'<body name="drawer" gravcomp="1">{slide}{_tray_xml(width - 0.013)}{_handle_xml()}</body>'
    )
    return f'<body name="cabinet">{shell}{drawer}</body>'


def _tray_xml(half_width: float) -> str:
    half_length, light_wood = CABINET_HALF_DEPTH_M - 0.012, "0.72 0.58 0.42"
    inside = f'mass="0.1" {_DRAWN_ONLY}'
    return (
        _box(f"{half_length} {half_width} 0.003", "-0.006 0 0.012", light_wood, inside)
        + _box(f"{half_length} 0.003 0.02", f"-0.006 {half_width} 0.032", light_wood, inside)
        + _box(f"{half_length} 0.003 0.02", f"-0.006 {-half_width} 0.032", light_wood, inside)
        + _box(
            f"0.004 {half_width} 0.033",
            f"{CABINET_HALF_DEPTH_M - 0.005} 0 0.037",
            "0.80 0.66 0.48",
            f'mass="0.1" {_SOLID}',
        )
    )


def _handle_xml() -> str:
    front, length = CABINET_HALF_DEPTH_M + 0.001, HANDLE_OFFSET_M
    bar, post = f"{front + length} 0 {HANDLE_HEIGHT_M}", f"{length / 2} 0.004 0.005"
    black, look = "0.12 0.12 0.13", f'mass="0.02" friction="1 0.02 0.0001" {_SOLID}'
    return (
        _box("0.006 0.055 0.007", bar, black, f'name="handle" {look}')
        + _box(post, f"{front + length / 2} 0.050 {HANDLE_HEIGHT_M}", black, look)
        + _box(post, f"{front + length / 2} -0.050 {HANDLE_HEIGHT_M}", black, look)
        + f'<site name="handle" pos="{bar}" size="0.003" rgba="0 0 0 0"/>'
    )


def _polar(radius: float, angle: float) -> str:
    return f"{radius * math.cos(angle):.5f} {radius * math.sin(angle):.5f}"


def _lean(angle: float, tilt: float) -> str:
    """Returns the quaternion that turns by `angle` about z, then leans outwards by `tilt` about the turned y."""
    cz, sz = math.cos(angle / 2), math.sin(angle / 2)
    cy, sy = math.cos(tilt / 2), math.sin(tilt / 2)
    return f"{cz * cy:.6f} {-sz * sy:.6f} {cz * sy:.6f} {sz * cy:.6f}"
