"""docs/parity.md names every parity test, and only those; its versions and prompts are the tests' own."""

import ast
import importlib.metadata
import re
import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "parity.md"
TESTS = ROOT / "tests" / "parity"


def _rows() -> dict[str, list[str]]:
    found = re.findall(
        r"^\| `(test_\w+\.py)` \|(.*)\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    return {name: [cell.strip() for cell in cells.split("|")] for name, cells in found}


def test_every_parity_test_is_on_the_page_and_every_row_has_its_test():
    assert sorted(_rows()) == sorted(path.name for path in TESTS.glob("test_*.py"))


def test_every_row_says_what_was_found():
    for name, cells in _rows().items():
        assert re.fullmatch(r"\d\.\de[-+]\d\d|equal", cells[-1]), name


def test_no_difference_found_is_larger_than_what_is_allowed():
    for name, (*_, allowed, found) in _rows().items():
        if found != "equal":
            assert float(found) <= float(allowed.split()[0].rstrip(";")), name


def test_the_version_compared_with_is_the_one_that_is_installed():
    version = importlib.metadata.version("transformers")
    assert f"transformers {version}, the newest" in PAGE.read_text(encoding="utf-8")


def test_the_prompts_on_the_page_are_those_of_the_test():
    source = (TESTS / "test_gemma3_pretrained.py").read_text(encoding="utf-8")
    facts = next(
        ast.literal_eval(node.value)
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FACTS"
    )
    text = PAGE.read_text(encoding="utf-8").split("| prompt | continuation |")[1]
    rows = dict(re.findall(r"^\| (\w[^|]*?) \| ([^|]*?) \|$", text, re.MULTILINE))
    assert list(rows) == list(facts)
    for prompt, expected in facts.items():
        assert expected in rows[prompt]


def test_the_recorder_exchanges_the_last_cell_of_the_rows_it_measured():
    updated = runpy.run_path(str(ROOT / "scripts" / "record_parity.py"))["updated"]
    page = "text\n| `test_a.py` | x | - |\n| `test_b.py` | y | equal |\n"
    assert updated(page, {"test_a.py": 1.3e-6}) == (
        "text\n| `test_a.py` | x | 1.3e-06 |\n| `test_b.py` | y | equal |\n"
    )
