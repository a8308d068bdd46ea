"""Metrics on disk."""

import json
import math
from pathlib import Path

from vla.training.track import JsonlTracker, TrackerGroup, read_jsonl


def test_rows_are_json_objects_with_their_step(tmp_path: Path):
    tracker = JsonlTracker(tmp_path / "metrics.jsonl")
    tracker.log({"loss": 2.5}, 10)
    tracker.log({"loss": math.nan}, 20)
    tracker.close()
    assert read_jsonl(tmp_path / "metrics.jsonl") == [
        {"step": 10, "loss": 2.5},
        {"step": 20, "loss": None},
    ]


def test_a_resumed_run_replaces_the_rows_it_writes_again_and_a_torn_line_is_dropped(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    rows = [{"step": step, "loss": float(step)} for step in (5, 10, 15)]
    path.write_text(
        "".join(json.dumps(row) + "\n" for row in rows) + '{"step": 2', encoding="utf-8"
    )
    tracker = JsonlTracker(path, keep_rows=True)
    tracker.log({"loss": 100.0}, 10)
    tracker.close()
    assert read_jsonl(path) == [{"step": 5, "loss": 5.0}, {"step": 10, "loss": 100.0}]


def test_a_fresh_run_starts_an_empty_file(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 1.0}\n', encoding="utf-8")
    tracker = JsonlTracker(path)
    tracker.log({"loss": 3.0}, 7)
    tracker.close()
    assert [row["step"] for row in read_jsonl(path)] == [7]


def test_a_tracker_that_fails_is_dropped_and_the_others_go_on(tmp_path: Path):
    class Broken:
        def log(self, metrics: dict[str, float], step: int) -> None:
            raise ConnectionError("no network")

        def close(self) -> None:
            raise AssertionError("a dropped tracker is not used again")

    group = TrackerGroup([Broken(), JsonlTracker(tmp_path / "metrics.jsonl")])
    for step in (1, 2):
        group.log({"loss": 0.0}, step)
    group.close()
    assert len(read_jsonl(tmp_path / "metrics.jsonl")) == 2
