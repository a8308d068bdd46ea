"""JSON as OpenVLA's `/act` speaks it: a numpy array is {"__numpy__": base64, "dtype": "|u1", "shape": [2, 3]}.

Source: json_numpy 2.1.1. Reading is as strict as `vla.serving.wire`: sizes are compared before anything is allocated.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from vla.errors import ServingError
from vla.serving.arrays import array_from_bytes, shown
from vla.serving.wire import DEFAULT_LIMITS, WireLimits

_ENTRIES = {"__numpy__", "dtype", "shape"}


def dumps(value: Any) -> str:
    """Returns `value` as JSON with numpy arrays as json_numpy writes them."""
    return json.dumps(value, default=_entries, allow_nan=False)


def loads(text: bytes | str, limits: WireLimits = DEFAULT_LIMITS) -> Any:
    """Returns what a JSON text holds, with arrays as writable copies (shape [] gives a scalar).

    Raises:
        ServingError: the text is not JSON, over a limit, or has an array whose size does not fit its shape.
    """
    raw = text.encode(errors="replace") if isinstance(text, str) else text
    if len(raw) > limits.max_bytes:
        raise ServingError(
            f"the JSON has {len(raw)} bytes; at most {limits.max_bytes} are taken: send smaller pictures"
        )
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > limits.max_items:
        raise ServingError(
            f"the JSON holds more than {limits.max_items} values; send arrays as json_numpy does"
        )
    try:
        value = json.loads(raw, object_pairs_hook=_resolved, parse_constant=_no_constant)
    except RecursionError:
        raise ServingError(
            f"the JSON nests deeper than {limits.max_depth} maps and lists"
        ) from None
    except (
        ValueError
    ) as error:  # also of text that is not UTF-8 and of numbers with thousands of digits
        raise ServingError(f"the text is not JSON: {error}") from error
    _check_depth(value, limits.max_depth)
    return value


def _entries(value: object) -> dict[str, Any]:
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.ascontiguousarray(cast(Any, value))
        shape = list(np.shape(cast(Any, value)))
        data = base64.b64encode(array.tobytes()).decode()
        return {"__numpy__": data, "dtype": array.dtype.str, "shape": shape}
    raise ServingError(f"cannot send a {type(value).__name__} as JSON")


def _resolved(pairs: list[tuple[str, Any]]) -> Any:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ServingError("a key comes twice in one JSON object")
    if "__numpy__" not in values:
        return values
    if set(values) != _ENTRIES or not isinstance(values["__numpy__"], str):
        raise ServingError(
            f"a numpy array needs exactly __numpy__, dtype and shape; got {shown(list(values))}"
        )
    try:
        data = base64.b64decode(values["__numpy__"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise ServingError(f"the data of a numpy array is not base64: {error}") from error
    array: NDArray[Any] = array_from_bytes(data, values["dtype"], values["shape"])
    return array if array.ndim else array[()]


def _no_constant(name: str) -> Any:
    raise ServingError(f"the JSON holds {name}; send finite numbers")


def _check_depth(value: Any, left: int) -> None:
    if not isinstance(value, (dict, list)):
        return
    if left == 0:
        raise ServingError("the JSON nests too deep: send one flat object")
    inside = cast(dict[str, Any], value).values() if isinstance(value, dict) else cast(Any, value)
    for item in inside:
        _check_depth(item, left - 1)
