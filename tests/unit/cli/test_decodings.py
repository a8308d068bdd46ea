"""`vla describe` and `vla bench policy` on checkpoints of every action decoding."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from vla.checkpoints import native
from vla.checkpoints.contract import Contract
from vla.cli import bench
from vla.cli.bench import BenchConfig
from vla.cli.describe import command as describe
from vla.cli.describe.command import DescribeConfig
from vla.data.stats import ActionStatistics, StateStatistics
from vla.models.action_config import ActionDecoding
from vla.models.action_model import VisionLanguageAction
from vla.tokenizers.fast import train_fast
from vla.tokenizers.prompt import PromptTemplate
from vla.training.config import BackboneConfig
from vla.training.shapes import action_config, small_backbone
from vla.types import TABLETOP

GENERATED = {
    ActionDecoding.PARALLEL: ("learned slots, all read in one pass", [1, 2, 32]),
    ActionDecoding.AUTOREGRESSIVE: ("tokens", [1, 14]),
    ActionDecoding.L1: ("learned slots, all read in one pass", [1, 2, 32]),
    ActionDecoding.FLOW: ("noisy actions and the time", [1, 2, 32]),
}


@pytest.fixture(scope="module", params=list(ActionDecoding), ids=lambda d: d.value)
def checkpoint(request, tmp_path_factory) -> tuple[ActionDecoding, Path]:
    decoding, rng = request.param, np.random.default_rng(0)
    shape = BackboneConfig(
        decoding=decoding, width=32, depth=1, vision_width=32, vision_depth=1, chunk_length=2, fast_vocab_size=128,
        text_vocab_size=300, max_text_tokens=40,
    )  # fmt: skip
    torch.manual_seed(0)
    backbone, tokenizer = small_backbone(shape, ["pick up the red cube"] * 2, 2)
    actions = rng.normal(size=(100, 7))
    statistics = ActionStatistics.from_array(actions, TABLETOP.action_spec)
    chunks = statistics.normalize(actions).reshape(-1, 2, 7)
    contract = Contract(
        embodiment=TABLETOP,
        image_size=64,
        action_statistics=statistics,
        state_statistics=StateStatistics.from_array(actions, TABLETOP.state_spec),
        prompt=PromptTemplate.PLAIN,
        max_text_tokens=40,
        fast=train_fast(chunks, scale=10.0, vocab_size=100)
        if decoding is ActionDecoding.FAST
        else None,
    )
    model = VisionLanguageAction(backbone, action_config(shape, tokenizer))
    directory = tmp_path_factory.mktemp(decoding.value) / "policy"
    native.save(directory, model, contract, tokenizer)
    return decoding, directory


def test_a_checkpoint_is_described_and_says_how_it_acts(checkpoint, tmp_path, capsys):
    decoding, directory = checkpoint
    summary = describe.run(DescribeConfig(checkpoint=str(directory)), tmp_path)
    assert summary["action_decoding"] == decoding.value
    assert ("action_layout" in summary) == (decoding.value in ("parallel", "autoregressive"))
    assert ("fast" in summary) == (decoding is ActionDecoding.FAST)
    assert f"action decoding: {decoding.value}" in capsys.readouterr().out
    json.dumps(summary)


def test_a_trace_ends_in_the_action_of_the_policy_whatever_comes_out(checkpoint, tmp_path):
    from policies.vla_policy import VlaPolicy
    from vla.cli.describe.trace_inputs import rendered

    decoding, directory = checkpoint
    cfg = DescribeConfig(checkpoint=str(directory), trace=True)
    trace = describe.run(cfg, tmp_path)["trace"]
    stages = list(dict.fromkeys(step["stage"] for step in trace))
    assert stages == ["perceive", "align", "reason", "generate", "act"]
    steps = {step["what"]: step for step in trace}
    assert steps["actions"]["shape"] == [2, 7]
    if decoding in GENERATED:
        what, shape = GENERATED[decoding]
        assert steps[what]["shape"] == shape
    else:
        assert 2 <= steps["tokens"]["shape"][1] <= 15  # and the end token
        assert steps["chunk that the tokens spell"]["shape"] == [2, 7]
    notes = [step["note"] for step in trace if step["what"].startswith("  first action")]
    policy = VlaPolicy.from_checkpoint(directory)
    policy.reset(seed=0)  # a flow's noise
    chunk = policy.act(rendered(64))
    assert [float(note.split()[0]) for note in notes] == pytest.approx(
        chunk.actions[0].tolist(), abs=1e-4
    )
    json.dumps(trace)


def test_its_costs_are_measured(checkpoint, tmp_path):
    _, directory = checkpoint
    figures = bench.run(BenchConfig(checkpoint=str(directory), batch_size=2, rounds=1), tmp_path)
    assert 2.0 < figures["train_mflop"] / figures["forward_mflop"] < 3.5
    assert figures["action_cpu_ms"] > 0
    assert figures["actions_per_chunk"] == 2
