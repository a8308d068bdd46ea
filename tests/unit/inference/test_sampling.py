import math

import pytest
import torch

from vla.errors import ConfigError
from vla.inference.sampling import Sampling, cautious, choose


def _draw(logits: torch.Tensor, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    return choose(logits, sampling, torch.Generator().manual_seed(0))


def test_temperature_zero_takes_the_likeliest_and_its_probability():
    logits = torch.zeros(2, 3, 256)
    logits[..., 7] = 2.0
    chosen, probability = choose(logits)
    assert chosen.unique().tolist() == [7]
    expected = logits.softmax(dim=-1)[..., 7]
    torch.testing.assert_close(probability, expected)


def test_sampling_follows_the_probabilities():
    logits = torch.full((4000, 256), -1e9)
    logits[:, 10], logits[:, 200] = 0.0, 1.0
    chosen, probability = _draw(logits, Sampling(temperature=1.0))
    share = float((chosen == 200).float().mean())
    assert set(chosen.tolist()) == {10, 200}
    assert share == pytest.approx(0.731, abs=0.03)
    assert float(probability[chosen == 200][0]) == pytest.approx(0.731, abs=1e-3)


def test_a_low_temperature_sharpens():
    logits = torch.zeros(1000, 256)
    logits[:, 3] = 1.0
    chosen, _ = _draw(logits, Sampling(temperature=0.05))
    assert (chosen == 3).float().mean() > 0.99


def test_top_k_draws_from_the_k_likeliest_and_shares_their_probability():
    logits = torch.tensor([0.0, 3.0, 1.0, 2.0]).expand(2000, 4)
    chosen, probability = _draw(logits, Sampling(temperature=1.0, top_k=2))
    assert set(chosen.tolist()) == {1, 3}
    assert float(probability[chosen == 1][0]) == pytest.approx(1 / (1 + math.exp(-1)))


def test_top_k_of_more_than_there_are_takes_all():
    logits = torch.zeros(2000, 3)
    chosen, _ = _draw(logits, Sampling(temperature=1.0, top_k=10))
    assert set(chosen.tolist()) == {0, 1, 2}


def test_top_p_draws_from_the_fewest_that_reach_the_probability():
    logits = torch.tensor([0.2, 0.5, 0.05, 0.25]).log().expand(2000, 4)
    chosen, probability = _draw(logits, Sampling(temperature=1.0, top_p=0.7))
    assert set(chosen.tolist()) == {1, 3}
    assert float(probability[chosen == 1][0]) == pytest.approx(2 / 3)


def test_a_tiny_top_p_still_leaves_the_likeliest():
    logits = torch.tensor([0.0, 1.0, 0.5]).expand(100, 3)
    chosen, probability = _draw(logits, Sampling(temperature=1.0, top_p=1e-6))
    assert set(chosen.tolist()) == {1}
    assert float(probability[0]) == 1.0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"temperature": -1.0}, "temperature = -1.0; give a number from 0"),
        ({"temperature": math.nan}, "temperature = nan"),
        ({"top_k": -1}, "top_k = -1; give the number of candidates"),
        ({"top_p": 0.0}, "top_p = 0.0; give a probability above 0"),
    ],
)
def test_a_setting_out_of_range_is_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        Sampling(**setting)


# Six in ten of the probability say "down", spread over five bins; four in ten say "up", all in one.
DIVIDED = torch.tensor([0.12, 0.12, 0.12, 0.12, 0.12, 0.0, 0.0, 0.4]).clamp(min=1e-9).log()[None]


def test_caution_goes_with_the_larger_part_where_the_mode_goes_with_the_sharper():
    assert choose(DIVIDED)[0].item() == 7
    chosen, probability = cautious(DIVIDED, 0.3)  # without a rest: the median
    assert chosen.item() == 4
    assert probability.item() == pytest.approx(0.12, abs=1e-4)


@pytest.mark.parametrize(("rest", "chosen"), [(0, 2), (3, 3), (4, 4), (7, 7), (-1, 4)])
def test_of_the_middle_of_the_probability_the_bin_nearest_to_rest_is_taken(rest, chosen):
    # The middle 30 %, from 0.35 to 0.65, begins in bin 2 and ends in bin 7.
    assert cautious(DIVIDED, 0.3, torch.tensor([rest]))[0].item() == chosen


@pytest.mark.parametrize(("share", "chosen"), [(0.0, 4), (0.1, 3), (0.3, 2), (0.9, 0)])
def test_the_larger_the_share_the_nearer_to_rest(share, chosen):
    assert cautious(DIVIDED, share, torch.tensor([0]))[0].item() == chosen


@pytest.mark.parametrize("rest", [0, 7, -1])
def test_a_share_of_nothing_is_the_median_wherever_rest_is(rest):
    assert cautious(DIVIDED, 0.0, torch.tensor([rest]))[0].item() == 4


def test_a_certain_bin_is_taken_whatever_rest_is():
    for bin_index in (0, 3, 7):
        logits = torch.full((1, 8), -1e9)
        logits[0, bin_index] = 0.0
        assert cautious(logits, 0.3, torch.tensor([5]))[0].item() == bin_index
