"""Plans that name what exists, and whole comparisons with a runner that makes figures up."""

import dataclasses
import importlib
import json
import re
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from vla.cli import config
from vla.cli.compare import command as compare
from vla.cli.compare import runners
from vla.cli.compare.claims import all_claims
from vla.cli.compare.command import CompareConfig, chosen_experiments
from vla.cli.compare.experiments import all_experiments
from vla.cli.compare.plan import Arm, Read, Reading, estimate_of, read_arm, run_arm
from vla.cli.compare.sizes import QUICK, Sizes
from vla.cli.compare.steps import Ended, Step, Workshop
from vla.cli.verbs import VERBS
from vla.errors import ConfigError
from vla.evaluation.comparison import load_results


def level(name: str) -> Sizes:
    return config.compose("compare", CompareConfig, [f"sizes={name}"]).sizes


SIZES = {"quick": QUICK, "full": Sizes(), "laptop": level("laptop")}


def figure(value: float) -> dict[str, Any]:
    return {
        "value": value, "low": value - 0.05, "high": value + 0.05, "n": 40, "num_pictures": 20,
        "method": "Wilson",
    }  # fmt: skip


def made_up(verb: str, settings: Sequence[str], folder: Path) -> Ended:
    """Says what the verb would say; prefix-LM and pretrained weights come out better."""
    value = 0.5 + 0.2 * any(
        "prefix_lm" in text or "keeps_weights=true" in text for text in settings
    )
    vqa = {kind: figure(value) for kind in ("all", "relation", "detail", "wide", "motion")}
    known = {"vqa": vqa, "vqa_held_out": vqa, "ap50": figure(value), "mask_iou": None}
    match verb:
        case "pretrain" if "stage=multimodal" in settings:
            summary = {
                **known, "cpu_seconds": 10.0, "parameters": 100, "metrics": {"token_accuracy": value},
            }  # fmt: skip
        case "pretrain":
            metrics = {"image_to_text_r1": value, "text_to_image_r1": value, "num_queries": 40.0}
            summary = {"metrics": metrics, "cpu_seconds": 5.0, "parameters": 50}
        case "train":
            error = {f"action_l1/{name}": 0.004 for name in ("dx", "dy", "dz")}
            metrics = {"token_accuracy_within_2": value, **error}
            summary = {**known, "cpu_seconds": 20.0, "samples": 640, "metrics": metrics}
        case "eval":
            summary = {"success_rate": 0.75, "low": 0.6, "high": 0.86, "episodes": 40}
        case "bench":
            summary = {
                "parameters": 120,
                "image_tokens": 64,
                "forward_mflop": 9.5,
                "action_cpu_ms": 3,
            }
        case _:
            summary = known
    return Ended(summary={"status": "ok", **summary}, cpu_seconds=1.0)


def all_steps(sizes: Sizes) -> dict[str, Step]:
    return {
        key: step
        for experiment in all_experiments(sizes)
        for arm in experiment.arms
        for reading in arm.readings(0)
        for key, step in reading.step.chain().items()
    }


def test_every_setting_of_every_step_composes(tmp_path: Path):
    # Settings that do not contradict each other are tried together: composing takes a while.
    commands: list[tuple[str, dict[str, str]]] = []
    every = {key: step for sizes in SIZES.values() for key, step in all_steps(sizes).items()}
    for step in every.values():
        places = {name: str(tmp_path) for name in (*step.needs, "made")}
        settings = dict(text.format(**places).split("=", 1) for text in step.settings)
        for verb, known in commands:
            if verb == step.verb and not _contradict(known, settings):
                known |= settings
                break
        else:
            commands.append((step.verb, settings))
    for verb, settings in commands:
        module = importlib.import_module(VERBS[verb].module)
        config_class = typing.get_type_hints(module.run)["cfg"]
        overrides = [f"{key}={value}" for key, value in settings.items()]
        cfg = config.compose(VERBS[verb].config_name, config_class, overrides)
        assert isinstance(cfg, config_class)


def _contradict(one: dict[str, str], other: dict[str, str]) -> bool:
    """Whether they say different words of the same setting; numbers and lists are all alike."""
    is_word = re.compile(r"(?!null)[a-z_]+").fullmatch
    return any(
        one[key] != other[key] and is_word(one[key]) and is_word(other[key])
        for key in one.keys() & other.keys()
    )


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_arms_of_an_experiment_do_different_things_and_seeds_too(sizes: Sizes):
    for experiment in all_experiments(sizes):
        runs = {
            (arm.name, seed): tuple(reading.step.key for reading in arm.readings(seed))
            for arm in experiment.arms
            for seed in (0, 1)
        }
        assert len(set(runs.values())) == len(runs), experiment.name


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_every_claim_is_about_figures_that_its_arms_give(sizes: Sizes):
    given = {
        (experiment.name, arm.name): [
            *(name for reading in arm.readings(0) for name in reading.metrics),
            *arm.means,
        ]
        for experiment in all_experiments(sizes)
        for arm in experiment.arms
    }
    for claim in all_claims(sizes):
        for term in claim.sum_of:
            names = given[claim.experiment, term.arm]
            assert term.metric in names or term.metric.partition("/")[0] in names, claim.name


@pytest.mark.parametrize(
    ("name", "total"), [("full", 300 + 900 + 1800 + 3600), ("laptop", 80 + 130 + 180)]
)
def test_arms_of_the_main_table_train_for_the_same_time(name: str, total: float):
    (generations, *_) = all_experiments(SIZES[name])
    budgets = {}
    for arm in generations.arms:
        chain = {k: s for reading in arm.readings(0) for k, s in reading.step.chain().items()}
        seconds = [
            float(text.partition("=")[2])
            for step in chain.values()
            for text in step.settings
            if text.startswith("training.max_cpu_seconds=")
        ]
        budgets[arm.name] = sum(seconds)
    assert set(budgets.values()) == {total}
    assert len(budgets) == 7


def test_the_smaller_level_takes_six_hours_of_training_at_most():
    seconds = {
        (seed, key): float(text.partition("=")[2])
        for seed in (0, 1, 2)
        for experiment in all_experiments(SIZES["laptop"])
        for arm in experiment.arms
        for reading in arm.readings(seed)
        for key, step in reading.step.chain().items()
        for text in step.settings
        if text.startswith("training.max_cpu_seconds=")
    }
    assert sum(seconds.values()) < 4.4 * 3600  # data, episodes and questions come on top


def test_the_level_that_is_typed_is_the_one_that_runs(tmp_path: Path):
    assert level("full") == Sizes(name="full")
    laptop = level("laptop")
    assert laptop.name == "laptop"
    assert laptop.conditions == ["reach"]
    assert not laptop.has_masks
    assert all("codec" not in step.needs for step in all_steps(laptop).values())
    with pytest.raises(ConfigError, match="unknown task 'juggle'"):
        Sizes(episodes_of={"juggle": 3})


def test_every_choice_of_sizes_is_the_one_it_is_named_after():
    assert {name: level(name).name for name in config.group_choices("sizes")} == {
        "full": "full",
        "laptop": "laptop",
    }


def test_equal_steps_of_different_experiments_are_shared():
    steps = all_steps(Sizes())
    towers = [step for step in steps.values() if step.name == "tower_siglip"]
    # Two and four blocks of the main table, whose batches of 64 are one of the three batch sizes, too.
    assert len(towers) == 2 + 2
    assert sum(step.name == "mask_codec" for step in steps.values()) == 1


@pytest.mark.parametrize(
    ("value", "n", "expected"),
    [
        (figure(0.4), None, (0.4, 0.35, 0.45, 40)),
        ({"success_rate": 0.5, "low": 0.2, "high": 0.8, "episodes": 10}, None, (0.5, 0.2, 0.8, 10)),
        (0.5, 4.0, (0.5, 0.15, 0.85, 4)),
    ],
)
def test_a_summarys_figure_becomes_an_estimate(value, n, expected):
    estimate = estimate_of(value, n)
    assert estimate is not None
    found = (estimate.value, estimate.low, estimate.high, estimate.n)
    assert found == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    "value", [None, 0.5, "0.5", {"value": None}, {"success_rate": None, "episodes": 0}]
)
def test_what_was_not_measured_is_no_estimate(value):
    assert estimate_of(value) is None


def test_an_arm_whose_step_fails_keeps_what_the_others_said(tmp_path: Path):
    data = Step(name="data", verb="collect", settings=["root={made}"])
    good = Step(name="good", verb="eval", settings=[], needs={"data": data})
    bad = Step(name="bad", verb="train", settings=[], needs={"data": data})
    after = Step(name="after", verb="eval", settings=["policy={bad}"], needs={"bad": bad})
    tried: list[str] = []

    def runner(verb: str, settings: Sequence[str], folder: Path) -> Ended:
        tried.append(folder.name)
        if verb == "train":
            return Ended(summary={"status": "failed", "error": "no memory"}, cpu_seconds=1.0)
        return made_up(verb, settings, folder)

    success = {"success": Read(path=".")}
    steps = [good, bad, after, dataclasses.replace(after, name="again")]
    arm = Arm(
        name="one",
        title="one",
        readings=lambda seed: [Reading(step=step, metrics=success) for step in steps],
    )
    run = run_arm(Workshop(root=tmp_path, runner=runner), "test", arm, 0)
    assert run.metrics["success"].value == 0.75
    assert "no memory" in run.failure
    assert tried == [data.key, good.key, bad.key]  # once, however many want it
    assert read_arm(Workshop(root=tmp_path, runner=runner), "test", arm, 0).failure == ""


def compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runner: Any, **changes: Any) -> Any:
    monkeypatch.setattr(runners, "run_as_process", runner)
    cfg = CompareConfig(work=tmp_path / "work", **changes)
    directory = tmp_path / "run"
    directory.mkdir(exist_ok=True)
    return compare.run(cfg, directory), directory


def test_a_whole_comparison_reports_and_is_not_run_twice(tmp_path: Path, monkeypatch):
    findings = tmp_path / "docs" / "findings.md"
    summary, directory = compared(tmp_path, monkeypatch, made_up, findings=findings, seeds=[0, 1])
    assert "exit_code" not in summary
    results = load_results(directory / "results.json")
    assert not results.is_quick
    assert len({run.arm for run in results.runs if run.experiment == "generations"}) == 7
    assert all(run.facts["cpu_seconds"] > 0 for run in results.runs)
    assert summary["verdicts"]["prefix_lm"] == "holds"
    assert (
        summary["verdicts"]["pretraining_10"] == "undecided"
    )  # success is the same, but not surely
    assert "not_measured" not in summary["verdicts"].values()
    assert "Causal masking" in findings.read_text()
    table = (directory / "table.md").read_text()
    assert "| Qwen2-VL | - | 50.0 %" in table
    assert "| Qwen2-VL | 50.0 % (50.0 to 50.0) | 4.0 mm" in table  # of two seeds that agree
    assert "Unfinished" not in table
    assert "<svg" in (directory / "report.html").read_text()

    def refused(verb: str, settings: Sequence[str], folder: Path) -> Ended:
        raise AssertionError(f"{folder.name} ran again")

    again, _ = compared(tmp_path, monkeypatch, refused, seeds=[0, 1])
    assert again["verdicts"] == summary["verdicts"]


def test_what_fails_is_reported_and_tried_again_later(tmp_path: Path, monkeypatch):
    def failing(verb: str, settings: Sequence[str], folder: Path) -> Ended:
        if "attention=causal" in " ".join(settings):
            return Ended(summary={"status": "failed", "error": "no memory"}, cpu_seconds=1.0)
        return made_up(verb, settings, folder)

    changes: dict[str, Any] = {"only": ["prefix"], "seeds": [0]}
    summary, directory = compared(tmp_path, monkeypatch, failing, **changes)
    assert summary["exit_code"] == 1
    assert list(summary["failures"]) == ["prefix.causal.0"]
    assert summary["verdicts"] == {"prefix_lm": "not_measured"}
    assert "no memory" in (directory / "report.html").read_text()
    later, _ = compared(tmp_path, monkeypatch, made_up, **changes)
    assert later["failures"] == {}
    assert later["verdicts"] == {"prefix_lm": "holds"}


def test_a_report_of_what_is_done_runs_nothing(tmp_path: Path, monkeypatch):
    compared(tmp_path, monkeypatch, made_up, only=["prefix"], seeds=[0])
    summary, directory = compared(tmp_path, monkeypatch, None, report_only=True)
    results = load_results(directory / "results.json")
    assert {run.experiment for run in results.runs} == {"prefix"}
    assert summary["verdicts"]["prefix_lm"] == "holds"
    assert summary["verdicts"]["mrope"] == "not_measured"
    table = (directory / "table.md").read_text()
    assert "Unfinished: 2 of" in table
    assert "Not measured yet." in table


def test_without_a_figure_no_page_of_findings_is_written(tmp_path: Path, monkeypatch):
    page = tmp_path / "findings.md"
    compared(tmp_path, monkeypatch, None, report_only=True, findings=page)
    assert not page.exists()


def test_experiments_and_arms_can_be_chosen():
    chosen = chosen_experiments(["generations.gemma4", "prefix"], QUICK)
    assert {one.name: [arm.name for arm in one.arms] for one in chosen} == {
        "generations": ["gemma4"],
        "prefix": ["prefix_lm", "causal"],
    }
    with pytest.raises(ConfigError, match=r"unknown experiment or arm 'generation'.*generations"):
        chosen_experiments(["generation"], QUICK)


def test_quick_figures_are_no_findings():
    with pytest.raises(ConfigError, match="finds nothing out"):
        CompareConfig(quick=True, findings=Path("findings.md"))


def test_the_results_say_how_the_comparison_was_made(tmp_path: Path, monkeypatch):
    _, directory = compared(tmp_path, monkeypatch, made_up, only=["prefix"], seeds=[0])
    content = json.loads((directory / "results.json").read_text())
    assert content["settings"]["sizes"]["experiment_seconds"] == 900.0
    folder = Path(next(iter(content["runs"][0]["folders"].values())))
    assert (folder / "done.json").exists()
