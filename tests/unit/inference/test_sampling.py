import pytest
import torch

from vla.inference.sampling import choose_bins


def test_temperature_zero_takes_the_likeliest_bin_and_its_probability():
    logits = torch.zeros(2, 3, 256)
    logits[..., 7] = 2.0
    bins, probability = choose_bins(logits)
    assert bins.unique().tolist() == [7]
    expected = logits.softmax(dim=-1)[..., 7]
    torch.testing.assert_close(probability, expected)


def test_sampling_follows_the_probabilities():
    logits = torch.full((4000, 256), -1e9)
    logits[:, 10], logits[:, 200] = 0.0, 1.0
    generator = torch.Generator().manual_seed(0)
    bins, probability = choose_bins(logits, temperature=1.0, generator=generator)
    share = float((bins == 200).float().mean())
    assert set(bins.tolist()) == {10, 200}
    assert share == pytest.approx(0.731, abs=0.03)
    assert float(probability[bins == 200][0]) == pytest.approx(0.731, abs=1e-3)


def test_a_low_temperature_sharpens():
    logits = torch.zeros(1000, 256)
    logits[:, 3] = 1.0
    bins, _ = choose_bins(logits, temperature=0.05, generator=torch.Generator().manual_seed(0))
    assert (bins == 3).float().mean() > 0.99
