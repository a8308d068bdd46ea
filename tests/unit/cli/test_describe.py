import dataclasses
import json
import sys

import pytest

from vla.cli import main
from vla.cli.backbones import (
    BACKBONES,
    SMALL_BACKBONES,
    backbone_config,
    build_shape,
)
from vla.cli.describe import command as describe
from vla.cli.describe.backbones import describe_backbone, describe_model
from vla.cli.describe.command import DescribeConfig
from vla.cli.describe.pictures import encode_flops, picture_cost
from vla.errors import ConfigError
from vla.models.backbones.families import build_backbone

RELEASED = {  # parameters; tests/parity holds each against the reference implementation
    "openvla_7b": 7_541_237_184,
    "paligemma_3b_224": 2_923_466_480,
    "paligemma_3b_448": 2_924_351_216,
    "paligemma_3b_896": 2_927_890_160,
    "paligemma2_3b_224": 3_032_242_416,
    "qwen2_vl_2b": 2_208_985_600,
    "qwen2_vl_7b": 8_291_375_616,
    "gemma4_e2b": 4_797_113_600,
    "gemma4_e4b": 7_632_344_064,
    "gemma4_31b": 31_273_086_512,
    "gemma4_12b_unified": 11_957_272_576,
}


@pytest.mark.parametrize("name", RELEASED)
def test_a_released_backbone_has_its_number_of_parameters_and_parts_that_add_up(name):
    described = describe_backbone(name)
    assert described["parameters"] == RELEASED[name]
    assert sum(described["parts"].values()) == described["parameters"]


@pytest.mark.parametrize("name", BACKBONES)
def test_a_described_backbone_takes_no_memory(name):
    model = build_shape(backbone_config(name))
    assert all(weight.is_meta for weight in model.parameters())


@pytest.mark.parametrize("name", SMALL_BACKBONES)
def test_a_shape_has_the_parts_of_the_model_with_weights(name):
    config = backbone_config(name)
    assert describe_model(build_shape(config)) == describe_model(build_backbone(config))


def test_openvla_reads_one_square_picture_of_256_tokens(tmp_path, capsys):
    summary = describe.run(DescribeConfig(backbone="openvla_7b"), tmp_path)
    assert summary["tokens"]["image_tokens_per_view"] == 256
    assert f"{summary['parameters']:,}" in capsys.readouterr().out
    json.dumps(summary)


def test_an_unknown_backbone_is_named_with_the_choices(tmp_path):
    with pytest.raises(
        ConfigError,
        match=r"unknown backbone 'openvla'; choose one of gemma4_12b_unified, .* mean 'openvla_7b'",
    ):
        describe.run(DescribeConfig(backbone="openvla"), tmp_path)


@pytest.mark.parametrize(
    ("name", "size", "read", "num_tokens"),
    [
        ("openvla_7b", (480, 640), (224, 224), 256),
        ("paligemma_3b_448", (480, 640), (448, 448), 1024),
        ("qwen2_vl_2b", (480, 640), (476, 644), 391),
        ("qwen2_vl_2b", (10, 10), (56, 56), 4),
        ("gemma4_e2b", (480, 640), (672, 912), 266),
        ("gemma4_12b_unified", (720, 1280), (576, 1056), 264),
    ],
)
def test_a_picture_is_read_at_the_family_s_size_and_takes_its_tokens(name, size, read, num_tokens):
    cost = picture_cost(backbone_config(name), *size)
    assert ((cost.rows, cost.columns), cost.num_tokens) == (read, num_tokens)


@pytest.mark.parametrize("name", [name for name in SMALL_BACKBONES if name != "tiny"])
def test_the_tokens_and_operations_foretold_are_those_of_a_picture_that_is_encoded(name):
    """Counted while the model encodes the picture, with gradients on: then attention is two plain products."""
    from torch.utils.flop_counter import FlopCounterMode

    from vla.cli.describe.trace_inputs import of_backbone

    inputs = of_backbone(name)
    backbone = inputs.model.backbone
    cost = picture_cost(backbone.config, *inputs.images.shape[-2:])
    with FlopCounterMode(display=False) as counter:
        prefix = inputs.model.prefix(inputs.images, inputs.text_ids, inputs.text_valid)
    assert int(prefix.is_image.sum()) == cost.num_tokens
    if (
        name == "gemma4_encoder_tiny"
    ):  # what is foretold counts filling, which one picture alone has not
        cost = dataclasses.replace(cost, num_patches=4 * cost.num_tokens)
    assert counter.get_total_flops() == encode_flops(backbone, cost)


def test_a_frozen_part_is_not_counted_among_what_a_stage_trains():
    described = describe_backbone("paligemma_3b_224")
    stages = {row["stage"]: row for row in described["stages"]}
    multimodal = stages["2 multimodal"]
    assert (multimodal["vision"], multimodal["connector"]) == ("frozen", "trained")
    frozen = described["parts"]["vision"]
    assert multimodal["trained_parameters"] == described["parameters"] - frozen
    assert stages["3 transfer"]["trained_parameters"] == described["parameters"]
    assert stages["1 unimodal"]["connector"] == "-"


def test_windowed_and_shared_layers_keep_less():
    """Gemma 4 E2B: 15 of 35 layers have keys, 3 of them see everything, with heads twice as wide."""
    decoder = describe_backbone("gemma4_e2b")["decoder"]
    assert decoder["kv_bytes_per_token"] == 2 * 2 * (12 * 256 + 3 * 512)
    assert decoder["kv_bytes_per_token_beyond_the_window"] == 2 * 2 * 3 * 512
    assert decoder["window_tokens"] == 512


@pytest.mark.slow
def test_describing_a_large_backbone_does_not_import_torch_s_compiler():
    """That takes seconds, and drawing numbers for weights without memory would do it."""
    import subprocess

    code = "import sys; from vla.cli.describe.backbones import describe_backbone as d; "
    code += "[d(name) for name in ('openvla_7b', 'tiny', 'gemma4_31b', 'gemma4_e2b')]; "
    code += "sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", SMALL_BACKBONES)
def test_a_trace_passes_through_all_five_stages_and_ends_in_a_motion_within_limits(
    name, tmp_path, capsys
):
    summary = describe.run(DescribeConfig(backbone=name, trace=True), tmp_path)
    stages = list(dict.fromkeys(step["stage"] for step in summary["trace"]))
    assert stages == ["perceive", "align", "reason", "generate", "act"]
    assert "first action, gripper" in capsys.readouterr().out
    shapes = {step["what"]: step["shape"] for step in summary["trace"]}
    assert shapes["actions"][1] == 7
    assert shapes["sequence"][:2] == shapes["hidden states"][:2]
    json.dumps(summary)


def test_the_shipped_checkpoint_is_traced_on_a_rendered_scene(tmp_path):
    summary = describe.run(DescribeConfig(trace=True), tmp_path)
    steps = {step["what"]: step for step in summary["trace"]}
    assert steps["pictures (batch, cameras, ...)"]["note"].startswith("rendered")
    assert steps["image tokens"]["shape"] == [2, 16, 192]
    assert steps["actions"]["shape"] == [4, 7]


def test_the_trace_of_a_checkpoint_ends_in_the_action_of_its_policy(tmp_path):
    from policies.vla_policy import VlaPolicy
    from vla.cli.build import find_checkpoint
    from vla.cli.describe.trace_inputs import rendered

    summary = describe.run(DescribeConfig(trace=True), tmp_path)
    notes = [step["note"] for step in summary["trace"] if step["what"].startswith("  first action")]
    chunk = VlaPolicy.from_checkpoint(find_checkpoint("tiny")).act(rendered(64))
    assert [float(note.split()[0]) for note in notes] == pytest.approx(
        chunk.actions[0].tolist(), abs=1e-4
    )


def test_actions_that_come_out_one_by_one_are_traced_as_tokens(tmp_path):
    summary = describe.run(DescribeConfig(backbone="paligemma_tiny", trace=True), tmp_path)
    steps = {step["what"]: step for step in summary["trace"]}
    assert steps["tokens"]["shape"] == [1, 7]
    assert steps["bins"]["shape"] == [1, 1, 7]
    first_token, first_bin = (int(steps[what]["note"].split()[0]) for what in ("tokens", "bins"))
    assert first_token - first_bin == 2048


def test_a_released_backbone_cannot_be_traced(tmp_path):
    with pytest.raises(
        ConfigError, match="openvla_7b has no weights here; choose one of tiny, paligemma_tiny"
    ):
        describe.run(DescribeConfig(backbone="openvla_7b", trace=True), tmp_path)


def test_a_flag_stands_for_its_setting():
    request = main.parse(["describe", "--trace", "backbone=gemma4_tiny"])
    assert request.overrides == ["trace=true", "backbone=gemma4_tiny"]


def test_a_flag_of_another_verb_is_unknown():
    with pytest.raises(ConfigError, match="unknown option '--trace'"):
        main.parse(["bench", "policy", "--trace"])
