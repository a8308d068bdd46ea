import pytest

from vla.control.schedule import Schedule
from vla.evaluation import html, sweep
from vla.evaluation.episode import Episode


def outcomes(successes: int, count: int = 10, steps: int = 20) -> list[Episode]:
    return [
        Episode(
            seed=seed,
            task="push",
            is_success=seed < successes,
            failure="" if seed < successes else "timeout",
            steps=steps,
        )
        for seed in range(count)
    ]


CASES = [
    sweep.case(schedule, latency_ms, outcomes(successes), 0.1)
    for schedule, latency_ms, successes in (
        (Schedule.SYNCHRONOUS, 0.0, 10),
        (Schedule.SYNCHRONOUS, 200.0, 4),
        (Schedule.REAL_TIME_CHUNKING, 0.0, 10),
        (Schedule.REAL_TIME_CHUNKING, 200.0, 9),
    )
]
STUDY = {"task": "push", "policy_name": "policy=tiny", "episodes": 10, "seed": 5, "cases": CASES}


def test_a_case_has_its_rate_its_interval_and_its_time():
    case = CASES[1]
    assert (case["success_rate"], case["episodes"], case["failures"]["timeout"]) == (0.4, 10, 6)
    assert case["low"] < 0.4 < case["high"]
    assert case["seconds_to_success"] == pytest.approx(2.0)


def test_what_is_kept_is_relative_to_the_same_scheduler_without_latency():
    assert [sweep.kept(CASES, case) for case in CASES] == [1.0, 0.4, 1.0, 0.9]


def test_nothing_can_be_kept_of_nothing():
    case = sweep.case(Schedule.SYNCHRONOUS, 0.0, outcomes(0), 0.1)
    assert sweep.kept([case], case) is None
    assert case["seconds_to_success"] is None
    assert "kept -" in sweep.text_table([case])


def test_the_table_has_a_row_per_scheduler_and_a_column_per_latency():
    head, _, *rows = sweep.text_table(CASES).splitlines()
    assert head.split() == ["scheduler", "0", "ms", "200", "ms"]
    assert [row.split("  ")[0] for row in rows] == ["synchronous", "real time chunking"]
    assert "90.0 % (60 to 98), kept 90 %, 2.0 s" in rows[1]


def test_the_page_shows_every_study_with_its_charts_and_the_loss_of_each_scheduler():
    text = html.render(sweep.page([STUDY, {**STUDY, "task": "pick_cube"}], "vla eval ..."))
    assert text.count("<svg") == 4
    assert "synchronous 40 %, real time chunking 90 %" in text
    assert "pick cube at 200 ms" in text
    assert "Wilson" in text


def test_a_scheduler_without_a_success_still_has_its_chart():
    cases = [
        sweep.case(Schedule.SYNCHRONOUS, latency, outcomes(0), 0.1) for latency in (0.0, 100.0)
    ]
    assert "<svg" in html.render(sweep.page([{**STUDY, "cases": cases}], ""))
