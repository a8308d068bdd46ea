import numpy as np
import torch

from vla.control.guidance import guided_chunk
from vla.inference.flow_guidance import torch_velocity


class _SmallFlow(torch.nn.Module):
    """A velocity field over chunks of 6 steps and 2 dimensions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(13, 64), torch.nn.Tanh(), torch.nn.Linear(64, 12)
        )

    def forward(self, chunk: torch.Tensor, time: float) -> torch.Tensor:
        return self.layers(torch.cat([chunk.flatten(), chunk.new_tensor([time])])).view(6, 2)


def _train(flow: _SmallFlow) -> None:
    """Straight lines of random slope through the origin of dimension 0; dimension 1 is the slope's negative."""
    rng = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(flow.parameters(), lr=5e-3)
    ramp = torch.linspace(0.2, 1.0, 6)[:, None]
    for _ in range(1500):
        slope = torch.randn((), generator=rng)
        data = torch.cat([slope * ramp, -slope * ramp], dim=1)
        noise, time = torch.randn(6, 2, generator=rng), float(torch.rand((), generator=rng))
        speed = flow(time * data + (1 - time) * noise, time)
        loss = (speed - (data - noise)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_the_pull_back_is_the_vector_jacobian_product():
    flow = _SmallFlow()
    chunk, vector = np.random.default_rng(0).standard_normal((2, 6, 2))
    speed, pull_back = torch_velocity(flow)(chunk, 0.3)
    jacobian = torch.autograd.functional.jacobian(
        lambda x: flow(x, 0.3), torch.tensor(chunk, dtype=torch.float32)
    )
    expected = torch.einsum("sd,sdtw->tw", torch.tensor(vector, dtype=torch.float32), jacobian)
    np.testing.assert_allclose(pull_back(vector), expected.numpy(), atol=1e-5)
    assert speed.shape == (6, 2)


def test_a_trained_flow_continues_the_line_that_was_begun():
    flow = _SmallFlow()
    _train(flow)
    velocity = torch_velocity(flow)
    ramp = np.linspace(0.2, 1.0, 6)[:, None]
    for slope in (-1.0, 1.0):
        settled = np.hstack([slope * ramp, -slope * ramp])[:3]
        noises = np.random.default_rng(1).standard_normal((10, 6, 2))
        chunks = [guided_chunk(velocity, noise, settled, num_committed=3) for noise in noises]
        mean = np.mean(chunks, axis=0)
        np.testing.assert_allclose(mean[:3], settled, atol=0.3)
        assert np.sign(mean[3:, 0]).tolist() == [slope] * 3
        assert np.sign(mean[3:, 1]).tolist() == [-slope] * 3
