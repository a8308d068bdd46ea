import numpy as np
import pytest

from policies.ensemble import TemporalEnsemble


def _naive(chunks, decay):
    """For each step: all actions foreseen for it, oldest first, weighted exp(-decay * i)."""
    out = []
    for step in range(len(chunks)):
        seen = [
            chunks[made][step - made] for made in range(step + 1) if step - made < len(chunks[made])
        ]
        weights = np.exp(-decay * np.arange(len(seen)))
        out.append((weights[:, None] * np.stack(seen)).sum(0) / weights.sum())
    return np.stack(out)


@pytest.mark.parametrize("decay", [0.0, 0.01, 1.0])
def test_it_equals_the_average_over_all_chunks_that_foresaw_the_step(decay):
    chunks = np.random.default_rng(0).normal(size=(9, 4, 7)).astype(np.float32)
    ensemble = TemporalEnsemble(decay)
    ours = np.stack([ensemble.add(chunk) for chunk in chunks])
    np.testing.assert_allclose(ours, _naive(chunks, decay), atol=1e-6)


def test_the_first_step_is_the_first_chunks_own():
    chunk = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(TemporalEnsemble(0.1).add(chunk), chunk[0])


def test_reset_forgets_the_last_episode():
    ensemble = TemporalEnsemble(0.0)
    ensemble.add(np.full((4, 2), 9.0, np.float32))
    ensemble.reset()
    np.testing.assert_array_equal(ensemble.add(np.zeros((4, 2), np.float32)), [0, 0])
