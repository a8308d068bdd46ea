import json

import numpy as np
import pytest

from vla.evaluation.episode import Episode
from vla.evaluation.report import summarize, table


def _episodes():
    return [
        Episode(seed=1, task="pick_cube", is_success=True, steps=10, handled="red cube"),
        Episode(seed=2, task="pick_cube", failure="wrong_object", steps=20, handled="blue cube"),
        Episode(seed=3, task="stack", failure="timeout", steps=30),
        Episode(seed=4, task="stack", failure="exception", error="RuntimeError: x", steps=1),
    ]


def test_an_exception_is_counted_apart_and_never_as_a_failure_of_the_policy():
    summary = summarize(_episodes())
    assert summary["episodes"] == 3
    assert summary["success_rate"] == pytest.approx(1 / 3)
    assert summary["failures"]["exception"] == 1
    assert summary["per_task"]["stack"]["episodes"] == 1
    assert summary["exceptions"] == [
        {"seed": 4, "error": "RuntimeError: x", "file": "exceptions/4.txt"}
    ]


def test_the_summary_names_every_class_of_failure_and_every_seed():
    summary = summarize(_episodes())
    assert summary["failures"] == {
        "timeout": 1,
        "dropped": 0,
        "wrong_object": 1,
        "safety_stop": 0,
        "exception": 1,
    }
    assert summary["seeds"] == [1, 2, 3, 4]
    assert summary["handled"] == {"red cube": 1, "blue cube": 1}
    assert 0 < summary["low"] < summary["success_rate"] < summary["high"] < 1


def test_the_mean_of_steps_leaves_crashed_episodes_out():
    assert summarize(_episodes())["mean_steps"] == pytest.approx(20)


def test_the_table_has_a_row_per_task_and_one_for_all():
    lines = table(summarize(_episodes())).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["pick_cube", "stack", "all"]
    assert "50.0 %" in lines[2]
    assert len({len(line) for line in lines}) == 1


def test_one_task_needs_no_row_for_all():
    assert len(table(summarize(_episodes()[:2])).splitlines()) == 3


def test_a_run_in_which_everything_crashed_still_has_a_summary():
    summary = summarize(_episodes()[3:])
    assert summary["episodes"] == 0
    assert np.isnan(summary["success_rate"])
    assert (summary["low"], summary["high"]) == (0.0, 1.0)
    assert "-" in table(summary)


def test_an_episode_is_one_line_of_json_without_its_traceback():
    episode = Episode(seed=1, failure="exception", error="x", traceback="Traceback ...")
    values = json.loads(json.dumps(episode.to_dict()))
    assert values["failure"] == "exception"
    assert "traceback" not in values
