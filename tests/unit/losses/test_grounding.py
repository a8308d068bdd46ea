import pytest
import torch

from vla.losses.grounding import grounding_losses, patch_of_pixel


def test_a_pixel_belongs_to_the_patch_that_holds_it():
    pixels = torch.tensor([[0.0, 0.0], [0.26, 0.0], [0.0, 0.26], [0.99, 0.5], [1.0, 1.0]])
    assert patch_of_pixel(pixels, 16).tolist() == [0, 1, 4, 11, 15]


def test_pointing_counts_only_the_views_that_show_the_object():
    logits = torch.randn(2, 2, 16)
    labels = torch.tensor(
        [
            [0.0, 0.0, 0.0, 0.3, 0.1, -1.0, -1.0],  # front patch 1, wrist unseen
            [0.0, 0.0, 0.0, 0.9, 0.9, 0.1, 0.6],  # front patch 15, wrist patch 8
        ]
    )
    terms = grounding_losses(logits, torch.zeros(2, 3), labels)
    log_p = logits.log_softmax(dim=-1)
    expected = -(log_p[0, 0, 1] + log_p[1, 0, 15] + log_p[1, 1, 8]) / 3
    torch.testing.assert_close(terms["pointing"], expected)


def test_an_object_nobody_sees_costs_nothing_in_pointing():
    labels = torch.tensor([[0.1, 0.0, 0.0, -1.0, -1.0, -1.0, -1.0]])
    terms = grounding_losses(torch.randn(1, 2, 16), torch.zeros(1, 3), labels)
    assert float(terms["pointing"]) == 0.0


def test_offsets_are_compared_in_decimetres():
    labels = torch.tensor([[0.3, 0.0, 0.0, -1.0, -1.0, -1.0, -1.0]])  # 3 dm away in x
    terms = grounding_losses(torch.randn(1, 2, 16), torch.zeros(1, 3), labels)
    assert float(terms["offset"]) == pytest.approx((3.0 - 0.5) / 3)  # linear beyond 1 dm, mean of 3
