"""What lies on the table: three shapes in six colours, each known to the instruction as e.g. "red cube"."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Shape(StrEnum):
    """Outline of an object; the value is the word an instruction uses."""

    CUBE = "cube"
    CYLINDER = "cylinder"
    BLOCK = (
        "block"  # elongated: can only be grasped across its short side, so the wrist has to turn
    )


@dataclass(frozen=True, kw_only=True)
class ShapeGeometry:
    """Size of a shape at rest on the table, in its own axes.

    Attributes:
        geom_type: MuJoCo primitive.
        size_m: the primitive's `size` attribute.
        half_height_m: distance from the centre to the table.
        grip_width_m: distance between the finger pads when the object is held.
        symmetry_rad: turning by this angle about the vertical gives an equally good grasp (0: any angle does).
    """

    geom_type: str
    size_m: tuple[float, ...]
    half_height_m: float
    grip_width_m: float
    symmetry_rad: float


SHAPES: dict[Shape, ShapeGeometry] = {
    Shape.CUBE: ShapeGeometry(
        geom_type="box",
        size_m=(0.02, 0.02, 0.02),
        half_height_m=0.02,
        grip_width_m=0.04,
        symmetry_rad=1.5707963,
    ),
    Shape.CYLINDER: ShapeGeometry(
        geom_type="cylinder",
        size_m=(0.02, 0.02),
        half_height_m=0.02,
        grip_width_m=0.04,
        symmetry_rad=0.0,
    ),
    Shape.BLOCK: ShapeGeometry(
        geom_type="box",
        size_m=(0.045, 0.015, 0.015),
        half_height_m=0.015,
        grip_width_m=0.03,
        symmetry_rad=3.1415927,
    ),
}

# Hues 60 degrees apart, so that neither coloured light nor a small picture confuses two of them.
COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.85, 0.08, 0.08),
    "yellow": (0.92, 0.82, 0.08),
    "green": (0.10, 0.68, 0.14),
    "cyan": (0.08, 0.78, 0.85),
    "blue": (0.10, 0.20, 0.88),
    "purple": (0.72, 0.14, 0.78),
}

OBJECT_MASS_KG = 0.05


@dataclass(frozen=True, kw_only=True)
class ObjectSpec:
    """One object: what it is, not where it is."""

    shape: Shape
    color: str

    @property
    def name(self) -> str:
        return f"{self.color} {self.shape.value}"

    @property
    def geometry(self) -> ShapeGeometry:
        return SHAPES[self.shape]
