import numpy as np
import pytest

from vla.errors import ConfigError
from vla.tokenizers.prompt_batch import Padding, PromptRow, pad_prompts

ROWS = [PromptRow.of(([5, 6, 7], False), ([8, 1], True)), PromptRow.of(([5], False), ([1], True))]


def test_rows_are_padded_on_the_right():
    batch = pad_prompts(ROWS, pad_id=0, max_tokens=9)
    assert batch.ids.tolist() == [[5, 6, 7, 8, 1], [5, 1, 0, 0, 0]]
    assert batch.valid.tolist() == [[True] * 5, [True, True, False, False, False]]
    assert np.argwhere(batch.suffix_mask).tolist() == [[0, 3], [0, 4], [1, 1]]


def test_rows_are_padded_on_the_left():
    batch = pad_prompts(ROWS, pad_id=0, max_tokens=5, padding=Padding.LEFT)
    assert batch.ids.tolist() == [[5, 6, 7, 8, 1], [0, 0, 0, 5, 1]]
    assert batch.valid[1].tolist() == [False, False, False, True, True]
    assert batch.suffix_mask[1].tolist() == [False] * 4 + [True]


def test_a_prompt_longer_than_the_context_is_refused_with_the_numbers():
    with pytest.raises(ConfigError, match=r"prompt 0 takes 5 tokens, 2 of them answer; .* reads 4"):
        pad_prompts(ROWS, pad_id=0, max_tokens=4)


def test_no_prompts_are_refused():
    with pytest.raises(ConfigError, match="no prompts"):
        pad_prompts([], pad_id=0, max_tokens=4)
