import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla.errors import ConfigError
from vla.tokenizers.loc_seg import LocatedObject, PlaceVocabulary, decode_objects, encode_objects
from vla.tokenizers.prompt_chat import GEMMA4, QWEN2_VL, ChatPrompts, Picture, model, user
from vla.tokenizers.prompt_paligemma import PaliGemmaPrompts
from vla.tokenizers.scene_vocabulary import SCENE_TOKENS, train_scene_tokenizer
from vla.tokenizers.text import load_text_tokenizer, save_text_tokenizer

CORPUS = ["detect red cube", "what is left of the green ball?", "a table with two objects"] * 3
TOKENIZER = train_scene_tokenizer(CORPUS)


@pytest.mark.parametrize("text_vocab_size", [300, 883])
def test_the_size_is_what_was_asked_for_however_small_the_corpus(text_vocab_size):
    tokenizer = train_scene_tokenizer(CORPUS, text_vocab_size)
    assert tokenizer.get_vocab_size() == text_vocab_size + len(SCENE_TOKENS)


def test_the_default_is_2048_tokens_with_places_and_turns_last():
    assert TOKENIZER.get_vocab_size() == 2048
    assert TOKENIZER.token_to_id("<loc0000>") == 2048 - len(SCENE_TOKENS)


@given(st.one_of(st.text(max_size=30), st.sampled_from(SCENE_TOKENS)))
def test_no_text_whatever_it_spells_gets_a_place_or_a_turn(text):
    first = TOKENIZER.token_to_id("<loc0000>")
    assert all(3 < token_id < first for token_id in TOKENIZER.encode(text).ids)


def test_a_saved_vocabulary_reads_text_as_before(tmp_path):
    path = tmp_path / "tokenizer.json"
    save_text_tokenizer(TOKENIZER, path)
    loaded = load_text_tokenizer(path)
    for text in ("detect red cube\n", "<loc0001>", "<image>"):
        assert loaded.encode(text).ids == TOKENIZER.encode(text).ids


def test_located_objects_survive_the_way_through_ids():
    places = PlaceVocabulary(TOKENIZER)
    objects = [
        LocatedObject(label="red cube", box=(0.1, 0.2, 0.5, 0.6), codewords=tuple(range(16))),
        LocatedObject(label="green ball", box=(0.0, 0.0, 1.0, 1.0)),
    ]
    text = encode_objects(objects)
    assert places.text(places.ids(text)).replace("  ", " ") == text
    decoded = decode_objects(places.text(places.ids(text)))
    assert [item.label for item in decoded] == ["red cube", "green ball"]
    assert decoded[0].codewords == tuple(range(16))


def test_every_prompt_builder_accepts_it():
    paligemma = PaliGemmaPrompts(TOKENIZER, num_image_tokens=4).row("detect red cube", "none")
    assert paligemma.ids[:4] == [TOKENIZER.token_to_id("<image>")] * 4
    for chat_format in (QWEN2_VL, GEMMA4):
        row = ChatPrompts(TOKENIZER, chat_format).row([user(Picture(4), "detect"), model("none")])
        assert row.ids.count(TOKENIZER.token_to_id(chat_format.image)) == 4


def test_a_vocabulary_without_room_for_bytes_is_refused():
    with pytest.raises(ConfigError, match="specials and bytes alone are 260"):
        train_scene_tokenizer(CORPUS, 100)
