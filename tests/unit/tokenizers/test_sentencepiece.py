"""Files that are refused, and the pieces of a GGUF file. Equality of ids is in tests/parity/test_tokenizers.py."""

import pytest
from fake_tokenizers import sentencepiece_model

from vla.errors import CheckpointError
from vla.tokenizers.load import load_tokenizer
from vla.tokenizers.sentencepiece import (
    PieceKind,
    SentencePieceModel,
    tokenizer_from_pieces,
    tokenizer_from_sentencepiece,
)

NORMAL, UNKNOWN, UNUSED = PieceKind.NORMAL, PieceKind.UNKNOWN, PieceKind.UNUSED


def _pieces(*extra: tuple[str, float, PieceKind]) -> SentencePieceModel:
    pieces = [("<unk>", 0.0, UNKNOWN), ("a", -3.0, NORMAL), ("b", -4.0, NORMAL), *extra]
    return SentencePieceModel(
        pieces=pieces, is_bpe=True, drops_spaces=False, has_dummy_prefix=False
    )


def test_pieces_that_are_already_read_make_a_tokenizer():
    tokenizer = tokenizer_from_pieces(_pieces(("ab", -1.0, NORMAL), ("<unused0>", 0.0, UNUSED)))
    assert tokenizer.encode("abb").ids == [3, 2]
    assert tokenizer.token_to_id("<unused0>") == 4


@pytest.mark.parametrize(
    "content", [b"", b"not a model", b"\x0a\xff\xff\xff", b'{"version": "1.0"}']
)
def test_what_is_no_sentencepiece_model_is_refused(content):
    with pytest.raises(CheckpointError, match="not a SentencePiece model"):
        tokenizer_from_sentencepiece(content)


def test_a_truncated_model_is_refused():
    with pytest.raises(CheckpointError, match="ends in the middle of a field"):
        tokenizer_from_sentencepiece(sentencepiece_model()[:100])


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"model_type": "unigram", "vocab_size": 320}, "is no BPE model"),
        ({"normalization_rule_name": "nmt_nfkc"}, "normalises text with a table"),
        ({"remove_extra_whitespaces": True}, "drops repeated spaces"),
        ({"treat_whitespace_as_suffix": True}, "puts spaces at the ends of words"),
        ({"user_defined_symbols": ("<mask>",)}, "user-defined pieces and a dummy prefix"),
    ],
)
def test_a_model_that_works_in_another_way_is_refused_with_the_reason(settings, fault):
    with pytest.raises(CheckpointError, match=fault):
        tokenizer_from_sentencepiece(sentencepiece_model(**settings))


def test_an_unused_piece_that_encoding_would_pass_through_is_refused():
    with pytest.raises(CheckpointError, match="unused piece 'ab'"):
        tokenizer_from_pieces(_pieces(("ab", -1.0, UNUSED)))


def test_a_user_defined_piece_that_cannot_be_kept_whole_is_refused():
    with pytest.raises(CheckpointError, match="cannot be kept whole"):
        tokenizer_from_pieces(_pieces(("\u2581a\u2581", 0.0, PieceKind.USER_DEFINED)))


def test_a_folder_gives_the_json_before_the_model(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_model())
    from_model = load_tokenizer(tmp_path)
    assert (
        from_model.encode("cup").ids
        == tokenizer_from_sentencepiece(sentencepiece_model()).encode("cup").ids
    )
    other = tokenizer_from_pieces(_pieces())
    other.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path).get_vocab_size() == other.get_vocab_size()
    assert (
        load_tokenizer(tmp_path / "tokenizer.model").get_vocab_size() == from_model.get_vocab_size()
    )


def test_a_converted_tokenizer_survives_as_json(tmp_path):
    tokenizer = tokenizer_from_sentencepiece(sentencepiece_model())
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    for text in ("lift the cup", "</s> naïve 🤖", "  "):
        assert load_tokenizer(tmp_path).encode(text).ids == tokenizer.encode(text).ids


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"no tokenizer in .*tokenizer\.json or tokenizer\.model"
    ):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model"])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(CheckpointError, match=f"no tokenizer at .*{name}"):
        load_tokenizer(tmp_path / name)


def test_a_damaged_model_is_named_with_its_path(tmp_path):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(sentencepiece_model()[:100])
    with pytest.raises(CheckpointError, match=r"tokenizer\.model: not a SentencePiece model"):
        load_tokenizer(path)
