import json
from pathlib import Path
from typing import Any

import pytest

from vla.cli import demo_report
from vla.cli.demo import DemoConfig, Finished
from vla.evaluation import html
from vla.evaluation.intervals import compare_paired
from vla.evaluation.report import summarize
from vla.evaluation.rollout import Episode

SEED = 2_000_000


def _episodes(outcomes: list[bool]) -> list[Episode]:
    return [
        Episode(
            seed=SEED + index,
            task="open_drawer",
            is_success=is_success,
            failure="" if is_success else "timeout",
            steps=30,
        )
        for index, is_success in enumerate(outcomes)
    ]


def _evaluated(directory: Path, outcomes: list[bool]) -> Finished:
    episodes = _episodes(outcomes)
    directory.mkdir(parents=True)
    lines = [json.dumps(episode.to_dict()) + "\n" for episode in episodes]
    (directory / "episodes.jsonl").write_text("".join(lines))
    (directory / "episodes.mp4").write_bytes(b"film of " + directory.name.encode())
    return Finished(command="vla eval", summary=summarize(episodes), seconds=40.0)


def _trained(directory: Path) -> Finished:
    directory.mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    for step in range(10, 210, 10):
        rows.append({"step": step, "train/loss": 5.0 - 0.01 * step})
        if step % 100 == 0:
            errors = {
                "validation/action_l1/dx": 1.0 / step,
                "validation/action_l1/dyaw": 2.0 / step,
            }
            accuracy = {"validation/token_accuracy": step / 400}
            rows.append({"step": step, "validation/loss": 5.5 - 0.01 * step, **errors, **accuracy})
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Finished(command="vla train", summary={"seconds": 240.0, "step": 200}, seconds=245.0)


@pytest.fixture
def phases(tmp_path: Path) -> tuple[Path, dict[str, Finished]]:
    work = tmp_path / "demo" / "2026-01-01" / "work"
    dataset = tmp_path / "demo" / "unfinished" / "dataset"
    deployed = {
        "misses": 1,
        "ticks": 2000,
        "rate_hz": 100.0,
        "p50_ms": 0.08,
        "p99_ms": 0.4,
        "p999_ms": 2.5,
        "max_ms": 11.25,
        "action_age_p50_ms": 60.0,
        "action_age_max_ms": 140.0,
        "limit_violations": 0,
        "holds": 2,
        "scheduling": "normal",
        "lateness_histogram": {"edges_ms": [0, 5, 10, 11.25], "counts": [1990, 9, 1]},
    }
    finished = {
        "collect": Finished(
            command=f"vla collect root='{dataset}'", summary={"episodes": 150}, seconds=60.0
        ),
        "before": _evaluated(work / "before", [False] * 46 + [True] * 4),
        "train": _trained(work / "train"),
        "after": _evaluated(work / "after", [True] * 40 + [False] * 10),
        "deploy": Finished(command="vla deploy", summary=deployed, seconds=25.0),
    }
    return work, finished


@pytest.fixture
def built(phases: tuple[Path, dict[str, Finished]]) -> tuple[dict[str, Any], str]:
    work, finished = phases
    summary, page = demo_report.build(DemoConfig(), work, finished)
    return summary, html.render(page)


def test_the_summary_holds_both_rates_with_their_intervals(built: tuple[dict[str, Any], str]):
    summary, _ = built
    before, after = summary["success_before"], summary["success_after"]
    assert (before["rate"], before["episodes"]) == (pytest.approx(0.08), 50)
    assert (after["rate"], after["episodes"]) == (pytest.approx(0.8), 50)
    assert before["high"] < after["low"]


def test_the_summary_holds_what_training_and_the_drive_measured(built: tuple[dict[str, Any], str]):
    summary, _ = built
    assert summary["train_seconds"] == 240.0
    assert summary["deadline_misses"] == 1
    assert summary["max_lateness_ms"] == 11.25
    assert summary["limit_violations"] == 0
    assert summary["phases"]["train"] == 245.0


def test_the_gain_is_paired_by_seed(built: tuple[dict[str, Any], str]):
    gain = built[0]["gain"]
    assert (gain["gained"], gain["lost"]) == (40, 4)
    assert gain["difference"] == pytest.approx(0.72)


def test_a_scene_that_crashed_once_is_left_out_of_the_comparison(
    phases: tuple[Path, dict[str, Finished]],
):
    work, finished = phases
    path = work / "after" / "episodes.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["failure"], rows[0]["is_success"] = "exception", False
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary, _ = demo_report.build(DemoConfig(), work, finished)
    assert summary["gain"]["seeds"] == 49


def test_the_report_shows_rates_units_deadlines_and_both_films(built: tuple[dict[str, Any], str]):
    _, document = built
    for text in ("80.0 %", "8.0 %", "10.00 mm", "1.15 °", "1 of 2000", "11.25 ms", "train"):
        assert text in document
    assert document.count("data:video/mp4;base64,") == 2


def test_the_commands_shown_lead_to_the_run_that_is_kept(
    built: tuple[dict[str, Any], str], phases: tuple[Path, dict[str, Finished]]
):
    _, document = built
    assert "unfinished" not in document
    assert "demo/latest/work/dataset" in document


def test_the_verdict_owns_up_to_a_difference_that_may_be_chance():
    rates = {"successes": 6, "episodes": 50}
    chance = compare_paired([True] * 5 + [False] * 45, [False] * 4 + [True] * 6 + [False] * 40)
    assert demo_report.verdict("push", rates, rates, chance).startswith("No sure gain on “push”")
    sure = compare_paired([False] * 50, [True] * 40 + [False] * 10)
    assert demo_report.verdict("push", rates, rates, sure).startswith("Fine-tuning taught")


def test_a_missed_deadline_is_drawn_in_the_colour_of_limits(built: tuple[dict[str, Any], str]):
    _, document = built
    assert document.count('<rect class="fill limit"') == 1


def test_the_film_of_the_drive_is_shown_when_there_is_one(
    phases: tuple[Path, dict[str, Finished]],
):
    work, finished = phases
    (work / "deploy").mkdir()
    (work / "deploy" / "video.mp4").write_bytes(b"film")
    finished["deploy"].summary.update({"episodes": 3, "successes": 2})
    _, page = demo_report.build(DemoConfig(), work, finished)
    assert "3 episodes finished in this time, 2 solved." in html.render(page)
