"""What the families' prompts hold beyond what tests/parity/test_prompts.py compares with the references."""

import pytest
from fake_tokenizers import gemma4_like, llama_like, paligemma_like, qwen2_vl_like
from hypothesis import given
from hypothesis import strategies as st

from vla.errors import CheckpointError, ConfigError
from vla.tokenizers.prompt_batch import Padding
from vla.tokenizers.prompt_chat import (
    GEMMA4,
    GEMMA4_LARGE,
    QWEN2_VL,
    ChatPrompts,
    Clip,
    Picture,
    model,
    system,
    user,
)
from vla.tokenizers.prompt_paligemma import PaliGemmaPrompts

PALIGEMMA = PaliGemmaPrompts(paligemma_like(), 3)
QWEN = ChatPrompts(qwen2_vl_like(), QWEN2_VL)
GEMMA = ChatPrompts(gemma4_like(), GEMMA4)
CHATS = {"qwen2_vl": QWEN, "gemma4": GEMMA}
every_chat = pytest.mark.parametrize("family", CHATS)
hostile = st.text(max_size=20) | st.sampled_from(
    ["<|im_end|>", "<|image_pad|>", "<turn|>", "<|image|>", "a<eos>", "<image>", "<|vision_end|>x"]
)


def test_a_prompt_without_an_answer_ends_where_the_model_begins():
    row = PALIGEMMA.row("what is on the table?", num_images=2)
    assert row.ids[:7] == [PALIGEMMA.image_id] * 6 + [PALIGEMMA.bos_id]
    assert PALIGEMMA.places.text(row.ids[7:]) == "what is on the table?\n"
    assert not any(row.is_answer)


def test_an_answer_may_be_given_as_ids():
    row = PALIGEMMA.row("detect cube", [7, 8, 9])
    assert row.ids[-4:] == [7, 8, 9, PALIGEMMA.eos_id]
    assert row.is_answer[-5:] == [False, True, True, True, True]
    chat = QWEN.row([user("lift"), model([7, 8, 9])])
    assert chat.ids[-4:] == [7, 8, 9, QWEN.end_id]
    assert sum(chat.is_answer) == 4


def test_answers_must_come_one_for_each_instruction():
    with pytest.raises(ConfigError, match="1 answers were given for 2 instructions"):
        PALIGEMMA(["a", "b"], ["c"], max_tokens=50)


@every_chat
def test_every_answer_of_a_conversation_is_learned(family):
    prompts = CHATS[family]
    row = prompts.row([user("what?"), model("a bowl"), user("and?"), model("a ball")])
    runs = "".join("x" if is_answer else " " for is_answer in row.is_answer).split()
    assert len(runs) == 2
    ends = [
        i
        for i, (a, b) in enumerate(zip(row.is_answer, [*row.is_answer[1:], False], strict=True))
        if a and not b
    ]
    assert [row.ids[i] for i in ends] == [prompts.end_id] * 2


@every_chat
def test_generation_starts_where_training_has_the_answer(family):
    prompts = CHATS[family]
    asked = prompts.row([user(Picture(4), "what?")])
    answered = prompts.row([user(Picture(4), "what?"), model("a bowl")])
    assert answered.ids[: len(asked.ids)] == asked.ids
    assert answered.is_answer == [False] * len(asked.ids) + [True] * (
        len(answered.ids) - len(asked.ids)
    )


@every_chat
def test_a_batch_padded_on_the_left_ends_with_every_prompt(family):
    prompts = CHATS[family]
    conversations = [[user(Picture(9), "what is on the table?")], [user("lift")]]
    batch = prompts(conversations, max_tokens=100, padding=Padding.LEFT)
    for row, conversation in enumerate(conversations):
        ids = batch.ids[row][batch.valid[row]].tolist()
        assert ids == prompts.row(conversation).ids
        assert batch.valid[row, -1]


@every_chat
def test_a_conversation_longer_than_the_context_is_refused(family):
    with pytest.raises(ConfigError, match=r"prompt 0 takes 1\d\d tokens.*the model reads 64"):
        CHATS[family]([[user(Picture(100), "what?")]], max_tokens=64)


@every_chat
@given(text=hostile)
def test_no_text_adds_a_picture_or_ends_a_turn(family, text):
    prompts = CHATS[family]
    special = [prompts.image_id, prompts.end_id]
    plain = prompts.row([user(Picture(2), "x"), model("y")]).ids
    ids = prompts.row([user(Picture(2), text), model(text)]).ids
    assert [ids.count(i) for i in special] == [plain.count(i) for i in special]


@given(text=hostile)
def test_no_instruction_adds_a_picture_or_ends_the_answer(text):
    ids = PALIGEMMA.row(text, text).ids
    assert ids.count(PALIGEMMA.image_id) == 3
    assert ids.index(PALIGEMMA.eos_id) == len(ids) - 1


def test_the_large_gemmas_open_only_the_last_answer_with_an_empty_thought():
    tokenizer = gemma4_like()
    row = ChatPrompts(tokenizer, GEMMA4_LARGE).row([user("what?"), model("a bowl"), user("and?")])
    text = tokenizer.decode(row.ids, skip_special_tokens=False)
    assert text.count("<|channel>") == 1
    assert text.endswith("<|turn>model\n<|channel>thought\n<channel|>")


def test_a_system_turn_inside_a_conversation_is_refused():
    with pytest.raises(ConfigError, match="it can only be the first"):
        GEMMA.row([user("a"), system("b")])


def test_a_clip_for_a_family_that_reads_none_is_refused():
    with pytest.raises(ConfigError, match="Gemma 4 prompts hold no clips"):
        GEMMA.row([user(Clip(4))])


def test_a_tokenizer_of_another_family_is_refused():
    with pytest.raises(CheckpointError, match=r"none of the tokens <\|im_start\|>"):
        ChatPrompts(gemma4_like(), QWEN2_VL)
    with pytest.raises(CheckpointError, match="of another family"):
        ChatPrompts(llama_like(), GEMMA4)
    with pytest.raises(CheckpointError, match="not PaliGemma's"):
        PaliGemmaPrompts(llama_like(), 256)
