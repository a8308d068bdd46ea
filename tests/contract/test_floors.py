"""Who may import whom, as written in pyproject.toml under [tool.importlinter]."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("vla", "envs", "policies")


def _imported_names(source: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_every_file_imports_only_from_lower_floors():
    linter = Path(sys.executable).parent / "lint-imports"
    result = subprocess.run(
        [linter, "--no-cache"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_nothing_imports_the_scripts_or_the_tests():
    offenders = [
        str(path.relative_to(REPOSITORY))
        for package in PACKAGES
        for path in (REPOSITORY / package).rglob("*.py")
        if _imported_names(path.read_text()) & {"scripts", "tests", "configs", "conftest"}
    ]
    assert offenders == []


def test_every_package_has_its_init_file_and_no_other_folder_is_a_package():
    for package in PACKAGES:
        folders = {path.parent for path in (REPOSITORY / package).rglob("*.py")}
        assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []
    for folder in ("configs", "scripts", "tests"):
        assert list((REPOSITORY / folder).rglob("__init__.py")) == []


@pytest.mark.parametrize("room", ["vla/nn", "vla/models", "vla/losses"])
def test_models_import_nothing_but_torch(room: str):
    allowed = {*sys.stdlib_module_names, "vla", "torch", "jaxtyping"}
    foreign = {
        str(path.relative_to(REPOSITORY)): sorted(_imported_names(path.read_text()) - allowed)
        for path in (REPOSITORY / room).rglob("*.py")
        if _imported_names(path.read_text()) - allowed
    }
    assert foreign == {}


def test_no_file_of_the_packages_is_longer_than_400_lines():
    lengths = {
        str(path.relative_to(REPOSITORY)): len(path.read_text().splitlines())
        for package in PACKAGES
        for path in (REPOSITORY / package).rglob("*.py")
    }
    assert {name: length for name, length in lengths.items() if length > 400} == {}
