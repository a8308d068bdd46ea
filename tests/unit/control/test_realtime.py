import gc
import os

import pytest

from vla.control import realtime
from vla.control.realtime import (
    Granted,
    RealtimeConfig,
    be_nice,
    enter_realtime,
    leave_realtime,
    split_cores,
)


@pytest.fixture
def unfrozen():
    yield
    gc.unfreeze()
    gc.enable()


def test_the_last_core_is_for_control_and_the_others_for_the_policy(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 5})
    assert split_cores() == ({5}, {0, 2})
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert split_cores() == ({3}, {3})


def test_what_is_refused_is_named_in_one_warning_and_nothing_fails(monkeypatch, unfrozen):
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    monkeypatch.setattr(
        realtime, "_lock_memory", lambda refused: refused.append("mlockall: no") or False
    )
    granted = enter_realtime(RealtimeConfig())
    assert granted == Granted(refused=("mlockall: no", "SCHED_FIFO 80: Operation not permitted"))
    assert "SCHED_FIFO 80: Operation not permitted" in granted.warning
    assert "\n" not in granted.warning


def test_a_core_is_taken_only_together_with_priority(monkeypatch, unfrozen):
    pinned: list[set[int]] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, cores: pinned.append(cores))
    monkeypatch.setattr(os, "sched_setscheduler", lambda *_: None)
    monkeypatch.setattr(realtime, "_lock_memory", lambda _: True)
    assert enter_realtime(RealtimeConfig()).core == 1
    assert enter_realtime(RealtimeConfig(pin_cores=False)).core is None
    assert pinned == [{1}]


def test_nothing_granted_without_being_asked_for_gives_no_warning(unfrozen):
    granted = enter_realtime(RealtimeConfig(enabled=False))
    assert granted == Granted()
    assert granted.warning == ""
    assert not gc.isenabled()
    leave_realtime()
    assert gc.isenabled()


def test_a_policy_process_that_may_not_be_moved_goes_on(monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "nice", lambda _: 0)
    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    be_nice(10, {0})
