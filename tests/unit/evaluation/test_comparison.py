import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from vla.errors import VlaError
from vla.evaluation import html
from vla.evaluation.claims import Claim, better, judge
from vla.evaluation.comparison import (
    ArmShown,
    Column,
    ExperimentShown,
    Results,
    Run,
    load_results,
    unmatched,
)
from vla.evaluation.comparison_report import QUICK, findings_page, markdown, page, shown
from vla.evaluation.estimates import Estimate, bare, nothing

EXPERIMENT = ExperimentShown(
    name="ropes",
    title="1-D against 2-D",
    question="Which turns better?",
    arms=[ArmShown(name="two", title="2-D"), ArmShown(name="one", title="1-D | plain")],
    columns=[
        Column(name="vqa", title="VQA"),
        Column(name="ap50", title="AP50"),
        Column(name="action_cpu_ms", title="CPU ms", is_share=False, unit="ms"),
    ],
)
CURVES = ExperimentShown(
    name="curves",
    title="Over batch sizes",
    question="How do they grow?",
    arms=[
        ArmShown(name=f"{series}_{size}", title=f"{series} {size}", series=series, x=float(size))
        for series in ("sigmoid", "softmax")
        for size in (16, 64)
    ],
    columns=[Column(name="vqa", title="R@1")],
    x_label="pairs",
)
CLAIM = Claim(
    name="two", says="The 1-D ordering is incompatible.", test="2-D minus 1-D", experiment="ropes",
    sum_of=better("two", "one", "vqa"),
)  # fmt: skip


def run(experiment: str, arm: str, seed: int, value: float, **facts: float) -> Run:
    estimate = Estimate(
        value=value, low=value - 0.05, high=value + 0.05, n=50, num_pictures=50, method="Wilson"
    )
    return Run(experiment=experiment, arm=arm, seed=seed, metrics={"vqa": estimate}, facts=facts)


def results(*, is_quick: bool = False) -> Results:
    runs = [run("ropes", "two", seed, 0.8, parameters=2e6, action_cpu_ms=3.0) for seed in range(3)]
    runs += [run("ropes", "one", seed, 0.5, parameters=3e6) for seed in range(2)]
    runs += [run("curves", arm.name, 0, 0.6) for arm in CURVES.arms]
    runs.append(Run(experiment="ropes", arm="one", seed=2, failure="answers-1: out of memory"))
    return Results(runs=runs, is_quick=is_quick)


def test_results_come_back_from_their_file(tmp_path: Path):
    path = tmp_path / "results.json"
    before = results()
    path.write_text(json.dumps(before.to_dict()))
    assert load_results(path) == before


def test_a_figure_that_is_not_finite_comes_back_from_null(tmp_path: Path):
    path = tmp_path / "results.json"
    runs = [Run(experiment="ropes", arm="one", seed=0, metrics={"ap50": nothing("none")})]
    content = Results(runs=runs).to_dict()
    content["runs"][0]["metrics"]["ap50"] |= {"value": None, "low": None, "high": None}
    path.write_text(json.dumps(content))
    estimate = load_results(path).runs[0].metrics["ap50"]
    assert math.isnan(estimate.value)
    assert (estimate.low, estimate.high) == (-math.inf, math.inf)


@pytest.mark.parametrize("text", ["", "{}", '{"format": "vla-comparison", "version": 99}'])
def test_a_file_of_something_else_is_refused(tmp_path: Path, text: str):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(VlaError, match=r"vla compare|this version"):
        load_results(path)


def test_arms_of_different_size_are_named():
    assert (
        unmatched(results(), EXPERIMENT, "parameters", 0.1)
        == "2,000,000 (2-D) to 3,000,000 (1-D | plain)"
    )
    assert unmatched(results(), EXPERIMENT, "parameters", 0.6) == ""
    assert unmatched(results(), EXPERIMENT, "nothing", 0.1) == ""


def test_the_table_has_means_over_seeds_costs_and_dashes():
    text = markdown(results(), [EXPERIMENT])
    assert "| arm | VQA | CPU ms | seeds |" in text  # AP50 was measured of nobody
    assert "| 2-D | 80.0 % (77.1 to 82.9; n 150) | 3.0 ms | 3 |" in text
    assert "| 1-D \\| plain | 50.0 % (46.5 to 53.5; n 100) | - | 2 |" in text
    assert "Parameters differ by more than a tenth" in text
    assert QUICK not in text


def test_a_quick_comparison_says_that_its_figures_mean_nothing():
    quick = results(is_quick=True)
    assert QUICK in markdown(quick, [EXPERIMENT])
    assert QUICK in html.render(page(quick, [EXPERIMENT], [], "vla compare --quick"))


def test_the_page_shows_charts_claims_and_what_failed():
    found = judge([CLAIM], results())
    text = html.render(page(results(), [EXPERIMENT, CURVES], found, "vla compare"))
    assert text.count("<svg") == 2  # bars of VQA, and lines over batch sizes
    assert text.count("<polyline") == 2
    assert "holds here" in text
    assert "out of memory" in text
    assert "+30.0" in text


def test_the_findings_are_sorted_by_their_verdicts():
    unknown = Claim(
        name="ap", says="Boxes are better.", test="AP50", experiment="ropes",
        sum_of=better("two", "one", "ap50"),
    )  # fmt: skip
    found = judge([unknown, CLAIM], results())
    text = findings_page(results(), [EXPERIMENT], found, "vla compare")
    assert text.index("## Holds here") < text.index("incompatible") < text.index("## Not measured")
    assert text.index("## Not measured") < text.index("Boxes are better")
    assert "+30.0 (+" in text
    assert "2 seeds" in text
    assert text.count("| arm |") == 1
    assert "Of 2 claims: 1 holds here, 1 not measured." in text


@pytest.mark.parametrize(
    ("value", "options", "text"),
    [
        (0.5, {}, "50.0 % (45.0 to 55.0)"),
        (0.5, {"has_count": True}, "50.0 % (45.0 to 55.0; n 50)"),
        (0.98, {}, "98.0 % (93.0 to 100.0)"),  # a share goes no further
        (0.5, {"is_signed": True}, "+50.0 (+45.0 to +55.0)"),
        (3.0, {"is_share": False}, "3.0 (3.0 to 3.0)"),
        (3.0, {"is_share": False, "scale": 1000.0, "unit": "mm"}, "3000.0 mm (2950.0 to 3050.0)"),
        (math.nan, {}, "-"),
    ],
)
def test_a_figure_is_written_with_its_interval(value, options, text):
    estimate = run("ropes", "two", 0, value).metrics["vqa"]
    assert shown(estimate, **options) == text


def test_a_figure_without_an_interval_is_written_alone():
    assert shown(bare(0.25)) == "25.0 %"


def test_columns_of_a_group_have_a_table_of_their_own():
    columns = [
        Column(name="vqa", title="VQA", group="answers"),
        Column(name="parameters", title="parameters", is_share=False, group="cost"),
    ]
    text = markdown(results(), [replace(EXPERIMENT, columns=columns)])
    assert "**Answers**\n\n| arm | VQA | seeds |" in text
    assert "**Cost**\n\n| arm | parameters | seeds |" in text


def test_what_is_not_there_yet_is_said():
    waiting = replace(CURVES, name="waiting", title="Still to come")
    half = replace(results(), settings={"seeds": [0, 1, 2]})
    part = replace(half.runs[0], num_missing=2)
    half = replace(half, runs=[part, *half.runs[1:]])
    for text in (
        markdown(half, [EXPERIMENT, waiting]),
        findings_page(half, [EXPERIMENT, waiting], judge([CLAIM], half), "vla compare"),
    ):
        assert "Unfinished: 4 of 18 runs" in text
        assert "Not measured yet." in text
        assert "| 2 + 1 in part |" in text
    assert "Not measured yet." in html.render(page(half, [waiting], [], "vla compare"))


def test_an_effect_of_one_seed_says_so():
    one = replace(results(), runs=[one for one in results().runs if one.seed == 0])
    assert "one seed" in findings_page(one, [EXPERIMENT], judge([CLAIM], one), "vla compare")
