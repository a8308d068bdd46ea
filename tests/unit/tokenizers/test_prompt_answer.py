import pytest

from vla.tokenizers.prompt_answer import AnswerPrompts, PromptFamily
from vla.tokenizers.scene_vocabulary import train_scene_tokenizer

TOKENIZER = train_scene_tokenizer(["detect red cube", "how many balls are there?"] * 3)
LAYOUTS = {
    PromptFamily.PRISMATIC: "<bos>| detect red cube \n|<loc0001> red <eos>",
    PromptFamily.PALIGEMMA: "<image> <image> <image>|<bos> detect red cube \n|<loc0001> red <eos>",
    PromptFamily.QWEN2_VL: (
        "<|im_start|> user \n <|vision_start|> <|image_pad|> <|image_pad|> <|image_pad|> <|vision_end|>"
        "| detect red cube <|im_end|> \n <|im_start|> assistant \n|<loc0001> red <|im_end|>"
    ),
    PromptFamily.GEMMA4: (
        "<bos> <|turn> user \n <|image> <|image|> <|image|> <|image|> <image|>"
        "| detect red cube <turn|> \n <|turn> model \n|<loc0001> red <turn|>"
    ),
}


def _words(ids):
    names = (TOKENIZER.id_to_token(token_id) for token_id in ids)
    return "".join(f" {name} " if name.startswith("<") else name for name in names)


def _plain(text):
    return "".join(text.replace("Ġ", " ").replace("Ċ", "\n").split())


@pytest.mark.parametrize("family", PromptFamily, ids=lambda family: family.value)
def test_head_question_and_answer_are_laid_out_as_the_family_does(family):
    prompts = AnswerPrompts(TOKENIZER, family)
    row = prompts.row("detect red cube", "<loc0001> red", num_image_tokens=3)
    head = prompts.head_length(3)
    first_answer = row.is_answer.index(True)
    parts = [row.ids[:head], row.ids[head:first_answer], row.ids[first_answer:]]
    expected = [_plain(part) for part in _split(LAYOUTS[family])]
    assert [_plain(_words(part)) for part in parts] == expected
    assert all(row.is_answer[first_answer:])


def _split(layout):
    """Head, question and answer: cut at the bars that are not part of a token."""
    parts, depth, current = [], 0, ""
    for sign in layout:
        depth += {"<": 1, ">": -1}.get(sign, 0)
        if sign == "|" and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += sign
    return [*parts, current]


@pytest.mark.parametrize("family", PromptFamily, ids=lambda family: family.value)
def test_a_question_without_its_answer_is_how_a_training_row_begins(family):
    prompts = AnswerPrompts(TOKENIZER, family)
    whole = prompts.row("detect red cube", "none", num_image_tokens=3)
    asked = prompts.row("detect red cube", num_image_tokens=3)
    assert whole.ids[: len(asked.ids)] == asked.ids
    assert not any(asked.is_answer)


@pytest.mark.parametrize("family", PromptFamily, ids=lambda family: family.value)
def test_an_answer_comes_back_as_words_up_to_its_end(family):
    prompts = AnswerPrompts(TOKENIZER, family)
    answer = "<loc0001><loc0002><loc1000><loc1023> red cube"
    ids = [*prompts.places.ids(answer), prompts.end_id, *prompts.places.ids("more")]
    assert prompts.text(ids) == answer


def test_a_system_text_is_said_first_where_it_is_asked_for():
    short = AnswerPrompts(TOKENIZER, PromptFamily.QWEN2_VL)
    long = AnswerPrompts(TOKENIZER, PromptFamily.QWEN2_VL, "you are a helpful assistant.")
    rows = [prompts.row("detect", num_image_tokens=3).ids for prompts in (short, long)]
    assert len(rows[1]) > len(rows[0])
    assert rows[1][-len(rows[0]) :] == rows[0]
    assert long.head_length(3) - short.head_length(3) == len(rows[1]) - len(rows[0])
