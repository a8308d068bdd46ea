"""In a process of its own: shape checks at every call, which tests run under, cannot be traced."""

import subprocess
import sys

import pytest

SCRIPT = """
import torch
from vla.models.action_config import ActionConfig
from vla.models.action_model import VisionLanguageAction
from vla.models.backbones.prismatic import Prismatic
from vla.models.backbones.prismatic_config import tiny

backbone = Prismatic(tiny(64, width=64, depth=1, vision_width=32, vision_depth=1))
model = VisionLanguageAction(backbone, ActionConfig(text_vocab_size=64))
images = torch.randint(0, 256, (2, 2, 3, 64, 64), dtype=torch.uint8)
inputs = images, torch.ones(2, 5, dtype=torch.int64), torch.ones(2, 5, dtype=torch.bool), torch.rand(2, 7)
expected = model(*inputs).action_logits
got = torch.compile(model, fullgraph=True, backend="aot_eager")(*inputs).action_logits
torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
got.sum().backward()
"""


@pytest.mark.slow
def test_forward_and_backward_are_one_graph_for_torch_compile():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
