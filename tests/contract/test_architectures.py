"""Every number on docs/architectures.md is the code's."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from vla.cli.backbones import FAMILY_NAMES, backbone_config
from vla.cli.describe.backbones import describe_backbone
from vla.cli.describe.stages import STAGE_NAMES, STAGES, Training
from vla.models.vision.resize_rules import GEMMA4_TOKEN_BUDGETS, qwen2_vl_size
from vla.nn.positions import PictureStart, grid_positions, mrope_positions
from vla.tokenizers.action_bins import NUM_BINS, ActionBins, ActionLayout, ActionVocabulary
from vla.tokenizers.loc_seg import NUM_CODEWORDS, NUM_LOCATIONS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "architectures.md"


def _table(heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, without its head."""
    text = PAGE.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


COSTS = {row[0].strip("`"): row[1:] for row in _table("What they cost")}
NUMBERS = {row[0]: row[1:] for row in _table("The text's numbers in this code")}


def _patches(name: str) -> int:
    return describe_backbone(name)["pictures"][0]["patches"]


def _clip_place() -> list[int]:
    """(time, row, column) of a patch of a clip of 8 steps of 4 x 6 tokens that stands alone."""
    valid = torch.ones(1, 8 * 4 * 6, dtype=torch.bool)
    positions = mrope_positions(valid, torch.tensor([[8, 4, 6]]), valid)
    return positions[0, 5 * 4 * 6 + 2 * 6 + 3].tolist()


def _still_times() -> int:
    words_and_picture = torch.tensor([[False] * 3 + [True] * 6 + [False]])
    valid = torch.ones_like(words_and_picture)
    grid = torch.tensor([[1, 2, 3]])
    positions = mrope_positions(words_and_picture, grid, valid, PictureStart.ZERO)
    (time,) = positions[0, 3:9, 0].unique().tolist()
    return time


def _raster(row: int, column: int, width: int = 16) -> int:
    places = grid_positions(8, width).tolist()
    return places.index([row, column])


def _qwen2_vl_grid(rows: int, columns: int) -> int:
    height, width = qwen2_vl_size(rows, columns, min_pixels=256 * 28**2, max_pixels=1280 * 28**2)
    return (height // 14) * (width // 14)


def _found() -> dict[str, float]:
    paligemma = describe_backbone("paligemma_3b_224")
    time, row, column = _clip_place()
    return {
        "patches of a picture of 224 px": _patches("paligemma_3b_224"),
        "patches of a picture of 448 px": _patches("paligemma_3b_448"),
        "patches of a picture of 896 px": _patches("paligemma_3b_896"),
        "channels of a SigLIP feature": backbone_config("paligemma_3b_224").tower.width,
        "channels of a PaliGemma token": paligemma["decoder"]["width"],
        "parameters of SigLIP So400m, millions": round(paligemma["parts"]["vision"] / 1e6),
        "parameters of PaliGemma 3B at 224 px, billions": round(paligemma["parameters"] / 1e9, 2),
        "parameters of Qwen2-VL's tower, millions": round(
            describe_backbone("qwen2_vl_7b")["parts"]["vision"] / 1e6
        ),
        "parameters of OpenVLA, billions": round(describe_backbone("openvla_7b")["parameters"] / 1e9, 2),
        "location tokens": NUM_LOCATIONS,
        "segmentation codewords": NUM_CODEWORDS,
        "bins of an action number": NUM_BINS,
        "new tokens of seven numbers with bins of their own": ActionVocabulary(
            ActionLayout.PER_DIMENSION, 32000, 7
        ).num_new_ids,
        "time of the patch in frame 5, row 2, column 3": time,
        "row of that patch": row,
        "column of that patch": column,
        "time of every patch of a still picture": _still_times(),
        "raster distance from (2, W-1) to (3, 0)": _raster(3, 0) - _raster(2, 15),
        "raster distance from (2, 0) to (3, 0), W = 16": _raster(3, 0) - _raster(2, 0),
        "patches of 512 x 768 in Qwen2-VL": _qwen2_vl_grid(512, 768),
        "image tokens of 512 x 768 in Qwen2-VL": _qwen2_vl_grid(512, 768) // 4,
        "image tokens of 2048 x 3072, at most 1280": _qwen2_vl_grid(2048, 3072) // 4,
    }  # fmt: skip


def test_the_page_and_this_test_know_the_same_numbers():
    assert list(NUMBERS) == list(_found())


def test_every_number_of_the_text_is_beside_what_the_code_gives():
    found = {name: f"{value:g}" for name, value in _found().items()}
    assert {name: here for name, (_, here) in NUMBERS.items()} == found


def test_every_released_backbone_is_in_the_table_of_costs():
    from vla.cli.backbones import BACKBONES, SMALL_BACKBONES

    higher = {"paligemma2_3b_448", "paligemma2_3b_896"}  # as paligemma_3b in what changes
    assert set(COSTS) == set(BACKBONES) - set(SMALL_BACKBONES) - higher


@pytest.mark.parametrize("name", COSTS)
def test_the_costs_on_the_page_are_those_that_describe_prints(name):
    described = describe_backbone(name)
    vision = described["parts"]["vision"]
    connector = described["parts"]["connector"]
    picture, costs, decoder = described["pictures"][1], described["costs"], described["decoder"]
    assert picture["given"] == [480, 640]
    assert COSTS[name] == [
        f"{described['parameters']:,}",
        f"{vision:,}",
        f"{connector:,}",
        f"{described['parameters'] - vision - connector:,}",
        f"{picture['image_tokens']:,}",
        f"{picture['encode_flops'] / 1e9:,.0f}",
        f"{costs['prefill_flops_per_token'] / 1e9:.1f}",
        f"{costs['decode_flops_per_token'] / 1e9:.1f}",
        f"{decoder['kv_bytes_per_token']:,}",
        f"{decoder['kv_bytes_per_token_beyond_the_window']:,}",
    ]


def test_the_stages_on_the_page_are_those_that_describe_prints():
    words = {
        (Training.APART, Training.APART): "encoder and decoder apart",
        (Training.FROZEN, Training.TRAINED): "encoder frozen",
        (Training.TRAINED, Training.TRAINED): "everything",
        (Training.ABSENT, Training.ABSENT): "-",
    }
    rows = {row[0]: row[1:] for row in _table("Stages")}
    assert rows == {
        FAMILY_NAMES[family]: [
            words[pair] for pair in zip(stages.vision, stages.decoder, strict=True)
        ]
        for family, stages in STAGES.items()
    }
    assert all(name in PAGE.read_text(encoding="utf-8") for name in STAGE_NAMES)


def test_the_tokens_a_picture_takes_stand_in_the_comparison():
    rows = {row[0]: row[1:] for row in _table("Side by side")}
    prismatic, paligemma, qwen2_vl, gemma4 = (
        [int(number.replace(",", "")) for number in re.findall(r"[\d,]*\d", cell)]
        for cell in rows["tokens a picture"]
    )
    assert prismatic == [_patches("openvla_7b")]
    assert paligemma == [_patches(f"paligemma_3b_{size}") for size in (224, 448, 896)]
    tokens = describe_backbone("qwen2_vl_7b")["tokens"]
    assert qwen2_vl == [tokens["fewest_image_tokens"], tokens["most_image_tokens"]]
    assert tuple(gemma4) == GEMMA4_TOKEN_BUDGETS


def test_the_code_the_comparison_names_is_there():
    rows = {row[0]: row[1:] for row in _table("Side by side")}
    models = PAGE.parents[1] / "vla" / "models"
    for cell in rows["code"]:
        assert (models / cell.strip("`")).is_file()


def test_the_worked_grid_of_a_large_picture_is_the_rules():
    text = PAGE.read_text(encoding="utf-8")
    bounds = {"min_pixels": 256 * 28**2, "max_pixels": 1280 * 28**2}
    for size in ((512, 768), (2048, 3072)):
        rows, columns = qwen2_vl_size(*size, **bounds)
        assert f"{rows} x {columns}" in text
    assert f"{504 // 14} x {756 // 14}" in text
    assert f"{812 // 28} x {1204 // 28} tokens" in text


def test_the_last_two_bins_mean_the_same_and_the_error_is_within_the_bound_stated():
    values = np.linspace(-1, 1, 10_001)
    decoded = ActionBins.decode(ActionBins.encode(values))
    assert np.abs(decoded - values).max() <= 1 / 255 + 1e-6
    assert ActionBins.decode(np.array([254]))[0] == ActionBins.decode(np.array([255]))[0]


def test_every_backbone_the_page_names_exists():
    named = set(re.findall(r"backbone=(\w+)", PAGE.read_text(encoding="utf-8")))
    named |= set(re.findall(r"`(\w+_tiny)`", PAGE.read_text(encoding="utf-8")))
    for name in named:
        backbone_config(name)
