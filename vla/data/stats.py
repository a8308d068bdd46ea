"""Statistics that bring actions and proprioception to [-1, 1] and back: quantile bounds as OpenVLA defines them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vla.errors import DatasetError
from vla.tokenizers.action_bins import ActionBins
from vla.types import ActionSpec, FloatArray, StateSpec

# OpenVLA adds this when it normalises and leaves it out when it goes back
# (prismatic/vla/datasets/rlds/utils/data_utils.py, normalize_action_and_proprio).
_EPSILON = 1e-8


class AbsoluteBounds(Enum):
    """What bounds an absolute dimension, e.g. the gripper, gets."""

    SPEC = "spec"  # the limits of the ActionSpec: 0..1 becomes -1..1 and uses every bin
    PASS_THROUGH = (
        "pass_through"  # not normalised, as OpenVLA does; 0..1 then uses the upper half of the bins
    )


@dataclass(kw_only=True)
class ActionStatistics:
    """Distribution of each action dimension over a dataset, in physical units.

    The keys of `to_dict` are those of OpenVLA's `dataset_statistics.json`, with `names` and `floored` added.

    Attributes:
        mask: True where a dimension is normalised; False passes through both ways.
        floored: names of dimensions that hardly move and got the range floor instead of their own range.
    """

    names: list[str]
    q01: FloatArray
    q99: FloatArray
    min: FloatArray
    max: FloatArray
    mean: FloatArray
    std: FloatArray
    mask: NDArray[np.bool_]
    floored: list[str] = field(default_factory=list)

    @classmethod
    def from_array(
        cls,
        actions: NDArray[Any],
        spec: ActionSpec,
        *,
        absolute: AbsoluteBounds = AbsoluteBounds.SPEC,
        floor_fraction: float = 1e-3,
    ) -> Self:
        """Returns the statistics of `actions` (frames, width), with q01 and q99 ready to normalise with.

        A channel whose 1 % to 99 % range is below `floor_fraction` of the range of `spec` would blow noise up to
        full scale, so its bounds are set that far apart around its centre; it is then listed in `floored`.

        Raises:
            DatasetError: no frames, another width than `spec`, or a value that is not finite.
        """
        values = _checked(actions, spec.names, "action")
        low, high = np.asarray(spec.low), np.asarray(spec.high)
        q01, q99 = np.quantile(values, [0.01, 0.99], axis=0)
        q01, q99, is_floored = _with_floor(q01, q99, floor_fraction * (high - low))
        mask = np.ones(spec.width, dtype=bool)
        is_absolute = ~np.asarray(spec.is_relative)
        if absolute is AbsoluteBounds.SPEC:
            q01, q99 = np.where(is_absolute, low, q01), np.where(is_absolute, high, q99)
        else:
            mask &= ~is_absolute
        floored = [
            name for name, hit in zip(spec.names, is_floored & ~is_absolute, strict=True) if hit
        ]
        return cls(
            names=list(spec.names),
            q01=_f32(q01),
            q99=_f32(q99),
            mask=mask,
            floored=floored,
            **_moments(values),
        )

    def normalize(self, actions: NDArray[Any]) -> FloatArray:
        """Returns `actions` (..., width) with masked dimensions mapped from [q01, q99] to [-1, 1] and clipped."""
        scaled = np.clip(_to_unit(actions, self.q01, self.q99), -1.0, 1.0)
        return np.where(self.mask, scaled, actions).astype(np.float32)

    def unnormalize(self, values: NDArray[Any]) -> FloatArray:
        """Returns `values` (..., width) in physical units again."""
        return np.where(self.mask, _from_unit(values, self.q01, self.q99), values).astype(
            np.float32
        )

    def rest_bins(self, spec: ActionSpec) -> NDArray[np.int64]:
        """Returns (width,) the bin of no change where the dimension is relative, -1 where it is absolute."""
        bins = ActionBins.encode(self.normalize(np.zeros(spec.width)))
        return np.where(spec.is_relative, bins, -1)

    def to_dict(self) -> dict[str, Any]:
        return _to_json(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Returns the statistics that `to_dict` wrote; names and floored may be absent, as in OpenVLA's files."""
        given = dict(values)
        mask = np.asarray(given.pop("mask", [True] * len(given["q01"])), dtype=bool)
        names = given.pop("names", [f"dimension {i}" for i in range(len(mask))])
        floored = given.pop("floored", [])
        return cls(names=list(names), mask=mask, floored=list(floored), **_arrays(given))


@dataclass(kw_only=True)
class StateStatistics:
    """Distribution of each proprioceptive value; [q01, q99] maps to [-1, 1], values beyond are clipped."""

    names: list[str]
    q01: FloatArray
    q99: FloatArray
    min: FloatArray
    max: FloatArray
    mean: FloatArray
    std: FloatArray
    floored: list[str] = field(default_factory=list)

    @classmethod
    def from_array(
        cls, states: NDArray[Any], spec: StateSpec, *, range_floor: float = 0.01
    ) -> Self:
        """Returns the statistics of `states` (frames, width).

        Args:
            range_floor: smallest range a channel is stretched from, in its own unit (1 cm, 10 mrad): a tool that
                never tilts shall not have its millirads of noise read as full scale.

        Raises:
            DatasetError: no frames, another width than `spec`, or a value that is not finite.
        """
        values = _checked(states, spec.names, "state")
        q01, q99 = np.quantile(values, [0.01, 0.99], axis=0)
        q01, q99, is_floored = _with_floor(q01, q99, np.full(spec.width, range_floor))
        floored = [name for name, hit in zip(spec.names, is_floored, strict=True) if hit]
        return cls(
            names=list(spec.names),
            q01=_f32(q01),
            q99=_f32(q99),
            floored=floored,
            **_moments(values),
        )

    def normalize(self, states: NDArray[Any]) -> FloatArray:
        """Returns `states` (..., width) in [-1, 1]."""
        return np.clip(_to_unit(states, self.q01, self.q99), -1.0, 1.0).astype(np.float32)

    def unnormalize(self, values: NDArray[Any]) -> FloatArray:
        """Returns `values` (..., width) in physical units again."""
        return _from_unit(values, self.q01, self.q99).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        return _to_json(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Returns the statistics that `to_dict` wrote."""
        given = dict(values)
        names, floored = given.pop("names"), given.pop("floored", [])
        return cls(names=list(names), floored=list(floored), **_arrays(given))


def _checked(values: NDArray[Any], names: tuple[str, ...], kind: str) -> NDArray[np.float64]:
    if values.ndim != 2 or values.shape[1] != len(names) or not len(values):
        raise DatasetError(
            f"{kind} statistics need (frames, {len(names)}) numbers ({', '.join(names)}); got {values.shape}"
        )
    if not np.isfinite(values).all():
        frame, dim = np.argwhere(~np.isfinite(values))[0]
        raise DatasetError(
            f"{kind} {names[dim]} is not finite in frame {frame} of the whole dataset; remove that episode"
        )
    return values.astype(np.float64)


def _with_floor(
    q01: NDArray[Any], q99: NDArray[Any], floor: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
    is_floored = q99 - q01 < floor
    centre = (q01 + q99) / 2
    return (
        np.where(is_floored, centre - floor / 2, q01),
        np.where(is_floored, centre + floor / 2, q99),
        is_floored,
    )


def _moments(values: NDArray[np.float64]) -> dict[str, FloatArray]:
    moments = {
        "min": values.min(0),
        "max": values.max(0),
        "mean": values.mean(0),
        "std": values.std(0),
    }
    return {name: _f32(value) for name, value in moments.items()}


def _to_unit(values: NDArray[Any], low: FloatArray, high: FloatArray) -> NDArray[Any]:
    return 2.0 * (values - low) / (high - low + _EPSILON) - 1.0


def _from_unit(values: NDArray[Any], low: FloatArray, high: FloatArray) -> NDArray[Any]:
    return 0.5 * (values + 1.0) * (high - low) + low


def _f32(values: NDArray[Any]) -> FloatArray:
    return np.asarray(values, dtype=np.float32)


def _arrays(values: dict[str, Any]) -> dict[str, Any]:
    """Picks the arrays by name, so that further keys in a foreign file (num_transitions, ...) do no harm."""
    return {name: _f32(values[name]) for name in ("q01", "q99", "min", "max", "mean", "std")}


def _to_json(statistics: Any) -> dict[str, Any]:
    return {
        key: value.tolist() if isinstance(value, np.ndarray) else value
        for key, value in asdict(statistics).items()
    }
