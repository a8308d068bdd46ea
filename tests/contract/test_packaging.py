"""What is built, locked and committed."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
LOCKS = ("requirements.lock", "requirements-all.lock")


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names inside a wheel built by the locked hatchling, offline."""
    directory = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
    )
    (wheel,) = directory.glob("vla-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def _locked(name: str) -> dict[str, str]:
    text = (REPOSITORY / name).read_text()
    return dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", text, re.MULTILINE))


def test_the_wheel_holds_every_source_file(wheel_names: set[str]):
    sources = {
        path.relative_to(REPOSITORY).as_posix()
        for package in ("vla", "envs", "policies")
        for path in (REPOSITORY / package).rglob("*.py")
    }
    assert sources - wheel_names == set()


def test_the_wheel_holds_every_config(wheel_names: set[str]):
    configs = {
        "vla/" + path.relative_to(REPOSITORY).as_posix()
        for path in (REPOSITORY / "configs").rglob("*.yaml")
    }
    assert configs
    assert configs - wheel_names == set()


@pytest.mark.parametrize("policy", ["tiny", "tiny_pick_cube"])
def test_the_wheel_holds_the_shipped_policies(wheel_names: set[str], policy: str):
    shipped = {name for name in wheel_names if name.startswith(f"vla/pretrained/{policy}/")}
    names = {Path(name).name for name in shipped}
    assert {"model.safetensors", "config.json", "tokenizer.json", "MANIFEST.json"} <= names


def test_the_wheel_holds_the_mask_codec(wheel_names: set[str]):
    shipped = {name for name in wheel_names if name.startswith("vla/pretrained/mask_codec/")}
    assert {Path(name).name for name in shipped} >= {"model.safetensors", "config.json"}


def test_the_wheel_holds_nothing_else(wheel_names: set[str]):
    roots = {name.split("/")[0] for name in wheel_names}
    assert {root for root in roots if not root.endswith(".dist-info")} == {
        "vla",
        "envs",
        "policies",
    }


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_hashes_and_no_host_is_named(lock: str):
    lines = (REPOSITORY / lock).read_text().splitlines()
    for number, line in enumerate(lines):
        if "==" in line and not line.startswith("#"):
            assert lines[number + 1].strip().startswith("--hash=sha256:"), line
    assert not [line for line in lines if "://" in line or "index" in line.split("==")[0]]


def test_both_locks_agree_on_every_package_they_share():
    base, everything = (_locked(name) for name in LOCKS)
    assert {name: everything.get(name) for name in base} == base


def test_mujoco_is_locked_where_libero_was_measured():
    assert _locked("requirements.lock")["mujoco"] == "3.3.2"


def test_every_direct_dependency_is_locked():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    names = [re.split(r"[\[<>=!~]", line)[0].strip() for line in project["dependencies"]]
    names += [re.split(r"[\[<>=!~]", line)[0].strip() for line in extras["dev"] + extras["serve"]]
    assert [name for name in names if name not in _locked("requirements.lock")] == []


def test_the_makefile_has_at_most_a_dozen_targets():
    text = (REPOSITORY / "Makefile").read_text()
    targets = re.findall(r"^([a-z][a-z-]*):", text, re.MULTILINE)
    assert {"setup", "demo", "test", "check", "help"} <= set(targets)
    assert len(targets) <= 12
