import pickle
import threading
from multiprocessing import shared_memory

import numpy as np
import pytest

from vla.control.board import Board, SharedBoard, Word
from vla.control.channel import Channel, Field, SharedChannel, nbytes_for
from vla.errors import RobotError

LAYOUT = {
    "stamp": Field(),
    "count": Field(dtype="int64"),
    "joints": Field((7,)),
    "picture": Field((8, 8, 3), "uint8"),
}


def fields(number: int) -> dict:
    return {
        "stamp": number / 7,
        "count": number,
        "joints": np.full(7, number / 3),
        "picture": np.full((8, 8, 3), number % 256, np.uint8),
    }


def two_ends() -> tuple[Channel, Channel]:
    buffer = bytearray(nbytes_for(LAYOUT))
    return Channel(LAYOUT, buffer), Channel(LAYOUT, buffer)


def test_what_is_published_is_read_exactly():
    writer, reader = two_ends()
    assert writer.publish(**fields(5)) == 1
    message = reader.read_new()
    assert message is not None
    assert message.sequence == 1
    assert message.number("stamp") == 5 / 7
    assert message.integer("count") == 5
    np.testing.assert_array_equal(message["joints"], np.full(7, 5 / 3))
    np.testing.assert_array_equal(message["picture"], np.full((8, 8, 3), 5))


def test_a_message_is_read_once():
    writer, reader = two_ends()
    assert reader.read_new() is None
    writer.publish(**fields(1))
    assert reader.read_new() is not None
    assert reader.read_new() is None


def test_only_the_newest_message_is_read():
    writer, reader = two_ends()
    for number in range(1, 11):
        writer.publish(**fields(number))
    message = reader.read_new()
    assert message is not None
    assert (message.sequence, message.integer("count")) == (10, 10)


def test_the_reader_keeps_its_copy_while_the_writer_goes_on():
    writer, reader = two_ends()
    writer.publish(**fields(1))
    message = reader.read_new()
    for number in range(2, 12):
        writer.publish(**fields(number))
    assert message is not None
    assert message.integer("count") == 1


def test_a_writer_that_dies_half_way_leaves_the_last_whole_message_readable():
    buffer = bytearray(nbytes_for(LAYOUT))
    writer, reader = Channel(LAYOUT, buffer), Channel(LAYOUT, buffer)
    writer.publish(**fields(1))
    broken = {**fields(2), "picture": "not a picture"}
    with pytest.raises(ValueError):
        writer.publish(**broken)
    message = reader.read_new()
    assert message is not None
    assert message.integer("count") == 1


def test_a_torn_message_is_not_handed_out():
    buffer = bytearray(nbytes_for(LAYOUT))
    writer, reader = Channel(LAYOUT, buffer), Channel(LAYOUT, buffer)
    writer.publish(**fields(1))
    where = bytes(buffer).index(np.float64(1 / 3).tobytes())
    buffer[where] ^= 0xFF  # as if a store had not arrived yet
    assert reader.read_new() is None


def test_a_reader_in_another_thread_never_sees_a_mixture():
    writer, reader = two_ends()
    is_done = threading.Event()

    def write() -> None:
        for number in range(1, 3000):
            writer.publish(**fields(number))
        is_done.set()

    thread = threading.Thread(target=write)
    thread.start()
    last = 0
    while not is_done.is_set():
        message = reader.read_new()
        if message is not None:
            count = message.integer("count")
            assert count > last
            assert (message["joints"] == count / 3).all()
            assert (message["picture"] == count % 256).all()
            last = count
    thread.join()
    assert last > 0


def test_missing_and_unknown_fields_are_refused():
    writer, _ = two_ends()
    with pytest.raises(RobotError, match="a message has the fields"):
        writer.publish(stamp=1.0)


def test_a_shared_channel_survives_pickling_and_is_gone_after_unlink():
    shared = SharedChannel(LAYOUT)
    other = pickle.loads(pickle.dumps(shared))
    shared.channel.publish(**fields(3))
    message = other.channel.read_new()
    assert message.integer("count") == 3
    del message
    other.close()
    shared.unlink()
    shared.unlink()
    with pytest.raises(FileNotFoundError):
        shared_memory.SharedMemory(name=shared.name)


def test_board_words_are_seen_by_the_other_side():
    shared = SharedBoard()
    other = pickle.loads(pickle.dumps(shared))
    other.board[Word.CONTROL_TICK] = 4
    assert shared.board[Word.CONTROL_TICK] == 4
    other.close()
    shared.unlink()


def test_a_new_board_is_all_zero():
    assert all(Board()[word] == 0 for word in Word)


def test_a_reader_of_every_message_may_fall_behind_by_two():
    channel = Channel({"number": Field()})
    for number in range(1, 4):
        channel.publish(number=number)
    read = []
    while (message := channel.read_next()) is not None:
        read.append(message.number("number"))
    assert read == [1, 2, 3]
    for number in range(4, 10):
        channel.publish(number=number)
    read = []
    while (message := channel.read_next()) is not None:
        read.append(message.number("number"))
    assert read == [7, 8, 9]
