"""The quick form of the comparison for real: every verb that it is made of, on tiny data, and a report at the end."""

import json
from pathlib import Path

import pytest

from vla.cli.main import main


def compare(folder: Path, *settings: str) -> dict:
    status = main(
        [
            "compare",
            "--quick",
            "seeds=[0]",
            *settings,
            f"work={folder}/steps",
            f"run_directory={folder}/run",
        ]
    )
    summary = json.loads((folder / "run" / "summary.json").read_text())
    assert summary["failures"] == {}
    assert status == 0
    return summary


def test_one_arm_goes_all_the_way_from_scenes_to_success(tmp_path: Path):
    compare(tmp_path, "only=[generations.paligemma]")
    (run,) = json.loads((tmp_path / "run" / "results.json").read_text())["runs"]
    wanted = {
        "retrieval",
        "vqa/all",
        "success/reach",
        "success_hard",
        "success_paraphrased",
        "success_swapped",
    }
    assert wanted <= set(run["metrics"])
    assert run["facts"]["image_tokens"] == 64
    assert run["facts"]["cpu_seconds"] > 0
    assert "mean nothing" in (tmp_path / "run" / "table.md").read_text()
    assert "mean nothing" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.slow
def test_every_arm_of_every_experiment_runs(tmp_path: Path):
    summary = compare(tmp_path)
    assert "not_measured" not in summary["verdicts"].values()
