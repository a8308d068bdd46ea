"""Boxes and masks as text."""

import math

import pytest
from fake_tokenizers import gemma4_like, paligemma_like
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken

from vla.errors import CheckpointError, ConfigError
from vla.tokenizers.loc_seg import (
    CODEWORD_TOKENS,
    LOCATION_TOKENS,
    LocatedObject,
    PlaceVocabulary,
    decode_objects,
    encode_locations,
    encode_objects,
)

PLACES = PlaceVocabulary(paligemma_like())
shares = st.floats(0, 1)
boxes = st.tuples(shares, shares, shares, shares).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
)
codewords = st.none() | st.lists(st.integers(0, 127), min_size=16, max_size=16).map(tuple)


def test_the_vocabulary_is_that_of_paligemma():
    assert (len(LOCATION_TOKENS), len(CODEWORD_TOKENS)) == (1024, 128)
    assert (LOCATION_TOKENS[0], LOCATION_TOKENS[-1]) == ("<loc0000>", "<loc1023>")
    assert CODEWORD_TOKENS[-1] == "<seg127>"


def test_the_ends_of_the_picture_are_the_first_and_the_last_location():
    assert encode_locations([0.0, 1.0]) == "<loc0000><loc1023>"
    assert encode_locations([-0.5, 1.5]) == "<loc0000><loc1023>"
    assert encode_locations([0.5]) == "<loc0512>"  # 511.5 rounds half to even


def test_an_answer_reads_as_the_released_model_writes_it():
    cube = LocatedObject(label="red cube", box=(210 / 1023, 142 / 1023, 867 / 1023, 821 / 1023))
    assert encode_objects([cube]) == "<loc0210><loc0142><loc0867><loc0821> red cube"
    assert encode_objects([cube, cube]).count(" ; ") == 1


@given(st.lists(st.tuples(boxes, codewords), max_size=4))
def test_objects_survive_text_to_within_half_a_step(items):
    objects = [
        LocatedObject(label=f"object {i}", box=box, codewords=words)
        for i, (box, words) in enumerate(items)
    ]
    decoded = decode_objects(encode_objects(objects))
    assert [(o.label, o.codewords) for o in decoded] == [(o.label, o.codewords) for o in objects]
    for before, after in zip(objects, decoded, strict=True):
        assert after.box == pytest.approx(before.box, abs=0.5 / 1023 + 1e-9)


@given(st.text(alphabet="<loc0123seg>; red", max_size=80))
def test_no_answer_however_garbled_raises(text: str):
    for item in decode_objects(text):
        assert all(0 <= share <= 1 for share in item.box)


def test_half_a_box_is_no_object():
    assert decode_objects("<loc0001><loc0002><loc0003> cube") == []
    assert decode_objects("<loc9999><loc0002><loc0003><loc0004> cube") == []
    assert decode_objects("there is no cube") == []


def test_what_cannot_be_written_is_refused():
    with pytest.raises(ConfigError, match=r"y_min, x_min, y_max, x_max"):
        encode_objects([LocatedObject(label="cube", box=(0.9, 0.1, 0.2, 0.8))])
    with pytest.raises(ConfigError, match=r"16 codewords of 0\.\.127"):
        encode_objects([LocatedObject(label="cube", box=(0.0, 0.0, 1.0, 1.0), codewords=(1, 2))])
    with pytest.raises(ConfigError, match="finite"):
        encode_locations([math.nan])


@given(
    st.lists(st.sampled_from(["<loc0001>", "<seg127>", "red cube", " ; ", "naïve"]), max_size=12)
)
def test_text_with_places_survives_ids_and_each_place_is_one_id(pieces: list[str]):
    text = "".join(pieces)
    ids = PLACES.ids(text)
    assert PLACES.text(ids) == text
    first = PLACES.tokenizer.token_to_id("<loc0000>")
    assert sum(token_id >= first for token_id in ids) == text.count("<")


def test_a_place_is_one_id_even_where_the_tokenizer_reads_it_as_characters():
    tokenizer = paligemma_like()
    tokenizer.add_special_tokens([AddedToken("<loc0007>", special=True, normalized=False)])
    assert len(tokenizer.encode("<loc0007>").ids) > 1  # special tokens in text are read as text
    assert PlaceVocabulary(tokenizer).ids("<loc0007>") == [tokenizer.token_to_id("<loc0007>")]


def test_a_tokenizer_without_places_is_refused():
    with pytest.raises(CheckpointError, match="lacks 1152 of the 1152 location and mask tokens"):
        PlaceVocabulary(gemma4_like())
