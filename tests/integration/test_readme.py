"""The Python code of the README runs as it stands."""

import re
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_python_example_gives_a_chunk_of_actions_within_the_limits():
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(example, "README.md", "exec"), names)
    actions = names["chunk"].actions
    assert actions.ndim == 2
    np.testing.assert_array_equal(names["policy"].action_spec.clip(actions), actions)
    names["env"].close()
