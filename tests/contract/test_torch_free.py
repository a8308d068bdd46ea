"""The robot's computer runs control, robots and serving without a training framework."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
FRAMEWORKS = {"torch", "torchvision", "lerobot", "transformers", "datasets", "wandb", "hydra"}
LEROBOT_LEAF = "vla.robots.lerobot"  # drives real arms and is the one file that may pull in lerobot

PROBE = """
import importlib, json, sys
sys.argv = ["vla", *sys.argv[2:]] if sys.argv[1] == "vla.cli.main" else sys.argv
try:
    module = importlib.import_module({module!r})
    {then}
finally:
    roots = sorted({{name.split(".")[0] for name in sys.modules}})
    print("LOADED " + json.dumps(roots))
"""


def _loaded_after(module: str, *arguments: str) -> set[str]:
    """Returns the top-level modules loaded by importing `module`, and by its main() if arguments are given."""
    then = "module.main()" if arguments else "pass"
    result = subprocess.run(
        [sys.executable, "-c", PROBE.format(module=module, then=then), module, *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in result.stdout.splitlines() if line.startswith("LOADED ")]
    assert lines, result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    return set(json.loads(lines[-1].removeprefix("LOADED ")))


def _modules_of(*packages: str) -> list[str]:
    paths = [path for name in packages for path in (REPOSITORY / "vla" / name).rglob("*.py")]
    names = {".".join(path.relative_to(REPOSITORY).with_suffix("").parts) for path in paths}
    return sorted(name.removesuffix(".__init__") for name in names - {LEROBOT_LEAF})


def test_control_robots_and_serving_load_no_training_framework():
    modules = ["vla.types", "vla.errors", *_modules_of("control", "robots", "serving")]
    script = "import importlib, json, sys\n"
    script += f"for name in {modules!r}:\n    importlib.import_module(name)\n"
    script += "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert set(json.loads(result.stdout.splitlines()[-1])) & FRAMEWORKS == set()


def test_types_and_errors_need_numpy_alone():
    loaded = _loaded_after("vla.types")
    assert "numpy" in loaded
    assert loaded & (FRAMEWORKS | {"mujoco", "mink", "gymnasium", "jaxtyping"}) == set()


@pytest.mark.parametrize("arguments", [["--help"], ["eval", "--help"], ["deploy", "--help"]])
def test_asking_for_help_loads_no_torch(arguments: list[str]):
    assert _loaded_after("vla.cli.main", *arguments) & {"torch", "lerobot", "mujoco"} == set()
