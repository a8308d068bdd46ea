import math

import torch

from vla.nn.rope import apply_rope, rope_rotation


def test_each_pair_of_half_split_channels_turns_by_position_times_frequency():
    x = torch.tensor([1.0, 10.0, 2.0, 20.0]).view(1, 1, 1, 4)  # pairs (1, 2) and (10, 20)
    turned = apply_rope(x, rope_rotation(torch.tensor([[3]]), 4, theta=100.0)).flatten().tolist()
    for channel, (first, second) in enumerate([(1.0, 2.0), (10.0, 20.0)]):
        angle = 3 * 100.0 ** (-2 * channel / 4)
        cosine, sine = math.cos(angle), math.sin(angle)
        assert math.isclose(turned[channel], first * cosine - second * sine, rel_tol=1e-5)
        assert math.isclose(turned[channel + 2], second * cosine + first * sine, rel_tol=1e-5)


def test_position_zero_changes_nothing():
    x = torch.randn(2, 1, 3, 8)
    rotation = rope_rotation(torch.zeros(2, 1, dtype=torch.int64), 8, theta=10000.0)
    torch.testing.assert_close(apply_rope(x, rotation), x)


def test_scores_depend_on_the_distance_between_tokens_alone():
    q, k = torch.randn(1, 1, 1, 16), torch.randn(1, 1, 1, 16)

    def score(query_position: int, key_position: int) -> float:
        turned_q = apply_rope(q, rope_rotation(torch.tensor([[query_position]]), 16, 10000.0))
        turned_k = apply_rope(k, rope_rotation(torch.tensor([[key_position]]), 16, 10000.0))
        return float((turned_q * turned_k).sum())

    assert math.isclose(score(5, 2), score(105, 102), rel_tol=1e-3, abs_tol=1e-4)


def test_bf16_tokens_stay_bf16_and_far_positions_stay_apart():
    x = torch.ones(1, 2, 1, 4, dtype=torch.bfloat16)
    turned = apply_rope(x, rope_rotation(torch.tensor([[1000, 1001]]), 4, theta=10000.0))
    assert turned.dtype is torch.bfloat16
    assert not torch.equal(turned[0, 0], turned[0, 1])
