from dataclasses import replace

import pytest
import torch

from vla.data.multimodal import ask, collate, packed_row
from vla.data.scene_tasks import Task, TaskKind
from vla.models.answering import Answering, can_share_pictures
from vla.models.backbones.gemma4 import Gemma4
from vla.models.backbones.gemma4_config import tiny_gemma4
from vla.models.backbones.paligemma import PaliGemma
from vla.models.backbones.paligemma_config import tiny_paligemma
from vla.models.backbones.prismatic import Prismatic
from vla.models.backbones.prismatic_config import tiny as tiny_prismatic
from vla.models.backbones.qwen2_vl import Qwen2VL
from vla.models.backbones.qwen2_vl_config import tiny as tiny_qwen2_vl
from vla.nn.masks import PrefixAttention, attention_mask, tokens_of_earlier_documents
from vla.tokenizers.prompt_answer import AnswerPrompts, PromptFamily
from vla.tokenizers.scene_vocabulary import train_scene_tokenizer

TOKENIZER = train_scene_tokenizer(["detect the red cube", "what colour is the ball?"] * 3)
TASKS = [
    Task(kind=TaskKind.ANSWER, instruction="answer en what colour is the ball?", answer="red"),
    Task(
        kind=TaskKind.DETECT,
        instruction="detect red cube",
        answer="<loc0001><loc0100><loc0500><loc1000> red cube",
    ),
    Task(kind=TaskKind.CAPTION, instruction="caption en", answer="a red ball and a cube"),
]


def _model(family):
    torch.manual_seed(0)
    size = TOKENIZER.get_vocab_size()
    match family:
        case PromptFamily.PALIGEMMA:
            image_id = TOKENIZER.token_to_id("<image>")
            return PaliGemma(
                replace(tiny_paligemma(size), image_size=32, image_id=image_id, pictures_apart=True)
            )
        case PromptFamily.PRISMATIC:
            shape = tiny_prismatic(size)
            causal = PrefixAttention.CAUSAL
            return Prismatic(replace(shape, image_size=32, num_views=1, attention=causal))
        case PromptFamily.QWEN2_VL:
            ids = [TOKENIZER.token_to_id(f"<|{kind}_pad|>") for kind in ("image", "video")]
            return Qwen2VL(
                replace(
                    tiny_qwen2_vl(size - 2), image_id=ids[0], video_id=ids[1], max_pixels=32 * 32
                )
            )
        case PromptFamily.GEMMA4:
            shape = tiny_gemma4(size)
            image_id = TOKENIZER.token_to_id("<|image|>")
            decoder = replace(shape.decoder, window=12)  # shorter than a packed row
            return Gemma4(replace(shape, decoder=decoder, image_id=image_id))


FAMILIES = list(PromptFamily)


def _batch(model, family, is_packed):
    prompts = AnswerPrompts(TOKENIZER, family)
    generator = torch.Generator().manual_seed(1)
    shown = [torch.randint(256, (3, 32, 32), generator=generator, dtype=torch.uint8) for _ in "ab"]
    rows, pictures = [], []
    for number, picture in enumerate(shown):
        made = ask(prompts, TASKS[: 3 - number], model.num_image_tokens(picture.shape))
        new = [packed_row(*made)] if is_packed else [(row, []) for row in made[0]]
        rows += new
        pictures += [[picture]] * len(new)
    return collate(rows, pictures, prompts.pad_id)


def _answers(model, batch):
    return Answering(model)(
        batch.ids, batch.valid, batch.suffix_mask, batch.pictures, batch.documents
    )


def _gradient(model, output):
    model.zero_grad()
    torch.nn.functional.cross_entropy(output.logits, output.ids).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.value)
def test_questions_packed_behind_one_picture_equal_questions_in_rows_of_their_own(family):
    model = _model(family)
    packed = _answers(model, _batch(model, family, is_packed=True))
    alone = _answers(model, _batch(model, family, is_packed=False))
    assert packed.ids.tolist() == alone.ids.tolist()
    assert packed.answers.tolist() == alone.answers.tolist()
    torch.testing.assert_close(packed.logits, alone.logits, atol=2e-5, rtol=1e-4)
    gradients = _gradient(model, packed)
    for name, expected in _gradient(model, alone).items():
        torch.testing.assert_close(
            gradients[name],
            expected,
            atol=2e-5,
            rtol=1e-3,
            msg=lambda text, name=name: f"{name}: {text}",
        )


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.value)
def test_only_the_tokens_of_answers_are_predicted(family):
    model = _model(family)
    prompts = AnswerPrompts(TOKENIZER, family)
    output = _answers(model, _batch(model, family, is_packed=True))
    first = output.ids[output.answers == 0].tolist()
    assert first == [*prompts.places.ids("red"), prompts.end_id]
    assert output.answers.max() == 4  # three questions about one picture, two about the other
    assert output.logits.shape == (len(output.ids), TOKENIZER.get_vocab_size())


def test_a_paligemma_whose_pictures_look_at_the_question_cannot_share_them():
    config = replace(tiny_paligemma(64), image_size=32)
    assert not can_share_pictures(PaliGemma(config))
    assert can_share_pictures(PaliGemma(replace(config, pictures_apart=True)))


def test_documents_see_the_head_and_themselves_written_out():
    valid = torch.ones(1, 5, dtype=torch.bool)
    documents = torch.tensor([[-1, 0, 0, 1, 1]])
    may_attend = attention_mask(valid, torch.arange(5)[None], documents=documents)[0, 0]
    assert may_attend.int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 0, 0, 1, 0],
        [1, 0, 0, 1, 1],
    ]
    assert tokens_of_earlier_documents(valid, documents).tolist() == [[0, 0, 0, 2, 2]]


def test_a_window_counts_within_head_and_document():
    valid = torch.ones(1, 6, dtype=torch.bool)
    documents = torch.tensor([[-1, -1, 0, 0, 1, 1]])
    may_attend = attention_mask(valid, torch.arange(6)[None], documents=documents, window=2)[0, 0]
    assert may_attend[4].int().tolist() == [0, 1, 0, 0, 1, 0]  # as if it followed the head
    assert may_attend[5].int().tolist() == [0, 0, 0, 0, 1, 1]
