"""Runs the parity tests and writes the largest difference that each file finds into docs/parity.md.

    .venv/bin/python scripts/record_parity.py             # what needs no network
    .venv/bin/python scripts/record_parity.py --network   # and the pretrained weights, 245 MB

Files without a comparison of numbers (they ask for equality) keep what the table says.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "parity.md"


def main() -> int:
    """Returns the exit status of the tests; the page is written only when they pass."""
    markers = "not gpu and not hardware" + ("" if "--network" in sys.argv else " and not network")
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "differences.jsonl"
        command = [sys.executable, "-m", "pytest", "-q", "-m", markers, "tests/parity"]
        environment = {**os.environ, "VLA_PARITY_RECORD": str(record)}
        status = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
        if status == 0:
            PAGE.write_text(
                updated(PAGE.read_text(encoding="utf-8"), largest(record)), encoding="utf-8"
            )
    return status


def largest(record: Path) -> dict[str, float]:
    """Returns the largest difference of each test file."""
    found: dict[str, float] = {}
    for line in record.read_text(encoding="utf-8").splitlines():
        note = json.loads(line)
        found[note["file"]] = max(found.get(note["file"], 0.0), note["difference"])
    return found


def updated(page: str, differences: dict[str, float]) -> str:
    """Returns the page with the last cell of each file's row exchanged."""
    lines = []
    for line in page.splitlines():
        named = re.match(r"\| `(test_\w+\.py)` \|", line)
        if named and named[1] in differences:
            cells = line.strip().strip("|").split("|")
            cells[-1] = f" {differences[named[1]]:.1e} "
            line = f"|{'|'.join(cells)}|"
        lines.append(line)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
