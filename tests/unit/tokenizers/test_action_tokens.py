import numpy as np
import pytest
from fake_tokenizers import gemma4_like, llama_like, paligemma_like, qwen2_vl_like
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models

from vla.errors import CheckpointError, ConfigError
from vla.tokenizers.action_bins import NUM_BINS, ActionLayout
from vla.tokenizers.action_tokens import action_vocabulary, extend_with_actions, text_vocab_size
from vla.tokenizers.loc_seg import LOCATION_TOKENS

FAMILIES = {
    "llama": llama_like, "paligemma": paligemma_like, "gemma4": gemma4_like, "qwen2_vl": qwen2_vl_like,
}  # fmt: skip
every_family = pytest.mark.parametrize("family", FAMILIES)
new_layouts = pytest.mark.parametrize("layout", [ActionLayout.NEW_256, ActionLayout.PER_DIMENSION])


def _of_size(num_pieces: int, *added: str, special: bool = False) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(num_pieces)}, unk_token="w0"))
    tokenizer.add_tokens([AddedToken(name, special=special) for name in added])
    return tokenizer


@pytest.mark.parametrize(
    ("tokenizer", "first", "last"),
    [
        (_of_size(32000, "<PAD>"), 31744, 31999),  # Llama 2, as OpenVLA extends it
        (_of_size(256000, *LOCATION_TOKENS, "<image>"), 255744, 255999),  # PaliGemma
        (_of_size(151643, "<|endoftext|>", "<|im_start|>"), 151387, 151642),  # Qwen2-VL
        (_of_size(262144), 261888, 262143),  # Gemma 4
    ],
    ids=["llama", "paligemma", "qwen2_vl", "gemma4"],
)
def test_the_last_256_text_tokens_of_every_family(tokenizer, first, last):
    vocabulary = action_vocabulary(tokenizer, ActionLayout.LAST_256, 7)
    ids = vocabulary.ids(np.stack([np.zeros(7, np.int64), np.full(7, 255)]))
    assert ids.tolist() == [[last] * 7, [first] * 7]
    assert vocabulary.num_new_ids == 0


def test_text_ends_before_the_first_location_token():
    tokenizer = paligemma_like()
    assert text_vocab_size(tokenizer) == tokenizer.token_to_id("<loc0000>") == 440


@every_family
@new_layouts
def test_new_ids_follow_all_tokens_and_carry_names(family, layout):
    tokenizer = FAMILIES[family]()
    extended = extend_with_actions(tokenizer, layout, 3)
    vocabulary = action_vocabulary(extended, layout, 3)
    assert extended.get_vocab_size() == tokenizer.get_vocab_size() + vocabulary.num_new_ids
    ids = vocabulary.ids(np.array([[0, 0, 0], [255, 255, 255]]))
    names = [[extended.id_to_token(token_id) for token_id in row] for row in ids.tolist()]
    if layout is ActionLayout.NEW_256:
        assert names == [["<act000>"] * 3, ["<act255>"] * 3]
    else:
        assert names == [[f"<act{d}_{bin}>" for d in range(3)] for bin in ("000", "255")]
    assert ids.min() == tokenizer.get_vocab_size()


@every_family
def test_reusing_text_tokens_leaves_the_tokenizer_as_it_was(family):
    tokenizer = FAMILIES[family]()
    extended = extend_with_actions(tokenizer, ActionLayout.LAST_256, 7)
    assert extended.to_str() == tokenizer.to_str()


@given(st.text(max_size=20) | st.sampled_from(["<act000>", "lift <act0_255>", "</s>"]))
def test_no_text_becomes_an_action(text):
    for layout in (ActionLayout.NEW_256, ActionLayout.PER_DIMENSION):
        ids = _EXTENDED[layout].encode(text, add_special_tokens=False).ids
        assert max(ids, default=0) < _PLAIN.get_vocab_size()


_PLAIN = llama_like()
_EXTENDED = {
    layout: extend_with_actions(_PLAIN, layout, 2)
    for layout in (ActionLayout.NEW_256, ActionLayout.PER_DIMENSION)
}


@new_layouts
def test_a_tokenizer_without_the_action_ids_is_refused(layout):
    with pytest.raises(CheckpointError, match=r"lacks .* action tokens .*see extend_with_actions"):
        action_vocabulary(llama_like(), layout, 7)


def test_a_tokenizer_extended_for_fewer_dimensions_is_refused():
    tokenizer = extend_with_actions(llama_like(), ActionLayout.PER_DIMENSION, 6)
    with pytest.raises(CheckpointError, match=r"lacks 256 of the 1792 .* <act6_000> first"):
        action_vocabulary(tokenizer, ActionLayout.PER_DIMENSION, 7)


def test_a_tokenizer_is_not_extended_twice():
    tokenizer = extend_with_actions(llama_like(), ActionLayout.NEW_256, 7)
    with pytest.raises(ConfigError, match="already has 256 of the 256 action tokens"):
        extend_with_actions(tokenizer, ActionLayout.NEW_256, 7)


def test_scattered_action_ids_are_refused():
    names = [f"<act{index:03d}>" for index in reversed(range(NUM_BINS))]
    with pytest.raises(CheckpointError, match="do not have consecutive ids"):
        action_vocabulary(_of_size(10, *names), ActionLayout.NEW_256, 7)


def test_a_vocabulary_too_small_to_give_up_256_tokens_is_refused():
    with pytest.raises(CheckpointError, match="has 256 text tokens, too few"):
        action_vocabulary(_of_size(256), ActionLayout.LAST_256, 7)


def test_special_tokens_are_never_given_up():
    tokenizer = _of_size(500)
    tokenizer.add_special_tokens(["w499"])
    with pytest.raises(CheckpointError, match="special tokens w499"):
        action_vocabulary(tokenizer, ActionLayout.LAST_256, 7)
