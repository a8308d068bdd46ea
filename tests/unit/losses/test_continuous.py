import pytest
import torch

from vla.losses.continuous import draw_flow, flow_matching_loss, l1_loss
from vla.losses.flow_times import FlowTimes

torch.manual_seed(0)
ACTIONS, OTHER = torch.rand(2, 2, 3, 7) * 2 - 1
VALID = torch.tensor([[True, True, False], [True, False, False]])


def _naive(error) -> float:
    found = [
        error(float(ACTIONS[b, k, a]), float(OTHER[b, k, a]))
        for b, k in VALID.nonzero().tolist()
        for a in range(7)
    ]
    return sum(found) / len(found)


def test_both_losses_agree_with_a_loop_over_the_numbers_of_valid_steps():
    absolute = l1_loss(ACTIONS, OTHER, VALID)
    squared = flow_matching_loss(ACTIONS, OTHER, VALID)
    assert float(absolute) == pytest.approx(_naive(lambda x, y: abs(x - y)), rel=1e-5)
    assert float(squared) == pytest.approx(_naive(lambda x, y: (x - y) ** 2), rel=1e-5)


def test_a_batch_without_any_valid_step_costs_nothing_and_bf16_is_summed_in_fp32():
    nothing = torch.zeros_like(VALID)
    assert float(l1_loss(ACTIONS, OTHER, nothing)) == 0.0
    low = l1_loss(ACTIONS.bfloat16(), OTHER, VALID)
    assert low.dtype is torch.float32
    assert float(low) == pytest.approx(_naive(lambda x, y: abs(x - y)), rel=1e-2)


@pytest.mark.parametrize("times", list(FlowTimes))
def test_going_on_at_the_true_velocity_leads_from_the_noisy_chunk_to_the_actions(times):
    generator = torch.Generator().manual_seed(0)
    draw = draw_flow(ACTIONS, times, generator)
    left = (1 - draw.time)[:, None, None]
    torch.testing.assert_close(draw.noisy + left * draw.velocity, ACTIONS)
    back = draw.noisy - draw.time[:, None, None] * draw.velocity
    torch.testing.assert_close(back, ACTIONS - draw.velocity)  # the noise


def test_times_are_spread_as_their_distribution_says():
    generator = torch.Generator().manual_seed(0)
    chunks = torch.zeros(100_000, 1, 1)
    uniform = draw_flow(chunks, FlowTimes.UNIFORM, generator).time
    beta = draw_flow(chunks, FlowTimes.BETA, generator).time
    assert float(uniform.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(beta.mean()) == pytest.approx(0.999 * 0.4, abs=0.01)  # 1 - 1.5 / 2.5
    assert float(beta.max()) <= 0.999
    for share in (0.1, 0.5, 0.9):  # P(b <= share) = share ** 1.5 with b = 1 - time / 0.999
        found = (1 - beta / 0.999 <= share).float().mean()
        assert float(found) == pytest.approx(share**1.5, abs=0.01)


def test_the_noise_of_a_draw_is_standard_normal_and_repeats_with_its_generator():
    chunks = torch.full((2000, 4, 2), 0.7)
    first, again, other = (
        draw_flow(chunks, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    noise = chunks - first.velocity
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.05)
    assert float(noise.std()) == pytest.approx(1.0, abs=0.05)
    assert torch.equal(first.noisy, again.noisy)
    assert not torch.equal(first.noisy, other.noisy)
