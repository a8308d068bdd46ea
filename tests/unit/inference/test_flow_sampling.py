import dataclasses
from functools import cache

import pytest
import torch

from vla.control.guidance import guided_chunk
from vla.errors import ConfigError
from vla.inference.flow_guidance import sample_guided
from vla.losses.continuous import draw_flow, flow_matching_loss, l1_loss
from vla.losses.flow_times import FlowTimes
from vla.models.action_heads import FlowActionHead, L1ActionHead
from vla.models.decoder import Decoder
from vla.models.decoder_config import DecoderConfig
from vla.models.flow_sampling import cached_velocity, sample
from vla.models.initialisation import initialise
from vla.models.sequence import Prefix, continued, read

SHAPE = DecoderConfig(
    vocab_size=10, width=32, depth=2, num_heads=2, num_kv_heads=1, head_dim=16, mlp_width=64
)
WINDOWED = dataclasses.replace(SHAPE, window=3, full_layers=[1])
STEPS, DIMS = 4, 2
LEFT_OR_RIGHT = torch.linspace(0.3, 0.9, STEPS)[:, None] * torch.tensor([1.0, -1.0])


class _Model(torch.nn.Module):
    """A bare decoder and a head."""

    def __init__(self, head: type[L1ActionHead | FlowActionHead], shape: DecoderConfig = SHAPE):
        super().__init__()
        self.decoder = Decoder(shape)
        self.head = head(shape.width, STEPS, DIMS)
        initialise(self)

    def forward(self, prefix: Prefix, *given: torch.Tensor):
        suffix = self.head.suffix(*(given or (len(prefix.valid),)))
        hidden = read(self.decoder, continued(prefix, suffix, is_parallel=True))
        return self.head.read(hidden[:, -suffix.shape[1] :])


def _prefix(batch: int) -> Prefix:
    """Five tokens, the last two of the second row padding."""
    torch.manual_seed(1)
    valid = torch.ones(batch, 5, dtype=torch.bool)
    valid[1:2, 3:] = False
    positions = torch.arange(5).expand(batch, -1).clamp(max=int(valid[-1].sum()) + 1)
    return Prefix(
        embeddings=torch.randn(1, 5, 32).expand(batch, -1, -1),
        valid=valid,
        positions=positions,
        blocks=torch.zeros(batch, 5, dtype=torch.int64),
        token_ids=torch.zeros(batch, 5, dtype=torch.int64),
        suffix_mask=torch.zeros(batch, 5, dtype=torch.bool),
        is_image=torch.zeros(batch, 5, dtype=torch.bool),
    )


@pytest.mark.parametrize("shape", [SHAPE, WINDOWED], ids=["full", "windowed"])
def test_sampling_with_the_prefix_in_a_cache_equals_reading_it_again_at_every_step(shape):
    torch.manual_seed(0)
    model, prefix = _Model(FlowActionHead, shape).eval(), _prefix(3)
    noise = torch.randn(3, STEPS, DIMS)
    with torch.no_grad():
        fast = sample(cached_velocity(model.head, model.decoder, prefix), noise, 5)
        slow = sample(lambda noisy, time: model(prefix, noisy, time).velocity, noise, 5)
    assert float((fast - noise).abs().mean()) > 0.1
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=1e-4)


def test_padding_of_the_prefix_changes_no_chunk():
    torch.manual_seed(0)
    model, prefix = _Model(FlowActionHead).eval(), _prefix(2)
    short = Prefix(
        **{
            name: value[1:2, :3] if isinstance(value, torch.Tensor) else value
            for name, value in vars(prefix).items()
        }
    )
    noise = torch.randn(1, STEPS, DIMS).expand(2, -1, -1)
    with torch.no_grad():
        padded = sample(cached_velocity(model.head, model.decoder, prefix), noise)[1:]
        plain = sample(cached_velocity(model.head, model.decoder, short), noise[:1])
    torch.testing.assert_close(padded, plain, atol=1e-5, rtol=1e-4)


def test_a_flow_takes_at_least_one_step():
    with pytest.raises(ConfigError, match="num_steps = 0"):
        sample(lambda noisy, time: noisy, torch.zeros(1, 2, 2), 0)


@cache
def _trained(head: type[L1ActionHead | FlowActionHead]) -> _Model:
    """After demonstrations of which half go left and half go right."""
    torch.manual_seed(0)
    model, prefix = _Model(head, dataclasses.replace(SHAPE, depth=1)), _prefix(32)
    prefix.valid = torch.ones_like(prefix.valid)
    chunks = torch.cat([LEFT_OR_RIGHT.expand(16, -1, -1), -LEFT_OR_RIGHT.expand(16, -1, -1)])
    valid = torch.ones(32, STEPS, dtype=torch.bool)
    optimizer = torch.optim.Adam(model.parameters(), lr=6e-3)
    for _ in range(150 if head is FlowActionHead else 50):
        if head is FlowActionHead:
            draw = draw_flow(chunks, FlowTimes.UNIFORM)
            found = model(prefix, draw.noisy, draw.time).velocity
            loss = flow_matching_loss(found, draw.velocity, valid)
        else:
            loss = l1_loss(model(prefix).actions, chunks, valid)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def _distances(chunks: torch.Tensor) -> torch.Tensor:
    """(chunks, 2) mean absolute distance from left and from right."""
    ways = torch.stack([LEFT_OR_RIGHT, -LEFT_OR_RIGHT])
    return (chunks[:, None] - ways).abs().mean(dim=(2, 3))


def test_a_flow_learns_to_go_left_or_right_where_the_absolute_error_leads_in_between():
    prefix = _prefix(64)
    prefix.valid = torch.ones_like(prefix.valid)
    noise = torch.randn(64, STEPS, DIMS, generator=torch.Generator().manual_seed(0))
    flow, regression = _trained(FlowActionHead), _trained(L1ActionHead)
    with torch.no_grad():
        flown = _distances(sample(cached_velocity(flow.head, flow.decoder, prefix), noise))
        told = _distances(regression(prefix).actions)
    assert float(flown.amin(dim=1).median()) < 0.15  # the ways are 1.2 apart
    assert 0.25 < float((flown[:, 0] < flown[:, 1]).float().mean()) < 0.75  # both ways are gone
    assert float(told.amin(dim=1).min()) > 0.3  # neither way


def test_the_same_noise_is_guided_along_whichever_way_was_begun():
    flow, prefix = _trained(FlowActionHead), _prefix(1)
    velocity = cached_velocity(flow.head, flow.decoder, prefix)
    noises = torch.randn(6, 1, STEPS, DIMS, generator=torch.Generator().manual_seed(0))

    def begun(settled: torch.Tensor) -> torch.Tensor:
        chunks = [sample_guided(velocity, noise, settled, guided_chunk)[0] for noise in noises]
        return torch.stack(chunks).detach()

    left, right = begun(LEFT_OR_RIGHT[:2]), begun(-LEFT_OR_RIGHT[:2])
    for chunks, way in ((left, LEFT_OR_RIGHT), (right, -LEFT_OR_RIGHT)):
        off = (chunks[:, :2] - way[:2]).abs().amax(dim=(1, 2))
        assert float(off.median()) < 0.25
    apart = (left - right)[:, -1, 0].mean()  # of the last action, which nothing settled
    assert float(apart) > 0.8


def test_without_settled_actions_the_guide_leaves_the_flow_alone():
    flow, prefix = _trained(FlowActionHead), _prefix(1)
    velocity = cached_velocity(flow.head, flow.decoder, prefix)
    noise = torch.randn(1, STEPS, DIMS, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        free = sample(velocity, noise)
    guided = sample_guided(velocity, noise, torch.zeros(0, DIMS), guided_chunk)
    torch.testing.assert_close(guided.detach(), free, atol=1e-5, rtol=1e-4)
