"""Our reading of SentencePiece files against sentencepiece itself, on models trained here.

A Llama-like model puts a space before the text; a Gemma-like one does not and has user-defined pieces: runs of
spaces and of line breaks, tags. Both spell rare characters in bytes.
"""

import functools
import io
import random
import re
import string

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from vla.tokenizers.sentencepiece import SPACE, tokenizer_from_sentencepiece

WORDS = re.findall(
    r"\w+",
    "pick up the red cube and put it into bowl open close drawer push pull block cylinder green blue "
    "left right of on under over grasp lift turn slowly robot arm camera picture what action should take",
)
USER_DEFINED = [
    "<mask>",
    "<table>",
    "</table>",
    *("\n" * n for n in range(1, 6)),
    *(SPACE * n for n in range(2, 8)),
]
TEXTS = [
    "", " ", "  ", "cube", " cube", "cube ", "pick up the red cube", "In: What action?\nOut:", "\n\n\n\n\n\n\n\n",
    "a  b   c    d     e", " " * 40 + "x", "naïve café", "e\u0301 vs é", "日本語のテキスト", "🤖 robot 🦾", "<0x41>",
    "<s></s><unk>", "tab\there\r\n", "\x00\x7f", "\u2581lower\u2581one", "aaaaaaaaaaaaa", "\u200b\ufeff",
    "<table>a<mask> b</table>", "12345 007",
]  # fmt: skip


def _corpus() -> list[str]:
    rng = random.Random(0)
    lines = [" ".join(rng.choices(WORDS, k=rng.randint(1, 12))) for _ in range(400)]
    lines += ["".join(rng.choices("ab ", k=20)) for _ in range(100)]  # overlapping pieces
    lines += ["".join(rng.choices(string.printable[:94], k=15)) for _ in range(60)]
    return [*lines, "é ü ñ 日本 " * 3]


@functools.cache
def _model(family: str) -> bytes:
    stream = io.BytesIO()
    kind = {
        "llama": {"add_dummy_prefix": True},
        "gemma": {
            "add_dummy_prefix": False, "user_defined_symbols": USER_DEFINED,
            "pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3,
        },
        "bare": {"add_dummy_prefix": False, "byte_fallback": False},
    }[family]  # fmt: skip
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_corpus()), model_writer=stream, minloglevel=2,
        **{
            "model_type": "bpe", "vocab_size": 800, "byte_fallback": True, "split_digits": True,
            "normalization_rule_name": "identity", "remove_extra_whitespaces": False,
            "allow_whitespace_only_pieces": True, **kind,
        },
    )  # fmt: skip
    return stream.getvalue()


@functools.cache
def _both(family: str):
    return (
        sentencepiece.SentencePieceProcessor(model_proto=_model(family)),
        tokenizer_from_sentencepiece(_model(family)),
    )


every_family = pytest.mark.parametrize("family", ["llama", "gemma", "bare"])
readable = st.lists(
    st.sampled_from(
        [*WORDS, " ", "  ", "\n", "a", "b", "ab", "<mask>", "<s>", "é", "日", "9", ","]
    ),
    max_size=12,
)


@every_family
@pytest.mark.parametrize("text", TEXTS)
def test_chosen_texts_get_sentencepieces_ids(family, text):
    theirs, ours = _both(family)
    assert ours.encode(text).ids == theirs.encode(text)


@every_family
@given(
    text=st.text(st.characters(codec="utf-8"), max_size=40)
    | readable.map("".join)
    | readable.map(" ".join)
)
def test_any_text_gets_sentencepieces_ids(family, text):
    theirs, ours = _both(family)
    assert ours.encode(text).ids == theirs.encode(text)


@every_family
@given(text=st.text(st.sampled_from("ab \n"), max_size=60))
def test_repetitive_text_gets_sentencepieces_ids(family, text):
    theirs, ours = _both(family)
    assert ours.encode(text).ids == theirs.encode(text)


@pytest.mark.parametrize("family", ["llama", "gemma"])
@given(text=st.text(st.characters(codec="utf-8", exclude_characters=SPACE), max_size=40))
def test_text_comes_back_from_its_ids(family, text):
    theirs, ours = _both(family)
    assert ours.decode(ours.encode(text).ids) == theirs.decode(theirs.encode(text)) == text


@every_family
def test_every_piece_keeps_its_id(family):
    theirs, ours = _both(family)
    assert ours.get_vocab_size() == theirs.get_piece_size()
    assert all(ours.id_to_token(i) == theirs.id_to_piece(i) for i in range(theirs.get_piece_size()))
