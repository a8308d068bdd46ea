"""With VLA_PARITY_RECORD=FILE in the environment, every comparison of numbers notes its largest difference there.

scripts/record_parity.py reads the file and brings docs/parity.md up to date.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

RECORD = os.environ.get("VLA_PARITY_RECORD")


@pytest.fixture(autouse=RECORD is not None)
def note_differences(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparisons in fp32; those of bf16 have bounds of their own."""
    compare = torch.testing.assert_close

    def noting(actual: Any, expected: Any, *arguments: Any, **options: Any) -> None:
        compare(actual, expected, *arguments, **options)
        if isinstance(actual, torch.Tensor) and actual.dtype == torch.float32 and actual.numel():
            note = {
                "file": Path(request.node.path).name,
                "difference": float((actual - expected).detach().abs().max()),
            }
            with Path(str(RECORD)).open("a", encoding="utf-8") as file:
                file.write(json.dumps(note) + "\n")

    monkeypatch.setattr(torch.testing, "assert_close", noting)
