import numpy as np
import pytest
from fake_tokenizers import llama_like
from tokenizers import Tokenizer, models, pre_tokenizers

from vla.errors import CheckpointError, ConfigError
from vla.tokenizers.action_bins import ActionBins, ActionLayout
from vla.tokenizers.action_tokens import action_vocabulary
from vla.tokenizers.prompt import PromptEncoder, PromptTemplate
from vla.tokenizers.text import train_text_tokenizer

TOKENIZER = train_text_tokenizer(["pick up the red cube", "grasp the blue ball"] * 2)


def _llama_like() -> Tokenizer:
    words = ["<unk>", "<s>", "</s>", "\u2581", "In:", "Out:", "What", "take", "to", "lift?"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def test_the_openvla_prompt_reads_as_released():
    assert PromptTemplate.OPENVLA.text("Pick up the Cup ") == (
        "In: What action should the robot take to pick up the cup?\nOut:"
    )


def test_the_plain_prompt_is_the_instruction_alone():
    assert PromptTemplate.PLAIN.text(" Open the DRAWER") == "open the drawer"


def test_rows_start_with_bos_and_are_padded_on_the_right():
    encode = PromptEncoder(TOKENIZER, PromptTemplate.PLAIN, max_tokens=8)
    ids, valid = encode(["pick up the red cube", "the ball"])
    assert ids.dtype == np.int64
    assert ids.shape == valid.shape == (2, 8)
    assert ids[:, 0].tolist() == [1, 1]
    assert valid.sum(axis=1).tolist() == [6, 3]
    assert (ids[~valid] == 0).all()


def test_a_llama_prompt_ends_with_the_lone_space_token():
    encode = PromptEncoder(_llama_like(), PromptTemplate.OPENVLA, max_tokens=16)
    ids = encode.ids("lift")
    assert ids[0] == 1
    assert ids[-2:] == [5, 3]  # "Out:", then the space


def test_a_tokenizer_without_that_token_adds_nothing():
    encode = PromptEncoder(TOKENIZER, PromptTemplate.OPENVLA, max_tokens=80)
    text = PromptTemplate.OPENVLA.text("pick")
    assert encode.ids("pick")[1:] == TOKENIZER.encode(text).ids


def test_an_instruction_that_does_not_fit_is_refused_with_both_lengths():
    encode = PromptEncoder(TOKENIZER, PromptTemplate.PLAIN, max_tokens=4)
    with pytest.raises(ConfigError, match="takes 6 tokens; the model reads 4"):
        encode(["pick up the red cube"])


def test_a_tokenizer_without_a_beginning_token_is_of_another_family():
    foreign = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    with pytest.raises(CheckpointError, match="none of the tokens <bos>, <s>"):
        PromptEncoder(foreign, PromptTemplate.PLAIN, max_tokens=4)


def test_the_loss_is_on_seven_action_tokens_and_the_end_token():
    """openvla/openvla c8f03f4, prismatic/vla/datasets: labels before the last len(action) + 1 are ignored."""
    tokenizer = llama_like()
    vocabulary = action_vocabulary(tokenizer, ActionLayout.LAST_256, 7)
    actions = vocabulary.ids(ActionBins.encode(np.linspace(-1, 1, 7))).tolist()
    encode = PromptEncoder(tokenizer, PromptTemplate.OPENVLA, max_tokens=64)
    row = encode.row("lift the cup", actions)
    answer = [i for i, is_answer in zip(row.ids, row.is_answer, strict=True) if is_answer]
    assert answer == [*actions, tokenizer.token_to_id("</s>")]
    assert row.is_answer == [False] * len(encode.ids("lift the cup")) + [True] * 8


def test_a_real_llama_prompt_is_bos_text_and_the_lone_space():
    tokenizer = llama_like()
    ids = PromptEncoder(tokenizer, PromptTemplate.OPENVLA, max_tokens=64).ids("Lift the cup")
    assert ids[0] == tokenizer.token_to_id("<s>")
    assert ids[-1] == tokenizer.token_to_id("\u2581")
    text = "In: What action should the robot take to lift the cup?\nOut:"
    assert tokenizer.decode(ids[1:-1]) == text
