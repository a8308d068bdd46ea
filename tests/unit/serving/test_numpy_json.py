import base64
import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from vla.errors import ServingError
from vla.serving.arrays import DTYPES
from vla.serving.numpy_json import dumps, loads
from vla.serving.wire import WireLimits

arrays = st.sampled_from(sorted(DTYPES)).flatmap(
    lambda name: st_numpy.arrays(
        np.dtype(name), st_numpy.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
    )
)


@given(arrays)
def test_arrays_come_back_as_they_went(array):
    got = loads(dumps({"x": array}))["x"]
    assert got.dtype == array.dtype
    assert got.shape == array.shape
    assert np.array_equal(got, array, equal_nan=array.dtype.kind == "f")


def test_an_array_is_spelled_as_json_numpy_spells_it():
    spelled = json.loads(dumps(np.array([[1.0, 2.0]], np.float32)))
    data = base64.b64encode(np.array([1.0, 2.0], "<f4").tobytes()).decode()
    assert spelled == {"__numpy__": data, "dtype": "<f4", "shape": [1, 2]}


@given(st.binary(max_size=300) | st.text(max_size=100))
def test_any_text_is_a_value_or_a_serving_error(text):
    with contextlib.suppress(ServingError):
        loads(text)


ARRAY = {"__numpy__": base64.b64encode(b"\0" * 12).decode(), "dtype": "<f4", "shape": [3]}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "more than 20000 values"),
        ("[" * 19_000, "nests deeper"),
        ("[[[[[[[[[1]]]]]]]]]", "nests too deep"),
        ('{"a": NaN}', "holds NaN"),
        ('{"a": -Infinity}', "holds -Infinity"),
        ('{"a": 1, "a": 2}', "comes twice"),
        ("1" * 5000, "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (json.dumps(ARRAY | {"shape": [4]}), "takes 16 bytes; the message has 12"),
        (json.dumps(ARRAY | {"dtype": "|O"}), "unknown dtype"),
        (json.dumps(ARRAY | {"__numpy__": "?"}), "not base64"),
        (json.dumps(ARRAY | {"__numpy__": 5}), "exactly __numpy__"),
        (json.dumps(ARRAY | {"more": 5}), "exactly __numpy__"),
    ],
)
def test_bad_json_is_refused_with_the_reason(text, reason):
    with pytest.raises(ServingError, match=reason):
        loads(text)


def test_a_text_longer_than_the_limit_is_refused_before_it_is_read():
    with pytest.raises(ServingError, match="has 11 bytes; at most 10"):
        loads("x" * 11, WireLimits(max_bytes=10))


def test_numbers_that_json_cannot_say_are_not_sent():
    with pytest.raises(ValueError, match="JSON compliant"):
        dumps({"x": float("nan")})
    with pytest.raises(ServingError, match="cannot send a object"):
        dumps(object())
