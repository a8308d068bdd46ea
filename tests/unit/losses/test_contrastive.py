"""Contrastive losses against versions that spell out the sums."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from vla.errors import ConfigError
from vla.losses.contrastive import SigLipScale, clip_loss, siglip_loss

BATCH, WIDTH = 6, 5


def embeddings(seed: int, batch: int = BATCH) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pictures, texts = torch.randn(2, batch, WIDTH, generator=generator)
    return F.normalize(pictures, dim=-1), F.normalize(texts, dim=-1)


def naive_siglip(images: Tensor, texts: Tensor, temperature: float, bias: float) -> float:
    total = 0.0
    for i, image in enumerate(images):
        for j, text in enumerate(texts):
            logit = temperature * float(image @ text) + bias
            belongs = 1.0 if i == j else -1.0
            total += math.log1p(math.exp(-belongs * logit))
    return total / len(images)


def test_siglip_is_a_binary_question_for_every_pair():
    images, texts = embeddings(0)
    loss = siglip_loss(images, texts, torch.tensor(math.log(3.0)), torch.tensor(-1.5))
    assert loss.item() == pytest.approx(naive_siglip(images, texts, 3.0, -1.5), abs=1e-5)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), chunk_size=st.integers(1, 9))
def test_taking_texts_in_chunks_changes_neither_loss_nor_gradient(seed: int, chunk_size: int):
    images, texts = embeddings(seed)
    found = []
    for size in (None, chunk_size):
        leaves = [images.clone().requires_grad_(), texts.clone().requires_grad_()]
        scale = SigLipScale()
        loss = siglip_loss(*leaves, scale.log_temperature, scale.bias, chunk_size=size)
        loss.backward()
        grads = [leaf.grad for leaf in [*leaves, scale.log_temperature, scale.bias]]
        found.append([loss.detach(), *grads])
    for whole, chunked in zip(*found, strict=True):
        assert torch.allclose(whole, chunked, atol=1e-6)


def test_one_pair_more_leaves_the_other_pairs_alone():
    """The point of the sigmoid: a pair's term does not depend on who else is in the batch."""
    images, texts = embeddings(1)
    scale = SigLipScale()

    def pairs_of(count: int) -> float:
        loss = siglip_loss(images[:count], texts[:count], scale.log_temperature, scale.bias)
        return count * loss.item()

    alone = naive_siglip(images[:3], texts[:3], 10.0, -10.0) * 3
    assert pairs_of(3) == pytest.approx(alone, rel=1e-5)
    rest = naive_siglip(images[:4], texts[:4], 10.0, -10.0) * 4 - alone
    assert pairs_of(4) - pairs_of(3) == pytest.approx(rest, rel=1e-4)


def test_the_bias_starts_where_most_pairs_do_not_belong_together():
    images, texts = embeddings(2, batch=64)
    scale = SigLipScale()
    started = siglip_loss(images, texts, scale.log_temperature, scale.bias)
    unbiased = siglip_loss(images, texts, scale.log_temperature, torch.tensor(0.0))
    assert started.item() < 0.5 * unbiased.item()


def test_clip_normalises_over_the_batch_in_both_directions():
    images, texts = embeddings(3)
    cosine = images @ texts.T
    expected = 0.0
    for matrix in (cosine, cosine.T):
        for i in range(BATCH):
            row = [7.0 * float(value) for value in matrix[i]]
            expected += math.log(sum(math.exp(value) for value in row)) - row[i]
    loss = clip_loss(images, texts, torch.tensor(math.log(7.0)))
    assert loss.item() == pytest.approx(expected / (2 * BATCH), abs=1e-5)


def test_a_text_too_many_is_refused():
    images, texts = embeddings(4)
    scale = SigLipScale()
    with pytest.raises(ConfigError, match="5 pictures and 6 texts"):
        siglip_loss(images[:5], texts, scale.log_temperature, scale.bias)
    with pytest.raises(ConfigError, match="chunk_size must be at least 1; got 0"):
        siglip_loss(images, texts, scale.log_temperature, scale.bias, chunk_size=0)


ONE_PROCESS = """
import json, sys
import torch
from torch import distributed
from torch.nn import functional as F
from vla.losses.contrastive import SigLipScale, siglip_loss_distributed

rank, address = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
pictures, texts = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(5))
images = F.normalize(pictures, dim=-1).chunk(2)[rank].clone()
texts = F.normalize(texts, dim=-1).chunk(2)[rank].clone().requires_grad_()
scale = SigLipScale()
loss = siglip_loss_distributed(images, texts, scale.log_temperature, scale.bias)
loss.backward()
print(json.dumps([loss.item(), texts.grad.tolist()]))
distributed.destroy_process_group()
"""


def test_two_processes_that_gather_their_texts_train_on_the_joined_batch(tmp_path: Path):
    address = f"file://{tmp_path}/rendezvous"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ONE_PROCESS, str(rank), address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in (0, 1)
    ]
    answers = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], answers
    losses, grads = zip(*(json.loads(out) for out, _ in answers), strict=True)
    images, texts = embeddings(5)
    texts.requires_grad_()
    scale = SigLipScale()
    whole = siglip_loss(images, texts, scale.log_temperature, scale.bias)
    whole.backward()
    assert sum(losses) / 2 == pytest.approx(whole.item(), abs=1e-6)
    assert texts.grad is not None
    joined = torch.cat([torch.tensor(part) for part in grads]) / 2  # the mean over processes
    assert torch.allclose(joined, texts.grad, atol=1e-6)
