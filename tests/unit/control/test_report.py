import math

import numpy as np
import pytest

from vla.control.checks import Check
from vla.control.log import Mode, TickLog
from vla.control.report import action_facts, deadline_facts, latency_facts, stall_facts

DT = 0.01


def rows(**columns: list[float]) -> dict[str, np.ndarray]:
    return {name: np.asarray(values) for name, values in columns.items()}


def test_lateness_is_summed_up_in_milliseconds():
    facts = deadline_facts(
        rows(lateness_s=[0.0, 0.001, 0.002, 0.003], work_s=[0.001] * 4, skipped=[0] * 4), DT
    )
    assert (facts["ticks"], facts["misses"]) == (4, 0)
    assert facts["p50_ms"] == pytest.approx(1.5)
    assert facts["max_ms"] == pytest.approx(3.0)


def test_a_missed_deadline_began_more_than_one_period_late_or_not_at_all():
    facts = deadline_facts(
        rows(lateness_s=[0.0, 0.011, 0.01, 0.0], work_s=[0.0] * 4, skipped=[0, 0, 0, 3]), DT
    )
    assert facts["misses"] == 1 + 3


def test_the_histogram_counts_every_tick_and_ends_at_the_largest_lateness():
    lateness = [0.00001, 0.0001, 0.0007, 0.03, 0.08]
    histogram = deadline_facts(rows(lateness_s=lateness, work_s=[0.0] * 5, skipped=[0] * 5), DT)[
        "lateness_histogram"
    ]
    assert sum(histogram["counts"]) == 5
    assert histogram["edges_ms"][-1] == pytest.approx(80.0)
    assert len(histogram["edges_ms"]) == len(histogram["counts"]) + 1


def test_perfect_deadlines_have_a_histogram_too():
    facts = deadline_facts(rows(lateness_s=[0.0, 0.0], work_s=[0.0, 0.0], skipped=[0, 0]), DT)
    assert sum(facts["lateness_histogram"]["counts"]) == 2


def test_the_age_of_actions_counts_only_ticks_that_carried_one_out():
    mode = [Mode.START, Mode.MOVE, Mode.MOVE, Mode.HOLD]
    facts = action_facts(rows(mode=mode, action_age_s=[np.nan, 0.1, 0.12, np.nan]), DT)
    assert facts["action_age_p50_ms"] == pytest.approx(110.0)
    assert facts["action_age_max_ms"] == pytest.approx(120.0)
    assert facts["seconds_by_mode"] == pytest.approx(
        {"start": 0.01, "move": 0.02, "wait": 0.0, "hold": 0.01}
    )


def test_a_stall_is_measured_from_its_beginning_and_the_recovery_from_its_end():
    modes = [Mode.MOVE] * 5 + [Mode.HOLD] * 10 + [Mode.MOVE] * 5
    speed = [0.5] * 5 + [0.3, 0.1] + [0.0] * 8 + [0.2] * 5
    log = rows(time_s=np.arange(20) * DT, mode=modes, velocity=np.tile(speed, (7, 1)).T)
    facts = stall_facts(log, began_s=0.025, lasted_s=0.1)
    assert facts["held_after_ms"] == pytest.approx(25.0)
    assert facts["at_rest_after_ms"] == pytest.approx(45.0)
    assert facts["resumed_after_ms"] == pytest.approx(25.0)


def test_what_did_not_happen_is_none():
    log = rows(time_s=np.arange(5) * DT, mode=[Mode.MOVE] * 5, velocity=np.zeros((5, 7)))
    facts = stall_facts(log, began_s=0.03, lasted_s=1.0)
    assert (facts["held_after_ms"], facts["at_rest_after_ms"], facts["resumed_after_ms"]) == (
        None,
        None,
        None,
    )


def test_without_answers_there_is_no_latency():
    facts = latency_facts([])
    assert facts["answers"] == 0
    assert math.isnan(facts["answer_p50_ms"])


def test_holds_are_counted_as_stretches_by_the_check_that_began_them():
    log = TickLog(10, 7)
    for check in (Check.POLICY_LATE, Check.POLICY_LATE, None, Check.POLICY_LATE, Check.WORKSPACE):
        if check is None:
            log.no_hold()
        else:
            log.hold(check, "why", 0.0)
    facts = log.hold_facts()
    assert facts["holds"] == 3
    assert facts["hold_reasons"] == {"policy_late": 2, "workspace": 1}
    assert [hold["ticks"] for hold in facts["hold_list"]] == [2, 1, 1]


def test_a_full_log_counts_on_without_growing():
    log = TickLog(3, 7)
    for index in range(5):
        log.add(index=index)
    assert log.num_ticks == 5
    np.testing.assert_array_equal(log.rows()["index"], [0, 1, 2])
