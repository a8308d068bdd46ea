"""Steps run once, in order, shared where they are equal, and go on after a failure; mostly with a fake runner."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from vla.cli.compare.runners import run_as_process, run_in_process
from vla.cli.compare.steps import Ended, Step, StepError, Workshop
from vla.errors import VlaError


class Notes:
    """Notes what it was to run; steps named in `failing` fail."""

    def __init__(self, failing: Sequence[str] = (), cpu_seconds: float = 2.0) -> None:
        self.ran: list[tuple[str, list[str]]] = []
        self.failing, self.cpu_seconds = set(failing), cpu_seconds

    def __call__(self, verb: str, settings: Sequence[str], folder: Path) -> Ended:
        self.ran.append((verb, list(settings)))
        name = folder.name.rpartition("-")[0]
        summary: dict[str, Any] = {"status": "ok", "name": name}
        if name in self.failing:
            summary = {"status": "failed", "error": "out of memory", "exit_code": 1}
        return Ended(summary=summary, cpu_seconds=self.cpu_seconds)


def data() -> Step:
    return Step(name="data", verb="collect", settings=["root={made}"], makes="set")


def model(seed: int = 0) -> Step:
    settings = ["data.roots=[{data}]", f"training.seed={seed}"]
    return Step(name="model", verb="train", settings=settings, needs={"data": data()})


def test_what_a_step_needs_is_made_first_and_named_in_its_settings(tmp_path: Path):
    notes = Notes()
    made = Workshop(root=tmp_path, runner=notes).make(model())
    folder = tmp_path / data().key
    assert notes.ran == [
        ("collect", [f"root={folder}/set"]),
        ("train", [f"data.roots=[{folder}/set]", "training.seed=0"]),
    ]
    assert made.summary["name"] == "model"
    assert made.command == ["vla", "train", f"data.roots=[{folder}/set]", "training.seed=0"]


def test_what_is_done_is_not_done_again_and_shared_steps_are_made_once(tmp_path: Path):
    notes = Notes()
    Workshop(root=tmp_path, runner=notes).make(model(0))
    later = Notes()
    workshop = Workshop(root=tmp_path, runner=later)
    again, other = workshop.make(model(0)), workshop.make(model(1))
    assert [verb for verb, _ in later.ran] == ["train"]  # of seed 1; the data are there
    assert again.cpu_seconds == 2.0
    assert other.folder != again.folder


def test_a_changed_setting_runs_anew_and_so_does_what_stands_on_it():
    changed = Step(name="data", verb="collect", settings=["episodes=5", "root={made}"], makes="set")
    onto = Step(name="model", verb="train", settings=model().settings, needs={"data": changed})
    assert changed.key != data().key
    assert onto.key != model().key
    assert list(onto.chain()) == [changed.key, onto.key]


def test_the_folder_of_the_comparison_does_not_matter(tmp_path: Path):
    step = model()
    Workshop(root=tmp_path / "here", runner=Notes()).make(step)
    (tmp_path / "here").rename(tmp_path / "there")
    notes = Notes()
    Workshop(root=tmp_path / "there", runner=notes).make(step)
    assert notes.ran == []


def test_a_failed_step_says_why_and_its_next_attempt_counts_all_it_cost(tmp_path: Path):
    with pytest.raises(StepError, match=r"model-\w+: out of memory; look into"):
        Workshop(root=tmp_path, runner=Notes(failing=["model"])).make(model())
    workshop = Workshop(root=tmp_path, runner=Notes(cpu_seconds=3.0))
    assert workshop.done(model()) is None
    assert workshop.make(model()).cpu_seconds == 5.0


def test_a_placeholder_that_nothing_fills_is_named(tmp_path: Path):
    step = Step(
        name="model", verb="train", settings=["data.roots=[{dtaa}]"], needs={"data": data()}
    )
    with pytest.raises(VlaError, match=r"names 'dtaa'; the step needs \['data', 'made'\]"):
        Workshop(root=tmp_path, runner=Notes()).make(step)


def test_a_folder_with_a_space_is_quoted(tmp_path: Path):
    notes = Notes()
    Workshop(root=tmp_path / "my runs", runner=notes).make(data())
    assert notes.ran[0][1] == [f"root='{tmp_path}/my runs/{data().key}/set'"]


SIMULATE = ["name=env", "steps=2", "env.image_size=16"]


def test_a_verb_can_run_in_this_process_and_an_error_becomes_its_summary(tmp_path: Path):
    ended = run_in_process("bench", SIMULATE, tmp_path)
    assert ended.summary["status"] == "ok"
    assert json.loads((tmp_path / "summary.json").read_text()) == ended.summary
    failed = run_in_process("bench", ["name=env", "env.task=nowhere"], tmp_path)
    assert failed.summary["status"] == "failed"
    assert "nowhere" in failed.summary["error"]


def test_a_verb_can_run_as_a_process_whose_processor_time_is_counted(tmp_path: Path):
    ended = run_as_process("bench", SIMULATE, tmp_path)
    assert ended.summary["status"] == "ok"
    assert ended.cpu_seconds > 0.05


def test_a_process_that_leaves_no_summary_is_a_failure(tmp_path: Path):
    (tmp_path / "summary.json").write_text('{"status": "ok"}')  # of an earlier attempt
    ended = run_as_process("nonsense", [], tmp_path)
    assert ended.summary["exit_code"] == 1
    assert "output.txt" in ended.summary["error"]
    assert "unknown verb 'nonsense'" in (tmp_path / "output.txt").read_text()
