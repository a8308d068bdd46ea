"""Self-distillation losses against versions that spell out the sums."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vla.errors import ConfigError
from vla.losses.self_distillation import (
    assignment_entropy,
    centred,
    dino_loss,
    feature_spread,
    ibot_loss,
    koleo_loss,
    moved_centre,
    sinkhorn_knopp,
)

PROTOTYPES = 7


def logits(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, PROTOTYPES, generator=torch.Generator().manual_seed(seed))


def naive_dino(student: Tensor, teacher: Tensor, temperature: float) -> float:
    pairs = []
    for t, taught in enumerate(teacher):
        for s, said in enumerate(student):
            if s != t:
                nats = -(taught * torch.log_softmax(said / temperature, dim=-1)).sum(dim=-1)
                pairs.append(float(nats.mean()))
    return sum(pairs) / len(pairs)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), num_local=st.integers(0, 4))
def test_dino_compares_every_crop_with_every_other_of_the_teachers(seed: int, num_local: int):
    teacher = logits(seed, 2, 3).softmax(dim=-1)
    student = logits(seed + 1, 2 + num_local, 3)
    expected = naive_dino(student, teacher, 0.1)
    assert dino_loss(student, teacher, 0.1).item() == pytest.approx(expected, rel=1e-5)


def test_dino_does_not_ask_a_crop_about_itself():
    teacher, student = logits(0, 2, 3).softmax(dim=-1), logits(1, 2, 3)
    loss = dino_loss(student, teacher)
    changed = torch.stack([teacher[0], logits(5, 3).softmax(dim=-1)])
    only_first_teacher = dino_loss(student, torch.stack([teacher[0], torch.zeros(3, PROTOTYPES)]))
    moved = student.clone()
    moved[0] = 0.0  # the first crop is asked only about the second teacher
    zeroed = dino_loss(moved, torch.stack([teacher[0], torch.zeros(3, PROTOTYPES)]))
    assert zeroed.item() == pytest.approx(only_first_teacher.item(), rel=1e-6)
    assert dino_loss(student, changed).item() != pytest.approx(loss.item(), rel=1e-3)


def test_one_crop_alone_is_refused():
    with pytest.raises(ConfigError, match="got 1, expected 2 or more"):
        dino_loss(logits(0, 1, 3), logits(1, 1, 3).softmax(dim=-1))


def test_ibot_is_a_mean_over_the_hidden_patches_of_each_picture_and_then_over_pictures():
    hidden = [2, 0, 3]  # patches of three pictures
    student, teacher = logits(2, 5), logits(3, 5).softmax(dim=-1)
    weights = torch.tensor([1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 3])
    nats = [
        -float((t * torch.log_softmax(s / 0.1, dim=-1)).sum())
        for s, t in zip(student, teacher, strict=True)
    ]
    expected = (sum(nats[:2]) / hidden[0] + sum(nats[2:]) / hidden[2]) / 3
    assert ibot_loss(student, teacher, weights, 3).item() == pytest.approx(expected, rel=1e-5)


def test_koleo_is_the_logarithm_of_the_distance_to_the_nearest_neighbour():
    features = torch.randn(6, 4, generator=torch.Generator().manual_seed(4))
    unit = features / features.norm(dim=1, keepdim=True)
    nearest = [min(float((unit[i] - unit[j]).norm()) for j in range(6) if j != i) for i in range(6)]
    expected = -sum(math.log(distance) for distance in nearest) / 6
    assert koleo_loss(features).item() == pytest.approx(expected, rel=1e-5)


def test_koleo_pushes_the_closest_two_apart():
    features = torch.nn.functional.normalize(
        torch.tensor([[1.0, 0.05], [1.0, -0.05], [-1.0, 0.0]]), dim=-1
    ).requires_grad_()
    koleo_loss(features).backward()
    assert features.grad is not None
    stepped = features.detach() - 0.01 * features.grad
    distance = (stepped[0] - stepped[1]).norm()
    assert distance > (features[0] - features[1]).norm()


def test_sinkhorn_gives_every_token_one_and_every_prototype_as_much():
    shares = sinkhorn_knopp(logits(5, 28), 0.5, num_iterations=50)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(28))
    torch.testing.assert_close(
        shares.sum(dim=0), torch.full((PROTOTYPES,), 28 / PROTOTYPES), rtol=1e-3, atol=1e-3
    )


def test_sinkhorn_equals_the_papers_loop():
    given_logits = logits(6, 4)
    table = (given_logits / 0.07).exp().T  # (prototypes, tokens), as in dino_clstoken_loss.py
    table = table / table.sum()
    for _ in range(3):
        table = table / table.sum(dim=1, keepdim=True) / PROTOTYPES
        table = table / table.sum(dim=0, keepdim=True) / 4
    torch.testing.assert_close(sinkhorn_knopp(given_logits, 0.07), (table * 4).T)


def test_centring_takes_away_what_a_prototype_always_gets():
    favoured = logits(7, 64)
    favoured[:, 2] += 5.0
    centre = torch.zeros(PROTOTYPES)
    for _ in range(100):
        centre = moved_centre(centre, favoured)
    assert int(centred(favoured, torch.zeros(PROTOTYPES), 1.0).mean(dim=0).argmax()) == 2
    fair = centred(favoured, centre, 1.0).mean(dim=0)
    assert float(fair.max() / fair.min()) < 1.5


def test_spread_and_entropy_are_none_when_everything_is_alike_and_full_when_nothing_is():
    alike = torch.ones(100, 8) + 1e-4 * torch.randn(100, 8)
    assert feature_spread(alike).item() < 1e-3
    assert feature_spread(torch.randn(2000, 8)).item() == pytest.approx(1.0, abs=0.02)
    assert assignment_entropy(torch.eye(PROTOTYPES)).item() == pytest.approx(1.0)
    one = torch.zeros(5, PROTOTYPES)
    one[:, 3] = 1.0
    assert assignment_entropy(one).item() == pytest.approx(0.0, abs=1e-6)
