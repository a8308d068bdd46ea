import pickle

import numpy as np
import pytest

from vla.control.checks import Check
from vla.control.feed import CAPACITY, Feed, SharedFeed, ShownLog, TickRing


def row(time_s: float, **more) -> dict:
    return {"time_s": time_s, "joints": np.full(3, time_s), "tool": [1.0, 2.0, 3.0], **more}


def test_a_reader_gets_every_row_once_and_in_order():
    ring = TickRing(3)
    for time_s in (1.0, 2.0):
        ring.add(row(time_s))
    first = ring.read_new()
    ring.add(row(3.0))
    second = ring.read_new()
    assert first["time_s"].tolist() == [1.0, 2.0]
    assert second["time_s"].tolist() == [3.0]
    np.testing.assert_array_equal(second["joints"], [[3.0, 3.0, 3.0]])
    assert len(ring.read_new()["time_s"]) == 0
    assert ring.num_lost == 0


def test_columns_that_are_not_given_are_not_a_number_and_unknown_ones_are_passed_over():
    ring = TickRing(3)
    ring.add(row(1.0, segment=7))
    rows = ring.read_new()
    assert np.isnan(rows["lateness_s"][0])
    assert "segment" not in rows


def test_a_reader_that_falls_behind_loses_the_oldest_rows_and_is_told_how_many():
    ring = TickRing(3)
    for time_s in range(CAPACITY + 100):
        ring.add(row(float(time_s)))
    times = ring.read_new()["time_s"]
    assert times[-1] == CAPACITY + 99
    assert len(times) == CAPACITY - 1  # the next one to be written may be half-written
    assert ring.num_lost == 101
    np.testing.assert_array_equal(np.diff(times), 1.0)


def test_a_row_that_is_being_overwritten_is_thrown_away():
    ring = TickRing(3)
    for time_s in (1.0, 2.0, 3.0):
        ring.add(row(time_s))
    ring._rows[2, 0] = 0.0  # as the writer leaves it when it begins
    assert ring.read_new()["time_s"].tolist() == [1.0, 3.0]
    assert ring.num_lost == 1


def test_the_log_shows_every_tick_and_the_reason_of_a_hold():
    feed = Feed(TickRing(3))
    log = ShownLog(10, 3, feed)
    log.add(index=0, time_s=5.0, joints=np.zeros(3))
    log.hold(Check.TRACKING, "elbow is 0.2 rad from its command, limit 0.1 rad", 5.0)
    assert feed.ticks.read_new()["time_s"].tolist() == [5.0]
    hold = feed.read_hold()
    assert hold is not None
    assert (hold.check, hold.counts) == ("tracking_error", {"tracking_error": 1})
    assert hold.message.startswith("elbow is 0.2 rad")
    assert feed.read_hold() is None


def test_the_message_of_a_hold_that_lasts_is_shown_again_ten_times_a_second_at_most():
    feed = Feed(TickRing(3))
    log = ShownLog(10, 3, feed)
    shown = 0
    for tick in range(100):  # one second
        log.hold(Check.STATE, f"{tick}", 0.01 * tick)
        shown += feed.read_hold() is not None
    assert 9 <= shown <= 11


def test_a_long_message_is_cut_and_stays_readable():
    feed = Feed(TickRing(3))
    feed.show_hold("policy_late", "ä" * 1000, 1.0, {})
    hold = feed.read_hold()
    assert hold is not None
    assert set(hold.message) == {"ä"}


def test_another_process_sees_the_same_feed_and_only_the_maker_unlinks_it():
    shared = SharedFeed(3)
    other = pickle.loads(pickle.dumps(shared))
    shared.feed.ticks.add(row(1.0))
    assert other.feed.ticks.read_new()["time_s"].tolist() == [1.0]
    other.close()
    shared.unlink()
    shared.unlink()
    with pytest.raises(FileNotFoundError):
        pickle.loads(pickle.dumps(other))
