import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vla.errors import ConfigError
from vla.nn.positions import grid_positions
from vla.nn.rope import RopeConfig, apply_rope, rope_rotation

PLAIN = RopeConfig(theta=100.0)
RELEASED = RopeConfig(theta=1e6, sections=(16, 24, 24))  # Qwen2-VL, heads of 128 channels
QWEN_TOWER = RopeConfig(theta=100.0, sections=(4, 4), restarts=True)
GEMMA_TOWER = RopeConfig(theta=100.0, sections=(4, 4), restarts=True, is_apart=True)


def _turned(x: Tensor, position: list[int], config: RopeConfig) -> Tensor:
    """One head turned for one token, whose position has one axis or several."""
    positions = torch.tensor([position if len(position) > 1 else position[0]]).unsqueeze(0)
    return apply_rope(x.view(1, 1, 1, -1), rope_rotation(positions, len(x), config)).flatten()


def _pair(x: Tensor, i: int, j: int, angle: float) -> tuple[float, float]:
    """Channels i and j turned by an angle, in plain arithmetic."""
    first, second = float(x[i]), float(x[j])
    cosine, sine = math.cos(angle), math.sin(angle)
    return first * cosine - second * sine, second * cosine + first * sine


def test_each_pair_of_half_split_channels_turns_by_position_times_frequency():
    x = torch.tensor([1.0, 10.0, 2.0, 20.0])  # pairs (1, 2) and (10, 20)
    turned = _turned(x, [3], PLAIN).tolist()
    for channel in range(2):
        expected = _pair(x, channel, channel + 2, 3 * 100.0 ** (-2 * channel / 4))
        assert (turned[channel], turned[channel + 2]) == pytest.approx(expected, rel=1e-5)


def test_position_zero_changes_nothing():
    x = torch.randn(2, 1, 3, 8)
    rotation = rope_rotation(torch.zeros(2, 1, dtype=torch.int64), 8, PLAIN)
    torch.testing.assert_close(apply_rope(x, rotation), x)


def test_scores_depend_on_the_distance_between_tokens_alone():
    q, k = torch.randn(16), torch.randn(16)
    near = _turned(q, [5], PLAIN) @ _turned(k, [2], PLAIN)
    far = _turned(q, [105], PLAIN) @ _turned(k, [102], PLAIN)
    torch.testing.assert_close(near, far, rtol=1e-3, atol=1e-4)


def test_bf16_tokens_stay_bf16_and_far_positions_stay_apart():
    x = torch.ones(1, 2, 1, 4, dtype=torch.bfloat16)
    turned = apply_rope(x, rope_rotation(torch.tensor([[1000, 1001]]), 4, PLAIN))
    assert turned.dtype is torch.bfloat16
    assert not torch.equal(turned[0, 0], turned[0, 1])


def test_at_time_5_row_2_column_3_each_section_turns_by_its_own_position():
    """Qwen2-VL's head: pairs 0..15 by time, 16..39 by row, 40..63 by column, frequencies falling over all 64."""
    x = torch.randn(128)
    turned = _turned(x, [5, 2, 3], RELEASED)
    for pair in range(64):
        position = 5 if pair < 16 else 2 if pair < 40 else 3
        expected = _pair(x, pair, pair + 64, position * 1e6 ** (-2 * pair / 128))
        found = (float(turned[pair]), float(turned[pair + 64]))
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_in_thirds_each_third_of_the_head_turns_within_itself_by_its_own_position():
    """The textbook form at (5, 2, 3): channels 0..7 by time, 8..15 by row, 16..23 by column."""
    config = RopeConfig(theta=100.0, sections=(4, 4, 4), is_apart=True)
    x = torch.randn(24)
    turned = _turned(x, [5, 2, 3], config)
    for third, position in enumerate([5, 2, 3]):
        for pair in range(4):
            i, j = 8 * third + pair, 8 * third + pair + 4
            angle = position * 100.0 ** (-2 * (4 * third + pair) / 24)
            found = (float(turned[i]), float(turned[j]))
            assert found == pytest.approx(_pair(x, i, j, angle), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("sections", [(16, 24, 24), (22, 21, 21)], ids=["released", "thirds"])
def test_words_turn_as_with_one_axis_since_all_their_axes_agree(sections):
    x = torch.randn(1, 5, 2, 128)
    words = torch.arange(5)[None]
    plain = rope_rotation(words, 128, RopeConfig(theta=1e6))
    three = rope_rotation(
        words[..., None].expand(-1, -1, 3), 128, RopeConfig(theta=1e6, sections=sections)
    )
    torch.testing.assert_close(apply_rope(x, three), apply_rope(x, plain), atol=0, rtol=0)


def test_the_time_section_of_a_still_picture_stands_still():
    """t = 0 all over it: only rows and columns turn."""
    x = torch.randn(128)
    turned = _turned(x, [0, 2, 3], RELEASED)
    time = [*range(16), *range(64, 80)]
    torch.testing.assert_close(turned[time], x[time], atol=0, rtol=0)
    others = [i for i in range(128) if i not in time]
    assert not torch.isclose(turned[others], x[others]).all()


def test_a_tower_turns_half_the_pairs_by_row_and_half_by_column_each_from_the_fastest_on():
    x = torch.randn(16)
    turned = _turned(x, [2, 3], QWEN_TOWER)
    for pair in range(8):
        angle = [2, 3][pair // 4] * 100.0 ** (-2 * (pair % 4) / 8)
        found = (float(turned[pair]), float(turned[pair + 8]))
        assert found == pytest.approx(_pair(x, pair, pair + 8, angle), rel=1e-4, abs=1e-5)


def test_channels_of_an_axis_that_lie_apart_turn_among_themselves():
    """Gemma 4's tower: channels 0..7 by the first axis, each with its partner 4 further, 8..15 by the second."""
    x = torch.randn(16)
    turned = _turned(x, [2, 3], GEMMA_TOWER)
    for axis, position in enumerate([2, 3]):
        for pair in range(4):
            i, j = 8 * axis + pair, 8 * axis + pair + 4
            angle = position * 100.0 ** (-2 * pair / 8)
            found = (float(turned[i]), float(turned[j]))
            assert found == pytest.approx(_pair(x, i, j, angle), rel=1e-4, abs=1e-5)


_PLACE = st.tuples(st.integers(0, 40), st.integers(0, 40))
_SHIFT = st.tuples(st.integers(0, 40), st.integers(0, 40))


@given(query=_PLACE, key=_PLACE, shift=_SHIFT, config=st.sampled_from([QWEN_TOWER, GEMMA_TOWER]))
def test_scores_of_two_patches_depend_on_their_displacement_alone(query, key, shift, config):
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 16, generator=generator)

    def score(by: tuple[int, int]) -> Tensor:
        places = [[axis + d for axis, d in zip(place, by, strict=True)] for place in (query, key)]
        return _turned(q, places[0], config) @ _turned(k, places[1], config)

    torch.testing.assert_close(score(shift), score((0, 0)), rtol=0, atol=1e-3)


@given(
    places=st.tuples(*[st.tuples(*[st.integers(0, 40)] * 3)] * 2),
    shift=st.tuples(*[st.integers(0, 40)] * 3),
)
def test_scores_between_patches_of_a_clip_depend_on_the_displacement_in_time_row_and_column(
    places, shift
):
    q, k = torch.randn(2, 128, generator=torch.Generator().manual_seed(0))

    def score(by: tuple[int, ...]) -> Tensor:
        moved = [[axis + d for axis, d in zip(place, by, strict=True)] for place in places]
        return _turned(q, moved[0], RELEASED) @ _turned(k, moved[1], RELEASED)

    torch.testing.assert_close(score(shift), score((0, 0, 0)), rtol=0, atol=2e-3)


def test_one_axis_cannot_tell_a_touching_patch_from_a_far_one_and_two_axes_can():
    """Why: as raster indices in 7 columns, (3, 0) is 1 from (2, 6), at the other edge, and 7 from (2, 0), above it."""
    width, places = 7, {"above": (2, 0), "other edge": (2, 6), "here": (3, 0), "left of it": (2, 5)}
    raster = {tuple(p): i for i, p in enumerate(grid_positions(4, width).tolist())}
    q = k = torch.randn(16, generator=torch.Generator().manual_seed(0))

    def score(query: str, key: str, config: RopeConfig) -> float:
        positions = [places[query], places[key]]
        if config.sections is None:
            positions = [(raster[position],) for position in positions]
        turned = [_turned(x, list(p), config) for x, p in zip((q, k), positions, strict=True)]
        return float(turned[0] @ turned[1])

    next_door = score("other edge", "left of it", PLAIN)
    assert score("here", "other edge", PLAIN) == pytest.approx(next_door, abs=1e-4)
    assert score("here", "above", PLAIN) != pytest.approx(next_door, abs=0.1)
    next_door = score("other edge", "left of it", QWEN_TOWER)
    assert score("here", "other edge", QWEN_TOWER) != pytest.approx(next_door, abs=0.1)


def test_a_share_of_the_pairs_turns_and_the_others_stand_still():
    """Gemma 4's full layers: the first quarter, at the frequencies it would have without the others."""
    x = torch.randn(16)
    turned = _turned(x, [9], RopeConfig(theta=100.0, share=0.25))
    torch.testing.assert_close(turned[[0, 1, 8, 9]], _turned(x, [9], PLAIN)[[0, 1, 8, 9]])
    still = [2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 15]
    torch.testing.assert_close(turned[still], x[still], atol=0, rtol=0)


def test_a_factor_divides_positions():
    x = torch.randn(16)
    slower = _turned(x, [24], RopeConfig(theta=100.0, factor=8.0))
    torch.testing.assert_close(slower, _turned(x, [3], PLAIN))


def test_sections_that_do_not_fill_the_head_are_refused():
    with pytest.raises(
        ConfigError, match=r"\[16, 24, 24\] have 64 pairs; a head of 96 channels has 48"
    ):
        rope_rotation(torch.zeros(1, 1, 3, dtype=torch.int64), 96, RELEASED)


def test_sections_that_lie_apart_must_be_equal():
    with pytest.raises(ConfigError, match=r"\[22, 21, 21\] differ"):
        RopeConfig(sections=(22, 21, 21), is_apart=True)
