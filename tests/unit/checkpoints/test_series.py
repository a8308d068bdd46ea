from pathlib import Path

import pytest

from vla.checkpoints import native
from vla.checkpoints.native import find
from vla.checkpoints.series import CheckpointSeries
from vla.data.atomic import replacing_directory
from vla.errors import CheckpointError


def _write(directory: Path) -> None:
    with replacing_directory(directory) as temporary:
        (temporary / native.CONFIG).write_text("{}")


def test_the_newest_checkpoint_is_the_latest_and_older_ones_go(tmp_path):
    series = CheckpointSeries(tmp_path)
    assert series.latest() is None
    for step in (10, 20, 100):
        series.save(step, _write)
    assert series.latest() == (tmp_path / "step-00000100").resolve()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-00000100"]


def test_as_many_are_kept_as_asked_for(tmp_path):
    series = CheckpointSeries(tmp_path, keep=2)
    for step in (1, 2, 3):
        series.save(step, _write)
    assert sorted(path.name for path in tmp_path.glob("step-*")) == [
        "step-00000002",
        "step-00000003",
    ]


def test_a_save_that_dies_keeps_the_previous_one_and_its_remains_are_cleared(tmp_path):
    series = CheckpointSeries(tmp_path)
    series.save(1, _write)

    def killed(directory: Path) -> None:
        (directory.parent / f".{directory.name}.77.tmp").mkdir()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        series.save(2, killed)
    assert series.latest() == (tmp_path / "step-00000001").resolve()
    series.save(3, _write)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-00000003"]


def test_a_step_can_be_saved_again(tmp_path):
    series = CheckpointSeries(tmp_path)
    for _ in range(2):
        series.save(5, _write)
    assert series.latest() == (tmp_path / "step-00000005").resolve()


def test_a_run_folder_stands_for_its_latest_checkpoint(tmp_path):
    CheckpointSeries(tmp_path / "checkpoints").save(4, _write)
    expected = (tmp_path / "checkpoints" / "step-00000004").resolve()
    for path in (tmp_path, tmp_path / "checkpoints", tmp_path / "checkpoints/latest", expected):
        assert find(path) == expected
    with pytest.raises(CheckpointError, match="no checkpoint"):
        find(tmp_path / "elsewhere")
