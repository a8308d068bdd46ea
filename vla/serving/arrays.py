"""Numpy values out of what a stranger claims about them: dtype, shape and number of bytes must agree first."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from vla.errors import ServingError, unknown_name

DTYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(name)
    for name in (
        "|b1", "|u1", "<u2", "<u4", "<u8", "|i1", "<i2", "<i4", "<i8", "<f2", "<f4", "<f8",
    )
}  # fmt: skip
MAX_DIMENSIONS = 8
_MAX_ELEMENTS = 1 << 31


def array_from_bytes(data: bytes | memoryview[int], dtype: object, shape: object) -> NDArray[Any]:
    """Returns a writable array, after checking that dtype, shape and number of bytes agree.

    Raises:
        ServingError: an unknown dtype, a shape that is none, or a size that does not fit it.
    """
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ServingError(unknown_name("dtype", shown(dtype), DTYPES))
    lengths = _checked_shape(shape)
    known = DTYPES[dtype]
    # numpy minds lengths whose product overflows even where one of them is 0
    if math.prod(max(1, length) for length in lengths) > _MAX_ELEMENTS:
        raise ServingError(
            f"an array of shape {shown(lengths)} is larger than any that is taken here"
        )
    expected = math.prod(lengths) * known.itemsize  # Python's integers: nothing overflows
    if expected != len(data):
        raise ServingError(
            f"an array of shape {lengths} and dtype {dtype} takes {expected} bytes; the message has {len(data)}"
        )
    if known.kind == "b":  # a byte that is neither 0 nor 1 would be no proper bool
        return (np.frombuffer(data, np.uint8) != 0).reshape(lengths)
    return np.frombuffer(data, known).reshape(lengths).copy()


def scalar_from_number(number: object, dtype: object) -> Any:
    """Returns a numpy scalar; raises ServingError when the number does not fit the dtype."""
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ServingError(unknown_name("dtype", shown(dtype), DTYPES))
    is_whole = isinstance(number, int)
    if not is_whole and not (isinstance(number, float) and DTYPES[dtype].kind == "f"):
        raise ServingError(f"a numpy scalar of dtype {dtype} cannot hold {shown(number)}")
    try:
        with np.errstate(over="raise"):
            return DTYPES[dtype].type(number)
    except (OverflowError, ValueError, FloatingPointError) as error:
        raise ServingError(f"{shown(number)} does not fit dtype {dtype}") from error


def shown(value: object) -> str:
    """Returns `value` short enough for an error message, whatever a client has sent."""
    return reprlib.repr(value)


def _checked_shape(shape: object) -> tuple[int, ...]:
    lengths_given = cast(Sequence[Any], shape)
    if not isinstance(shape, (list, tuple)) or len(lengths_given) > MAX_DIMENSIONS:
        raise ServingError(
            f"the shape of an array is a list of at most {MAX_DIMENSIONS} lengths; got {shown(lengths_given)}"
        )
    lengths: list[int] = []
    for length in lengths_given:
        if not isinstance(length, int) or isinstance(length, bool) or length < 0:
            raise ServingError(
                f"the shape of an array holds whole numbers from 0; got {shown(length)}"
            )
        lengths.append(length)
    return tuple(lengths)
