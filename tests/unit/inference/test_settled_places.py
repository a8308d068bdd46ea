"""Which location is said, when many next to each other are about as likely."""

import torch

from vla.inference.answer import settled_places
from vla.tokenizers.loc_seg import NUM_LOCATIONS

FIRST = 10  # of the location tokens, after ten words


def _logits(place: float, spread: float, word: float) -> torch.Tensor:
    """A word with probability `word`, and a location somewhere about `place`."""
    order = torch.arange(NUM_LOCATIONS).float()
    share = (-0.5 * ((order - place) / spread).square()).softmax(dim=0)
    probabilities = torch.full((FIRST + NUM_LOCATIONS,), 1e-9)
    probabilities[3] = word
    probabilities[FIRST:] += (1 - word) * share
    return probabilities.log()


def test_a_sure_object_is_not_called_absent_because_its_place_is_known_only_nearly():
    logits = _logits(place=400, spread=20, word=0.1)
    assert logits.argmax() == 3  # each single location is less likely than the word
    settled = settled_places(logits, FIRST)
    assert settled.argmax() == FIRST + 400
    torch.testing.assert_close(settled.softmax(-1).max(), torch.tensor(0.9), atol=1e-4, rtol=0)


def test_an_absent_object_stays_absent():
    assert settled_places(_logits(place=400, spread=20, word=0.6), FIRST).argmax() == 3


def test_a_heap_of_likely_places_beats_a_single_likelier_one():
    logits = torch.full((FIRST + NUM_LOCATIONS,), -20.0)
    logits[FIRST + 700] = 0.5
    logits[FIRST + 95 : FIRST + 106] = 0.0
    assert settled_places(logits, FIRST).argmax() == FIRST + 100


def test_words_keep_their_odds():
    logits = torch.randn(4, FIRST + NUM_LOCATIONS, generator=torch.Generator().manual_seed(0))
    settled = settled_places(logits, FIRST)
    torch.testing.assert_close(settled[:, :FIRST], logits[:, :FIRST])
    torch.testing.assert_close(settled.logsumexp(dim=-1), logits.logsumexp(dim=-1))
    assert (settled[:, FIRST:] > -torch.inf).sum(dim=-1).tolist() == [1] * 4
