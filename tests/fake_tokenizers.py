"""Small tokenizers with the structure and the special tokens of the released ones, trained in a moment.

The released files are only on the hub; ids differ, everything else a prompt depends on is the same.
"""

import functools
import io

import sentencepiece
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from vla.tokenizers.loc_seg import CODEWORD_TOKENS, LOCATION_TOKENS
from vla.tokenizers.sentencepiece import tokenizer_from_sentencepiece

CORPUS = [
    "detect red cube ; blue ball",
    "what is on the table?",
    "answer en pick up the bowl",
    "You are a helpful assistant.",
    "system\nuser\nassistant\nmodel\n",
    "Put the green block into the drawer, slowly.",
    "In: What action should the robot take to lift the cup?\nOut:",
] * 4
GEMMA4_TOKENS = [
    "<|turn>", "<turn|>", "<|image>", "<|image|>", "<image|>", "<|video|>", "<|channel>", "<channel|>",
]  # fmt: skip
QWEN2_VL_TOKENS = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>",
    "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip


def llama_like() -> Tokenizer:
    """<unk> 0, <s> 1, </s> 2, then bytes and pieces; <PAD> after them, as OpenVLA adds it."""
    return _with_special(_sentencepiece(add_dummy_prefix=True), ["<PAD>"])


def paligemma_like() -> Tokenizer:
    """Gemma, then 1024 location and 128 mask tokens, then <image>."""
    tokenizer = _sentencepiece(**_GEMMA)
    places = [*LOCATION_TOKENS, *CODEWORD_TOKENS]
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in places])
    return _with_special(tokenizer, ["<image>"])


def gemma4_like() -> Tokenizer:
    """Gemma with the tokens of turns and pictures."""
    return _with_special(_sentencepiece(**_GEMMA), GEMMA4_TOKENS)


def qwen2_vl_like() -> Tokenizer:
    """Pairs of bytes, then the tokens of turns, pictures and clips."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.encode_special_tokens = True
    return _with_special(tokenizer, QWEN2_VL_TOKENS)


_GEMMA = {
    "add_dummy_prefix": False,
    "pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3,
    "pad_piece": "<pad>", "eos_piece": "<eos>", "bos_piece": "<bos>",
}  # fmt: skip


def _sentencepiece(**settings: object) -> Tokenizer:
    return tokenizer_from_sentencepiece(sentencepiece_model(**settings))


@functools.cache
def sentencepiece_model(**settings: object) -> bytes:
    """Returns the contents of a .model file, trained on CORPUS."""
    stream = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=stream,
        minloglevel=2,
        **{
            "model_type": "bpe", "vocab_size": 440, "byte_fallback": True,
            "normalization_rule_name": "identity", "remove_extra_whitespaces": False, **settings,
        },
    )  # fmt: skip
    return stream.getvalue()


def _with_special(tokenizer: Tokenizer, names: list[str]) -> Tokenizer:
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in names])
    return tokenizer
