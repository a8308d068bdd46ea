import json
import logging
import math
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from vla.cli import run_directory
from vla.errors import ConfigError

NOON = datetime(2026, 1, 2, 12, 0, 5)


def test_a_run_gets_a_folder_named_after_its_start_and_two_of_one_second_do_not_collide(tmp_path):
    first = run_directory.create(tmp_path / "eval", NOON)
    second = run_directory.create(tmp_path / "eval", NOON)
    assert [first.name, second.name] == ["2026-01-02_12-00-05", "2026-01-02_12-00-05-2"]


def test_latest_points_at_the_newest_run(tmp_path):
    for _ in range(2):
        directory = run_directory.create(tmp_path, NOON)
        run_directory.point_latest(directory)
    assert (tmp_path / "latest").is_symlink()
    assert run_directory.latest(tmp_path) == directory
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_real_folder_called_latest_is_left_alone(tmp_path):
    (tmp_path / "latest").mkdir()
    with pytest.raises(ConfigError, match="is a real folder"):
        run_directory.point_latest(run_directory.create(tmp_path, NOON))


def test_without_an_earlier_run_there_is_no_latest(tmp_path):
    assert run_directory.latest(tmp_path) is None


def test_the_output_root_comes_from_the_argument_then_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("VLA_OUTPUTS", str(tmp_path / "env"))
    assert run_directory.output_root("given") == Path.cwd() / "given"
    assert run_directory.output_root() == tmp_path / "env"
    monkeypatch.delenv("VLA_OUTPUTS")
    assert run_directory.output_root() == Path.cwd() / "outputs"


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot make .*give a writable output_root"):
        run_directory.create(tmp_path / "file" / "eval", NOON)


def test_json_holds_numpy_values_and_null_for_what_is_not_finite(tmp_path):
    content = {
        "rate": np.float32(0.5),
        "none": math.nan,
        "array": np.arange(2),
        "path": tmp_path,
        "nested": [{"x": np.inf}],
    }
    run_directory.write_json(tmp_path / "summary.json", content)
    read = json.loads((tmp_path / "summary.json").read_text())
    assert read == {
        "rate": 0.5,
        "none": None,
        "array": [0, 1],
        "path": str(tmp_path),
        "nested": [{"x": None}],
    }


def test_log_records_reach_the_file_and_foreign_chatter_stays_off_the_terminal(tmp_path, capsys):
    with run_directory.RunLog(tmp_path):
        logging.getLogger("vla.x").info("ours")
        logging.getLogger("httpx").info("chatter")
        logging.getLogger("httpx").warning("trouble")
    log = (tmp_path / "run.log").read_text()
    assert all(word in log for word in ("ours", "chatter", "trouble"))
    shown = capsys.readouterr()
    assert "chatter" not in shown.out + shown.err
