import ast
import contextlib
import io
from pathlib import Path

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from vla.errors import ServingError
from vla.serving import wire
from vla.serving.arrays import DTYPES
from vla.serving.wire import WireLimits, pack, unpack


def openpi_pack(value):
    """What openpi-client 0.1.2 sends."""

    def default(item):
        if isinstance(item, np.ndarray):
            return {
                b"__ndarray__": True,
                b"data": item.tobytes(),
                b"dtype": item.dtype.str,
                b"shape": item.shape,
            }
        return {b"__npgeneric__": True, b"data": item.item(), b"dtype": item.dtype.str}

    return msgpack.packb(value, default=default)


def openpi_unpack(message):
    """What openpi-client 0.1.2 makes of an answer."""

    def hook(item):
        if b"__ndarray__" in item:
            return np.ndarray(
                buffer=item[b"data"], dtype=np.dtype(item[b"dtype"]), shape=item[b"shape"]
            )
        if b"__npgeneric__" in item:
            return np.dtype(item[b"dtype"]).type(item[b"data"])
        return item

    return msgpack.unpackb(message, object_hook=hook)


def same(a, b) -> bool:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and a == b


arrays = st.sampled_from(sorted(DTYPES)).flatmap(
    lambda name: st_numpy.arrays(
        np.dtype(name), st_numpy.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
    )
)
plain = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=40)
    | st.binary(max_size=40)
)
values = st.recursive(
    plain | arrays,
    lambda inside: (
        st.lists(inside, max_size=4) | st.dictionaries(st.text(max_size=10), inside, max_size=4)
    ),
    max_leaves=12,
)
deep = WireLimits(max_depth=64)


@given(values)
def test_what_is_packed_is_unpacked(value):
    assert same(unpack(pack(value), deep), value)


@given(values)
def test_openpis_client_reads_what_is_packed_and_its_messages_are_read(value):
    assert same(openpi_unpack(pack(value)), value)
    assert same(unpack(openpi_pack(value), deep), value)


@given(values)
def test_messages_are_the_bytes_that_msgpack_writes(value):
    assert pack(value) == openpi_pack(value)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_value_or_a_serving_error(message):
    try:
        unpack(message)
    except ServingError:
        return
    unpacker = msgpack.Unpacker(io.BytesIO(message), strict_map_key=False)
    unpacker.unpack()
    assert unpacker.tell() == len(message)


@given(values, st.data())
def test_every_truncated_message_is_refused(value, data):
    message = pack(value)
    length = data.draw(st.integers(0, len(message) - 1))
    with pytest.raises(ServingError):
        unpack(message[:length], deep)


@given(values, st.data())
def test_damaged_messages_give_a_value_or_a_serving_error(value, data):
    message = bytearray(pack(value))
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ServingError):
        unpack(bytes(message), deep)


@given(arrays)
def test_arrays_are_writable_copies(array):
    message = bytearray(pack(array))
    got = unpack(bytes(message))
    assert got.flags.writeable
    assert got.flags.owndata or got.base.flags.owndata
    assert got.flags.c_contiguous


@given(st.sampled_from(sorted(DTYPES)), st.integers(0, 1))
def test_numpy_scalars_keep_their_kind(name, number):
    scalar = DTYPES[name].type(number)
    got = unpack(openpi_pack({"x": scalar}) if name != "<f8" else pack({"x": scalar}))["x"]
    assert got == scalar
    assert got.dtype == scalar.dtype


def test_big_endian_and_strided_arrays_arrive_with_the_same_numbers():
    array = np.arange(12, dtype=">f4").reshape(3, 4)[:, ::2]
    assert np.array_equal(unpack(pack(array)), array)


def array_message(**changes):
    entries = {b"__ndarray__": True, b"data": b"\0" * 12, b"dtype": "<f4", b"shape": [3]}
    return msgpack.packb(entries | {key.encode(): value for key, value in changes.items()})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "|O"}, "unknown dtype"),
        ({"dtype": "|V12"}, "unknown dtype"),
        ({"dtype": "<c8"}, "unknown dtype"),
        ({"dtype": "<U3"}, "unknown dtype"),
        ({"dtype": [["f", "<f4"]]}, "unknown dtype"),
        ({"dtype": 5}, "unknown dtype"),
        ({"shape": [4]}, "takes 16 bytes; the message has 12"),
        ({"shape": [2]}, "takes 8 bytes; the message has 12"),
        ({"shape": [1 << 62, 1 << 62]}, "larger than any"),
        ({"shape": [0, 1 << 62]}, "larger than any"),
        ({"shape": [-3]}, "whole numbers from 0; got -3"),
        ({"shape": [True, 3]}, "whole numbers from 0; got True"),
        ({"shape": [1.0, 3]}, "whole numbers from 0; got 1.0"),
        ({"shape": 3}, "a list of at most 8 lengths"),
        ({"shape": [1] * 8 + [3]}, "a list of at most 8 lengths"),
        ({"data": "text"}, "must be bytes"),
        ({"more": 1}, "a key of a map must be text"),
        ({"__ndarray__": False}, "exactly __ndarray__"),
    ],
)
def test_arrays_that_lie_are_refused_with_the_reason(changes, message):
    with pytest.raises(ServingError, match=message):
        unpack(array_message(**changes))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "truncated"),
        (b"\xc1", "0xc1"),
        (b"\xc7\x01\x01\x01", "extension"),
        (b"\xd6\xff\0\0\0\0", "extension"),
        (b"\xdd\xff\xff\xff\xff", "4294967295 values in 0 bytes"),
        (b"\xdf\xff\xff\xff\xff", "truncated"),
        (b"\xc6\xff\xff\xff\xff", "4294967295 bytes expected"),
        (b"\xdb\xff\xff\xff\xff", "4294967295 bytes expected"),
        (b"\xa2\xff\xfe", "not UTF-8"),
        (b"\x90\x90", "goes on for 1 bytes"),
        (b"\x81\x01\x02", "key of a map must be text; got 1"),
        (b"\x81\x90\x02", "key of a map must be text"),
        (b"\x82\xa1a\x01\xa1a\x02", "'a' comes twice"),
        (b"\x91" * 9 + b"\xc0", "deeper than 8"),
        (b"\xdc\xff\xff" + b"\xc0" * 65535, "more than 20000 values"),
    ],
)
def test_malformed_messages_are_refused_with_the_reason(message, reason):
    with pytest.raises(ServingError, match=reason):
        unpack(message)


def test_a_message_longer_than_the_limit_is_refused_before_it_is_read():
    with pytest.raises(ServingError, match="has 101 bytes; at most 100"):
        unpack(b"\xc1" * 101, WireLimits(max_bytes=100))


def test_a_bool_array_of_odd_bytes_holds_proper_bools():
    entries = {b"__ndarray__": True, b"data": b"\0\2\xff", b"dtype": "|b1", b"shape": [3]}
    got = unpack(msgpack.packb(entries))
    assert got.view(np.uint8).tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("number", "dtype"),
    [(300, "|u1"), (-1, "<u8"), (1.5, "<i4"), (1e300, "<f4"), ("1", "<f4"), (1, "|O")],
)
def test_scalars_that_do_not_fit_their_dtype_are_refused(number, dtype):
    entries = {b"__npgeneric__": True, b"data": number, b"dtype": dtype}
    with pytest.raises(ServingError):
        unpack(msgpack.packb(entries))


def test_what_cannot_be_sent_is_named():
    for value, reason in (
        (object(), "cannot send a object"),
        (np.array(["x"]), "unknown dtype"),
        (np.array([1j]), "unknown dtype"),
        (np.array([None]), "unknown dtype"),
        (1 << 64, "does not fit 64 bits"),
        ("\ud800", "not valid Unicode"),
    ):
        with pytest.raises(ServingError, match=reason):
            pack(value)
    loop: list = []
    loop.append(loop)
    with pytest.raises(ServingError, match="contains itself"):
        pack(loop)


def test_no_file_of_the_serving_room_can_unpickle():
    for path in Path(wire.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in getattr(node, "names", []) if hasattr(alias, "name")]
            assert not {"pickle", "marshal", "shelve", "dill"} & set(names), path
            assert not (isinstance(node, ast.Name) and node.id in ("eval", "exec")), path
            assert "allow_pickle" not in [k.arg for k in getattr(node, "keywords", [])], path
