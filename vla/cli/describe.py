"""`vla describe`: what a checkpoint is made of, what it expects to see and what its actions mean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla.cli.build import find_checkpoint


@dataclass(kw_only=True)
class DescribeConfig:
    """What to describe."""

    checkpoint: str = "tiny"  # a checkpoint directory, or the name of one shipped in the package
