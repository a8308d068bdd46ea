import json

import numpy as np
import pytest

from vla.control.board import Word
from vla.control.channel import Message
from vla.control.feed import Feed, TickRing
from vla.control.limits import PANDA
from vla.control.log import Mode
from vla.control.messages import Links, chunk_fields
from vla.control.observer import DriveObserver
from vla.types import END_EFFECTOR_DELTA_7D

PERIOD_S = 0.01


class Drive:
    """Writes what a control process would."""

    def __init__(self) -> None:
        self.links = Links.in_process({}, {}, END_EFFECTOR_DELTA_7D)
        self.links.board[Word.POLICY_ALIVE] = 1
        self.feed = Feed(TickRing(7))
        self.observer = DriveObserver(self.links, self.feed, PANDA, END_EFFECTOR_DELTA_7D, PERIOD_S)
        self.ticks = 0

    def tick(self, consumed: int = 0, episode: int = 0, action=None, **more) -> None:
        time_s = 100.0 + PERIOD_S * self.ticks
        self.ticks += 1
        values = {
            "time_s": time_s, "lateness_s": 1e-4, "work_s": 1e-3, "skipped": 0, "mode": Mode.MOVE, "episode": episode,
            "consumed": consumed, "gripper": 1.0, "tool": [0.5, 0.0, 0.1 + 0.001 * self.ticks], "chunk": -1,
            "index_in_chunk": -1, "command": np.zeros(7), "action": np.nan if action is None else action,
        }  # fmt: skip
        self.feed.ticks.add({**values, **more})

    def chunk(self, captured_at_s: float, actions, probabilities=None, episode: int = 0) -> None:
        values = {"episode": np.array(episode), "captured_at_s": np.array(captured_at_s)}
        fields = chunk_fields(Message(1, values), np.asarray(actions), probabilities)
        self.links.chunks.publish(**fields)


@pytest.fixture
def drive() -> Drive:
    return Drive()


def test_actions_are_reported_once_when_they_begin(drive):
    first, second = np.arange(7) / 100, np.arange(7) / 50
    drive.tick()
    drive.tick(consumed=1, action=first)
    drive.tick(consumed=1, action=first)
    begun = drive.observer.poll()
    drive.tick(consumed=2, action=second)
    begun += drive.observer.poll()
    assert [b.time_s for b in begun] == pytest.approx([100.01, 100.03])
    np.testing.assert_allclose([b.action for b in begun], [first, second], rtol=1e-6)
    assert drive.observer.poll() == []


def test_counting_begins_anew_with_every_episode(drive):
    drive.tick(consumed=5, action=np.zeros(7))
    drive.tick(consumed=1, episode=1, action=np.ones(7))
    assert [b.episode for b in drive.observer.poll()] == [0, 1]


def test_the_state_is_json_and_says_how_many_deadlines_were_missed(drive):
    for lateness_s in (0.0, 1e-4, 0.02):
        drive.tick(lateness_s=lateness_s)
    drive.tick(skipped=3)
    drive.observer.poll()
    state = json.loads(json.dumps(drive.observer.state(), allow_nan=False))
    assert state["mode"] == "MOVE"
    deadlines = state["deadlines"]
    assert (deadlines["ticks"], deadlines["misses"]) == (4, 4)
    assert sum(deadlines["counts"]) == 4
    assert deadlines["max_ms"] == pytest.approx(20.0)


def test_before_the_first_tick_there_is_nothing_to_show(drive):
    drive.observer.poll()
    assert drive.observer.state()["has_begun"] is False


def test_a_chunk_is_shown_as_the_way_it_meant_the_tool_to_go(drive):
    for _ in range(20):
        drive.tick()
    actions = np.zeros((3, 7), np.float32)
    actions[:, 2] = [0.01, 0.02, 0.03]
    drive.chunk(100.05, actions, np.full((3, 7), 0.25, np.float32))
    drive.observer.poll()
    (plan,) = drive.observer.state()["chunks"]
    begin = 0.1 + 0.001 * 6  # the tool's height at the capture
    assert plan["values"][2] == pytest.approx([begin, begin + 0.01, begin + 0.03, begin + 0.06])
    np.testing.assert_allclose(plan["t"], np.array([0.0, 0.1, 0.2, 0.3]) - 0.14, atol=1e-6)
    np.testing.assert_allclose(plan["bits"], 2.0)


def test_a_policy_without_bins_has_no_entropy_and_chunks_of_other_episodes_are_not_shown(drive):
    drive.tick()
    drive.chunk(100.0, np.zeros((1, 7)))
    drive.observer.poll()
    assert drive.observer.state()["chunks"][0]["bits"] is None
    drive.tick(episode=1)
    drive.observer.poll()
    assert drive.observer.state()["chunks"] == []


def test_the_last_hold_is_shown_with_its_reason_until_the_next(drive):
    drive.tick(mode=Mode.HOLD)
    drive.feed.show_hold("policy_late", "no action for 160 ms", 100.0, {"policy_late": 2})
    drive.observer.poll()
    holds = drive.observer.state()["holds"]
    assert holds["last"]["is_now"]
    drive.tick()
    drive.observer.poll()
    holds = drive.observer.state()["holds"]
    assert holds["total"] == 2
    assert holds["last"]["message"] == "no action for 160 ms"
    assert not holds["last"]["is_now"]


def test_the_joint_nearest_to_its_limit_is_named_and_a_new_scene_is_no_motion(drive):
    drive.tick()
    middle = (np.asarray(PANDA.low) + np.asarray(PANDA.high)) / 2
    near = middle.copy()
    near[3] = PANDA.high[3] - 0.01
    drive.tick(command=near, episode=1)
    drive.observer.poll()
    position, speed = drive.observer.state()["limits"]
    assert (position["joint"], position["share"] > 0.98) == ("joint4", True)
    assert speed["share"] == 0.0


def test_an_emergency_stop_and_a_policy_that_is_gone_are_shown(drive):
    drive.tick()
    drive.links.board[Word.EMERGENCY_STOP] = 1
    drive.links.board[Word.POLICY_ALIVE] = 0
    drive.observer.poll()
    state = drive.observer.state()
    assert state["emergency_stop"]
    assert not state["policy_alive"]
