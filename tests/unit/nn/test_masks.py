import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vla.nn.masks import (
    attention_mask,
    causal_blocks,
    island_blocks,
    prefix_lm_blocks,
)


def _bools(row: str) -> torch.Tensor:
    """A row of a mask: 1 is True."""
    return torch.tensor([[c == "1" for c in row]])


def _rows(mask: torch.Tensor) -> list[str]:
    """The matrix of the first row of a batch: one string a query."""
    return ["".join(map(str, query)) for query in mask[0, 0].int().tolist()]


ALL_VALID = _bools("11111")


def test_causal_attention_lets_each_token_see_itself_and_what_came_before():
    assert _rows(attention_mask(ALL_VALID, causal_blocks(ALL_VALID))) == [
        "10000",
        "11000",
        "11100",
        "11110",
        "11111",
    ]


def test_prefix_lm_lets_picture_and_prompt_see_all_of_themselves_and_keeps_the_answer_causal():
    """[image | image | prompt | answer | answer]"""
    assert _rows(attention_mask(ALL_VALID, prefix_lm_blocks(_bools("00011")))) == [
        "11100",
        "11100",
        "11100",
        "11110",
        "11111",
    ]


def test_a_picture_is_an_island_whose_tokens_see_each_other_in_a_causal_row():
    """[word | image | image | word | image]"""
    island = _bools("01101")
    assert island_blocks(island).tolist() == [[0, 1, 1, 3, 4]]
    assert _rows(attention_mask(ALL_VALID, island_blocks(island))) == [
        "10000",
        "11100",
        "11100",
        "11110",
        "11111",
    ]


def test_an_island_at_the_start_of_a_row_is_one_block_too():
    assert island_blocks(_bools("1101")).tolist() == [[0, 0, 2, 3]]


def test_a_window_of_two_reaches_the_token_itself_and_the_one_before():
    assert _rows(attention_mask(ALL_VALID, causal_blocks(ALL_VALID), window=2)) == [
        "10000",
        "11000",
        "01100",
        "00110",
        "00011",
    ]


def test_a_window_counts_no_padding():
    valid = _bools("11011")
    assert _rows(attention_mask(valid, causal_blocks(valid), window=2)) == [
        "10000",
        "11000",
        "11100",  # padding, read by nobody
        "01010",
        "00011",
    ]


def test_a_window_cuts_islands_unless_it_is_told_to_keep_them():
    """[image | image | image | word | word]"""
    blocks = island_blocks(_bools("11100"))
    assert _rows(attention_mask(ALL_VALID, blocks, window=2)) == [
        "11100",
        "11100",
        "01100",
        "00110",
        "00011",
    ]
    assert _rows(attention_mask(ALL_VALID, blocks, window=2, keeps_blocks=True)) == [
        "11100",
        "11100",
        "11100",
        "00110",
        "00011",
    ]


@pytest.mark.parametrize(
    ("valid", "expected"),
    [
        ("00111", ["10000", "01000", "00100", "00110", "00111"]),
        ("11100", ["10000", "11000", "11100", "11110", "11101"]),
        ("11011", ["10000", "11000", "11100", "11010", "11011"]),
    ],
    ids=["left", "right", "in between"],
)
def test_nobody_attends_to_padding_but_padding_to_itself(valid, expected):
    mask = attention_mask(_bools(valid), causal_blocks(_bools(valid)))
    assert _rows(mask) == expected


def test_documents_packed_into_one_row_do_not_see_each_other():
    documents = torch.tensor([[0, 0, 1, 1, 1]])
    assert _rows(attention_mask(ALL_VALID, causal_blocks(ALL_VALID), documents=documents)) == [
        "10000",
        "11000",
        "00100",
        "00110",
        "00111",
    ]


def test_packed_documents_keep_their_own_prefixes():
    """[prefix prefix answer | prefix answer]"""
    documents = torch.tensor([[0, 0, 0, 1, 1]])
    blocks = prefix_lm_blocks(_bools("00101"))
    assert _rows(attention_mask(ALL_VALID, blocks, documents=documents)) == [
        "11000",
        "11000",
        "11100",
        "00010",
        "00011",
    ]


def test_the_last_queries_alone_have_the_last_rows_of_the_matrix():
    valid = _bools("01111")
    blocks = causal_blocks(valid)
    documents = torch.tensor([[0, 0, 0, 1, 1]])
    for options in ({}, {"window": 2}, {"documents": documents}):
        whole = attention_mask(valid, blocks, **options)
        assert torch.equal(
            attention_mask(valid, blocks, num_queries=2, **options), whole[:, :, -2:]
        )


@given(data=st.data(), num_tokens=st.integers(1, 7))
def test_the_mask_is_the_rule_asked_of_every_pair_of_tokens(data, num_tokens):
    def drawn(element: st.SearchStrategy) -> list:
        return data.draw(st.lists(element, min_size=num_tokens, max_size=num_tokens))

    valid, documents = drawn(st.booleans()), sorted(drawn(st.integers(0, 2)))
    blocks, window = sorted(drawn(st.integers(0, 4))), data.draw(st.integers(1, 4))
    mask = attention_mask(
        torch.tensor([valid]),
        torch.tensor([blocks]),
        window=window,
        documents=torch.tensor([documents]),
    )
    for query in range(num_tokens):
        for key in range(num_tokens):
            distance = sum(valid[key + 1 : query + 1]) if key < query else 0
            expected = query == key or (
                valid[key]
                and blocks[key] <= blocks[query]
                and documents[key] == documents[query]
                and distance < window
            )
            assert bool(mask[0, 0, query, key]) == expected
