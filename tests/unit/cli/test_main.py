import importlib.machinery
import json
import subprocess
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from vla.cli import main as command
from vla.errors import ConfigError, DatasetError


@dataclass(kw_only=True)
class ToyConfig:
    """A verb's settings."""

    episodes: int = 2  # how many
    name: str = "latency"  # of the benchmark
    resume: bool = False  # go on


def run(cfg: ToyConfig, directory: Path) -> dict[str, Any]:
    match cfg.episodes:
        case 3:
            raise DatasetError("episode 7, frame 12: action dx is nan")
        case 4:
            raise RuntimeError("a bug\nin two lines")
        case 5:
            raise KeyboardInterrupt
        case 6:
            return {"exit_code": 1, "status": "exceptions", "episodes": 6}
    (directory / "artefact").write_text("x")
    return {"episodes": cfg.episodes}


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Returns a function that runs `vla toy ...` and gives (status, stdout, stderr, summary or None)."""
    module = types.ModuleType("toy_verb")
    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "toy_verb", module)
    monkeypatch.setattr("vla.cli.config.config_directory", lambda: tmp_path / "configs")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "toy.yaml").write_text(
        "defaults:\n  - schema\n  - _self_\nepisodes: 9\n"
    )
    plain = command.Verb(
        module="toy_verb", config_name="toy", summary="play", examples=("vla toy",)
    )
    monkeypatch.setitem(command.VERBS, "toy", plain)
    named = command.Verb(
        module="toy_verb", config_name="toy", summary="", examples=("",), positional="name"
    )
    monkeypatch.setitem(command.VERBS, "toybench", named)
    resuming = command.Verb(
        module="toy_verb", config_name="toy", summary="", examples=("",), resumes=True
    )
    monkeypatch.setitem(command.VERBS, "toytrain", resuming)
    monkeypatch.setenv("VLA_OUTPUTS", str(tmp_path / "outputs"))

    def _call(*arguments: str) -> tuple[int, str, str, dict[str, Any] | None]:
        status = command.main(list(arguments))
        shown = capsys.readouterr()
        summary = tmp_path / "outputs" / arguments[0] / "latest" / "summary.json"
        return status, shown.out, shown.err, _read(summary)

    return _call


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.exists() else None


def test_a_run_leaves_config_log_and_summary_in_its_folder(call, tmp_path):
    status, _, _, summary = call("toy", "name=x")
    latest = tmp_path / "outputs" / "toy" / "latest"
    assert status == 0
    assert summary is not None
    assert (summary["status"], summary["verb"], summary["episodes"]) == ("ok", "toy", 9)
    assert summary["overrides"] == ["name=x"]
    assert (latest / "config.yaml").read_text() == "episodes: 9\nname: x\nresume: false\n"
    assert (latest / "run.log").exists()
    assert (latest / "artefact").exists()


def test_bad_input_found_by_a_verb_is_one_line_and_status_2(call):
    status, out, err, summary = call("toy", "episodes=3")
    assert status == 2
    assert out == ""
    assert "error: episode 7, frame 12: action dx is nan\n" in err
    assert "Traceback" not in err
    assert summary is not None
    assert (summary["status"], summary["error_type"]) == ("failed", "DatasetError")


def test_an_internal_error_is_one_line_with_its_traceback_in_the_log(call, tmp_path):
    status, _, err, summary = call("toy", "episodes=4")
    assert status == 1
    assert "internal error: RuntimeError: a bug in two lines (add --debug" in err
    assert "Traceback" not in err
    assert summary is not None
    assert summary["status"] == "failed"
    log = (tmp_path / "outputs" / "toy" / "latest" / "run.log").read_text()
    assert "Traceback" in log
    assert "in two lines" in log


def test_debug_shows_the_traceback(call):
    assert "Traceback" in call("toy", "episodes=4", "--debug")[2]


def test_an_interrupted_run_says_so_and_ends_with_130(call):
    status, _, err, summary = call("toy", "episodes=5")
    assert status == 130
    assert "Traceback" not in err
    assert summary is not None
    assert summary["status"] == "interrupted"


def test_a_verb_may_report_a_failure_of_its_own_together_with_its_summary(call):
    status, _, _, summary = call("toy", "episodes=6")
    assert status == 1
    assert summary is not None
    assert (summary["status"], summary["episodes"]) == ("exceptions", 6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tou"], "error: unknown verb 'tou'; choose one of ask, bench, .*did you mean 'toy'"),
        (["toy", "episods=1"], "error: unknown setting 'episods'; .*did you mean 'episodes'"),
        (["toy", "--vrbose"], "error: unknown option '--vrbose'; choose one of --cfg job, "),
        (["toy", "9"], "error: unknown argument '9'"),
    ],
)
def test_a_wrong_word_is_one_line_and_makes_no_folder(call, tmp_path, arguments, message):
    status, _, err, _ = call(*arguments)
    assert status == 2
    assert len(err.splitlines()) == 1
    assert __import__("re").match(message, err)
    assert not (tmp_path / "outputs").exists()


def test_cfg_job_prints_every_value_and_runs_nothing(call, tmp_path):
    status, out, _, _ = call("toy", "episodes=4", "--cfg", "job")
    assert status == 0
    assert out == "episodes: 4\nname: latency\nresume: false\n"
    assert not (tmp_path / "outputs").exists()


def test_the_help_of_a_verb_lists_each_setting_with_type_default_and_comment(call):
    out = call("toy", "--help")[1]
    assert "vla toy: play" in out
    assert "episodes  int  = 9\n      how many" in out


def test_a_benchmark_is_named_by_a_bare_word_and_gets_its_own_folder(call, tmp_path):
    assert call("toybench", "throughput")[0] == 0
    assert (tmp_path / "outputs" / "toybench" / "throughput" / "latest" / "artefact").exists()


def test_resuming_goes_on_in_the_folder_of_the_last_run(call, tmp_path):
    folder = tmp_path / "outputs" / "toytrain"
    for arguments in ([], ["resume=true"], ["resume=true"]):
        assert call("toytrain", *arguments)[0] == 0
    assert len([path for path in folder.iterdir() if not path.is_symlink()]) == 1


def test_resuming_without_an_earlier_run_starts_one(call):
    assert call("toytrain", "resume=true")[0] == 0


def test_output_root_and_run_directory_choose_the_folder(call, tmp_path):
    call("toy", f"output_root={tmp_path / 'other'}")
    assert (tmp_path / "other" / "toy" / "latest" / "summary.json").exists()
    call("toy", f"run_directory={tmp_path / 'exact'}")
    assert (tmp_path / "exact" / "summary.json").exists()
    assert not (tmp_path / "latest").exists()


def test_the_overview_names_every_verb_with_an_example(capsys):
    assert command.main(["--help"]) == 0
    out = capsys.readouterr().out
    for name, verb in command.VERBS.items():
        assert f"  {name} " in out
        assert verb.examples[0] in out


def test_a_foreign_package_called_policies_is_refused_with_both_paths(monkeypatch, tmp_path):
    real = command.importlib.util.find_spec

    def find_spec(name: str):
        if name != "policies":
            return real(name)
        spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(tmp_path / "policies")]
        return spec

    monkeypatch.setattr(command.importlib.util, "find_spec", find_spec)
    with pytest.raises(ConfigError, match=f"{tmp_path}/policies, but ours is .*; remove or rename"):
        command.check_packages()


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["eval", "--help"], ["eval", "--cfg", "job"]]
)
def test_help_and_configs_load_no_torch(arguments):
    script = (
        "import sys; from vla.cli.main import main; status = main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules; sys.exit(status)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["describe", "--help"]])
def test_a_reader_that_has_gone_ends_the_command_without_a_word(arguments):
    process = subprocess.Popen(
        [sys.executable, "-m", "vla.cli.main", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()  # as `head` does once it has enough
    assert process.stderr is not None
    with process.stderr as stream:
        said = stream.read()
    assert (process.wait(), said) == (141, b"")


def test_a_pipe_of_our_own_that_breaks_is_an_internal_error(call, monkeypatch):
    def fail(cfg: ToyConfig, directory: Path) -> dict[str, Any]:
        raise BrokenPipeError("the worker has gone")

    monkeypatch.setattr(sys.modules["toy_verb"], "run", fail)
    status, _, err, summary = call("toy")
    assert status == 1
    assert "internal error: BrokenPipeError: the worker has gone" in err
    assert summary is not None
    assert summary["status"] == "failed"
