"""Our prompts against the processors of transformers 5.5.4; small tokenizers stand in for the released ones.

The processors expand placeholders and tokenize; the turns that surround them come from templates which are only
on the hub, so they are written out here as text.
"""

import random

import pytest
import torch
from fake_tokenizers import gemma4_like, paligemma_like, qwen2_vl_like
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast
from transformers.models.gemma4.feature_extraction_gemma4 import Gemma4AudioFeatureExtractor
from transformers.models.gemma4.image_processing_gemma4 import Gemma4ImageProcessor
from transformers.models.gemma4.processing_gemma4 import Gemma4Processor
from transformers.models.gemma4.video_processing_gemma4 import Gemma4VideoProcessor
from transformers.models.paligemma.processing_paligemma import PaliGemmaProcessor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor
from transformers.models.siglip.image_processing_siglip import SiglipImageProcessor

from vla.models.vision import preprocessing
from vla.models.vision.resize_rules import QWEN2_VL_IMAGE_PIXELS, QWEN2_VL_VIDEO_PIXELS
from vla.tokenizers.prompt_chat import (
    GEMMA4,
    QWEN2_VL,
    ChatPrompts,
    Clip,
    Picture,
    model,
    system,
    user,
)
from vla.tokenizers.prompt_paligemma import PaliGemmaPrompts

BOX = "<loc0001><loc0002><loc0100><loc1023>"


def theirs(tokenizer: Tokenizer, **tokens) -> PreTrainedTokenizerFast:
    copy = Tokenizer.from_str(tokenizer.to_str())  # reads special tokens in text as such
    return PreTrainedTokenizerFast(tokenizer_object=copy, **tokens)


def picture(height: int, width: int, *leading: int) -> torch.Tensor:
    return torch.full(
        (*leading, 3, height, width), random.Random(height).randrange(256), dtype=torch.uint8
    )


@pytest.mark.parametrize(
    ("instruction", "answer"),
    [
        ("detect red cube", f"{BOX} red cube ; {BOX} ball"),
        ("what is on the table?", "the bowl"),
        ("segment <loc0100> cube", BOX + "<seg003>" * 16 + " cube"),
        ("", "a"),
    ],
)  # fmt: skip
def test_paligemma_prompts_and_labels_are_the_processors(instruction, answer):
    tokenizer = paligemma_like()
    images = SiglipImageProcessor(size={"height": 28, "width": 28})
    images.image_seq_length = 4
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
    special = {"image_token": "<image>"}
    processor = PaliGemmaProcessor(images, theirs(tokenizer, **names, extra_special_tokens=special))
    expected = processor(images=[picture(28, 28)], text=["<image>" + instruction], suffix=[answer])
    batch = PaliGemmaPrompts(tokenizer, 4)([instruction], [answer], max_tokens=100)
    assert batch.ids[0].tolist() == expected["input_ids"][0]
    assert batch.suffix_mask[0].tolist() == [label != -100 for label in expected["labels"][0]]


def _size(limits: tuple[int, int]) -> dict[str, int]:
    return {"shortest_edge": limits[0], "longest_edge": limits[1]}


def test_qwen2_vl_prompts_with_pictures_and_a_clip_are_the_processors():
    tokenizer = qwen2_vl_like()
    processor = Qwen2VLProcessor(  # sizes are named: 5.5.4 keeps limits given once in the class, for all that follow
        Qwen2VLImageProcessor(size=_size(QWEN2_VL_IMAGE_PIXELS)),
        theirs(tokenizer, pad_token="<|endoftext|>"),
        Qwen2VLVideoProcessor(size=_size(QWEN2_VL_VIDEO_PIXELS)),
    )
    pictures, clip = [picture(60, 90), picture(200, 56)], picture(80, 80, 4)
    text = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>what is "
        "<|vision_start|><|image_pad|><|vision_end|><|vision_start|><|video_pad|><|vision_end|> on the table?"
        "<|im_end|>\n"
        "<|im_start|>assistant\nthe bowl<|im_end|>\n<|im_start|>user\n\n pick up<|im_end|>\n<|im_start|>assistant\n"
    )
    expected = processor(images=pictures, videos=[clip], text=[text], do_sample_frames=False)
    sizes = preprocessing.qwen2_vl_patches(pictures).num_tokens
    (clip_size,) = preprocessing.qwen2_vl_clip_patches([clip]).num_tokens
    turns = [
        user(Picture(sizes[0]), "what is ", Picture(sizes[1]), Clip(clip_size), " on the table?"),
        model("the bowl"),
        user("\n pick up"),
    ]
    row = ChatPrompts(tokenizer, QWEN2_VL).row(turns)
    assert row.ids == expected["input_ids"][0]
    answer = [token for token, is_answer in zip(row.ids, row.is_answer, strict=True) if is_answer]
    assert tokenizer.decode(answer, skip_special_tokens=False) == "the bowl<|im_end|>"


def test_gemma4_prompts_with_pictures_are_the_processors():
    tokenizer = gemma4_like()
    names = {"image_token": "<|image|>", "boi_token": "<|image>", "eoi_token": "<image|>"}
    processor = Gemma4Processor(
        Gemma4AudioFeatureExtractor(),
        Gemma4ImageProcessor(max_soft_tokens=70),
        theirs(tokenizer, pad_token="<pad>", bos_token="<bos>", extra_special_tokens=names),
        Gemma4VideoProcessor(),
    )
    pictures = [picture(60, 90), picture(200, 56)]
    text = (
        "<bos><|turn>system\nYou are helpful.<turn|>\n<|turn>user\n<|image|>what is <|image|>?<turn|>\n"
        "<|turn>model\nthe bowl<turn|>\n<|turn>user\npick up<turn|>\n<|turn>model\n"
    )
    expected = processor(images=[pictures], text=[text])
    sizes = preprocessing.gemma4_patches(pictures, token_budget=70).num_tokens
    turns = [
        system("You are helpful."),
        user(Picture(sizes[0]), "what is ", Picture(sizes[1]), "?"),
        model("the bowl"),
        user("pick up"),
    ]
    assert ChatPrompts(tokenizer, GEMMA4).row(turns).ids == expected["input_ids"][0]
