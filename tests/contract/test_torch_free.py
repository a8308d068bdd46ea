"""The robot's computer runs control, robots and serving without a training framework."""

import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
FRAMEWORKS = {"torch", "torchvision", "lerobot", "transformers", "datasets", "wandb", "hydra"}
LEROBOT_LEAF = "vla.robots.lerobot"  # drives real arms and is the one file that may pull in lerobot

PROBE = """
import importlib, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""


def _loaded_by(modules: list[str]) -> set[str]:
    """Returns the top-level packages that a fresh interpreter holds after importing `modules`."""
    result = subprocess.run(
        [sys.executable, "-c", PROBE, *modules],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return set(json.loads(result.stdout.splitlines()[-1]))


def _modules_of(*packages: str) -> list[str]:
    paths = [path for name in packages for path in (REPOSITORY / "vla" / name).rglob("*.py")]
    names = {".".join(path.relative_to(REPOSITORY).with_suffix("").parts) for path in paths}
    return sorted(name.removesuffix(".__init__") for name in names - {LEROBOT_LEAF})


def test_control_robots_and_serving_load_no_training_framework():
    modules = ["vla.types", "vla.errors", *_modules_of("control", "robots", "serving")]
    assert _loaded_by(modules) & FRAMEWORKS == set()


def test_types_and_errors_need_numpy_alone():
    loaded = _loaded_by(["vla.types", "vla.errors"])
    assert "numpy" in loaded
    assert loaded & (FRAMEWORKS | {"mujoco", "mink", "gymnasium", "jaxtyping"}) == set()


def test_the_entry_point_loads_no_training_framework():
    assert _loaded_by(["vla.cli.main"]) & FRAMEWORKS == set()
