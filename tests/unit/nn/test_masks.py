import torch

from vla.nn.masks import PrefixAttention, attention_mask

ALL_VALID = torch.ones(1, 4, dtype=torch.bool)


def _rows(mask):
    return mask[0, 0].int().tolist()


def test_causal_attention_lets_each_token_see_itself_and_what_came_before():
    mask = attention_mask(ALL_VALID, 2, attention=PrefixAttention.CAUSAL, is_suffix_parallel=False)
    assert _rows(mask) == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [1, 1, 1, 0],
        [1, 1, 1, 1],
    ]


def test_prefix_lm_lets_the_prefix_see_all_of_itself_and_keeps_the_suffix_causal():
    mask = attention_mask(
        ALL_VALID, 2, attention=PrefixAttention.PREFIX_LM, is_suffix_parallel=False
    )
    assert _rows(mask) == [
        [1, 1, 0, 0],
        [1, 1, 0, 0],
        [1, 1, 1, 0],
        [1, 1, 1, 1],
    ]


def test_a_parallel_suffix_sees_the_prefix_and_all_of_itself_but_stays_hidden_from_the_prefix():
    mask = attention_mask(
        ALL_VALID, 2, attention=PrefixAttention.PREFIX_LM, is_suffix_parallel=True
    )
    assert _rows(mask) == [
        [1, 1, 0, 0],
        [1, 1, 0, 0],
        [1, 1, 1, 1],
        [1, 1, 1, 1],
    ]


def test_nobody_attends_to_padding_in_the_middle_of_a_row():
    valid = torch.tensor([[True, True, False, True], [True, False, False, True]])
    mask = attention_mask(valid, 3, attention=PrefixAttention.PREFIX_LM, is_suffix_parallel=False)
    assert mask.shape == (2, 1, 4, 4)
    assert mask[:, 0].int().tolist() == [
        [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 1]],
        [[1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 1]],
    ]
