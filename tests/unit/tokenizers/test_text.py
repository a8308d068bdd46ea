import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla.errors import CheckpointError
from vla.tokenizers.text import (
    SPECIAL_TOKENS,
    load_text_tokenizer,
    save_text_tokenizer,
    train_text_tokenizer,
)

CORPUS = ["pick up the red cube", "put the green ball into the bowl", "open the drawer"] * 3
TOKENIZER = train_text_tokenizer(CORPUS)


def test_special_tokens_come_first():
    assert [TOKENIZER.token_to_id(name) for name in SPECIAL_TOKENS] == [0, 1, 2, 3]


def test_a_word_of_the_corpus_is_one_token():
    assert len(TOKENIZER.encode("pick up the red cube").ids) == 5


def test_case_does_not_matter():
    assert TOKENIZER.encode("Pick UP the Red cube").ids == TOKENIZER.encode(CORPUS[0]).ids


@given(st.one_of(st.text(max_size=40), st.sampled_from(SPECIAL_TOKENS)))
def test_no_text_whatever_it_spells_gets_a_special_token(text):
    assert min(TOKENIZER.encode(text).ids, default=4) > 3


@given(st.lists(st.sampled_from(["red", "zebra", "naïve", "42", "cube?"]), min_size=1, max_size=6))
def test_lower_case_words_come_back(words):
    text = " ".join(words)
    assert TOKENIZER.decode(TOKENIZER.encode(text).ids).strip() == text


def test_the_same_corpus_gives_the_same_tokenizer():
    assert train_text_tokenizer(CORPUS).to_str() == TOKENIZER.to_str()


def test_a_saved_tokenizer_comes_back(tmp_path):
    path = tmp_path / "tokenizer.json"
    save_text_tokenizer(TOKENIZER, path)
    assert load_text_tokenizer(path).encode("red cube").ids == TOKENIZER.encode("red cube").ids


def test_a_missing_tokenizer_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"no tokenizer at .*absent\.json"):
        load_text_tokenizer(tmp_path / "absent.json")


def test_a_damaged_tokenizer_is_named(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(TOKENIZER.to_str()[:100])
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is not a tokenizer"):
        load_text_tokenizer(path)
