"""Our PaliGemma against transformers 5.5.4, and PaliGemma 2 against recorded outputs of 5.23.0.

5.5.4 leaves the last soft-cap of PaliGemma 2 out. The recording is made by scripts/make_golden.py.
"""

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.models.siglip.image_processing_siglip import SiglipImageProcessor

from vla.checkpoints.maps import paligemma
from vla.errors import CheckpointError, ConfigError
from vla.inference.generate import decode, generate, prefill
from vla.losses.suffix import token_cross_entropy
from vla.models.backbones import paligemma_config
from vla.models.backbones.paligemma import PaliGemma
from vla.models.sequence import Prefix, read
from vla.nn.masks import attention_mask

ATOL = 1e-5
BOS, NEWLINE, EOS, IMAGE = 2, 9, 1, 95
NUM_NEW, SIZE = 6, 28  # pixels; 2 x 2 patches, 4 image tokens
SMALL: dict[str, Any] = {
    "model_type": "paligemma",
    "image_token_index": IMAGE,
    "projection_dim": 32,
    "hidden_size": 32,
    "pad_token_id": 0,
    "text_config": {
        "model_type": "gemma",
        "vocab_size": 96,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "eos_token_id": EOS,
    },
    "vision_config": {
        "model_type": "siglip_vision_model",
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIZE,
        "patch_size": 14,
        "vision_use_head": False,
    },
}
GOLDEN = Path(__file__).parent / "goldens" / "paligemma2"


@dataclass
class Pair:
    """The reference, and ours with its weights."""

    theirs: Any
    ours: PaliGemma


@pytest.fixture(scope="module")
def pair() -> Pair:
    """Weights hide nothing: norms and biases are random too."""
    torch.manual_seed(0)
    theirs = transformers.PaliGemmaForConditionalGeneration(
        transformers.PaliGemmaConfig(**copy.deepcopy(SMALL))
    ).eval()
    for name, tensor in theirs.state_dict().items():
        noise = torch.randn_like(tensor)
        scale = tensor[0].numel() ** -0.5 if tensor.dim() > 1 else 0.2
        tensor.copy_(tensor + 0.3 * noise if "norm" in name else scale * noise)
    ours = PaliGemma(paligemma.model_config(SMALL)).eval()
    ours.load_state_dict(paligemma.key_map(ours.config).convert(theirs.state_dict(), ours))
    return Pair(theirs, ours)


@dataclass
class Prompts:
    """Rows of pictures, words and answers, as either implementation takes them."""

    ids: Tensor
    valid: Tensor
    is_suffix: Tensor
    pixels: Tensor | None

    def embedded(self, model: PaliGemma) -> Prefix:
        return model.embed_normalised(self.ids, self.valid, self.pixels, self.is_suffix)

    def logits(self, model: PaliGemma) -> Tensor:
        return model.decoder.logits(read(model.decoder, self.embedded(model)))

    def theirs(self) -> dict[str, Tensor | None]:
        return {
            "input_ids": self.ids,
            "attention_mask": self.valid.long(),
            "token_type_ids": self.is_suffix.long(),
            "pixel_values": self.pixels,
        }


def _prompts(rows: list[tuple[int, list[int], list[int]]], side: str = "right") -> Prompts:
    """Each row so many pictures, the words of the prefix and those of the answer; padded on one side."""
    written = [
        ([IMAGE] * 4 * pictures + [BOS, *words, NEWLINE], [*answer, EOS] if answer else [])
        for pictures, words, answer in rows
    ]
    length = max(len(prefix) + len(suffix) for prefix, suffix in written)
    ids = torch.zeros(len(rows), length, dtype=torch.int64)
    valid, is_suffix = torch.zeros_like(ids).bool(), torch.zeros_like(ids).bool()
    for i, (prefix, suffix) in enumerate(written):
        end = len(prefix) + len(suffix)
        first = length - end if side == "left" else 0
        ids[i, first : first + end] = torch.tensor(prefix + suffix)
        valid[i, first : first + end] = True
        is_suffix[i, first + len(prefix) : first + end] = True
    num_pictures = sum(pictures for pictures, _, _ in rows)
    return Prompts(ids, valid, is_suffix, _pixels(num_pictures) if num_pictures else None)


def _pixels(num_pictures: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(num_pictures, 3, SIZE, SIZE, generator=generator) * 2 - 1


CASES: dict[str, tuple[list[tuple[int, list[int], list[int]]], str]] = {
    "one picture": ([(1, [11, 12, 13], [21, 22])], "right"),
    "two pictures": ([(2, [11, 12, 13], [21, 22])], "right"),
    "words alone": ([(0, [11, 12, 13], [21, 22])], "right"),
    "no answer yet": ([(1, [11, 12, 13], [])], "right"),
    "two rows padded right": ([(1, [11], [21, 22, 23]), (1, [12] * 5, [24])], "right"),
    "two rows padded left": ([(1, [11], [21, 22, 23]), (1, [12] * 5, [24])], "left"),
    "one row has no picture": ([(0, [11], [21]), (2, [12, 13], [24, 25])], "left"),
}


@pytest.fixture(params=CASES, ids=str)
def prompts(request) -> Prompts:
    return _prompts(*CASES[request.param])


@torch.no_grad()
def test_hidden_states_and_logits_agree(pair, prompts):
    theirs = pair.theirs(**prompts.theirs(), output_hidden_states=True)
    hidden = read(pair.ours.decoder, prompts.embedded(pair.ours))
    logits = pair.ours.decoder.logits(hidden)
    for ours, reference in ((hidden, theirs.hidden_states[-1]), (logits, theirs.logits)):
        torch.testing.assert_close(ours[prompts.valid], reference[prompts.valid], atol=ATOL, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in CASES if name != "no answer yet"])
def test_the_loss_on_the_answer_agrees(pair, name):
    prompts = _prompts(*CASES[name])
    labels = prompts.ids.masked_fill(~prompts.is_suffix, -100)
    theirs = pair.theirs(**prompts.theirs(), labels=labels).loss
    logits = prompts.logits(pair.ours)[:, :-1]
    ours = token_cross_entropy(logits, prompts.ids[:, 1:], prompts.is_suffix[:, 1:])
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("counts", [(1, 1), (2, 0), (1, 2)])
def test_greedy_tokens_agree(pair, side, counts):
    """On whichever side ours is padded: the reference goes on after the padding, so it takes left padding alone."""
    rows = [(counts[0], [11, 12, 13], []), (counts[1], [14] * 7, [])]
    left = _prompts(rows, "left")
    theirs = pair.theirs.generate(
        **left.theirs(), do_sample=False, max_new_tokens=NUM_NEW, eos_token_id=None
    )
    prefix = _prompts(rows, side).embedded(pair.ours)
    ours = generate(pair.ours.decoder, prefix, max_tokens=NUM_NEW)
    assert ours.tokens.tolist() == theirs[:, left.ids.shape[1] :].tolist()


@pytest.fixture(scope="module")
def recorded() -> dict[str, Tensor]:
    return load_file(GOLDEN / "io.safetensors")


@pytest.fixture(scope="module")
def paligemma2() -> PaliGemma:
    model = PaliGemma(paligemma.model_config(json.loads((GOLDEN / "config.json").read_text())))
    weights = load_file(GOLDEN / "weights.safetensors")
    model.load_state_dict(paligemma.key_map(model.config).convert(weights, model))
    return model.eval()


@pytest.fixture
def recorded_prompts(recorded) -> Prompts:
    names = ("input_ids", "attention_mask", "token_type_ids", "pixel_values")
    ids, valid, is_suffix, pixels = (recorded[f"input.{name}"] for name in names)
    return Prompts(ids, valid.bool(), is_suffix.bool(), pixels)


@torch.no_grad()
def test_hidden_states_and_logits_of_paligemma_2_agree(paligemma2, recorded, recorded_prompts):
    """With both soft-caps, and a window that is shorter than the prefix and does not cut it."""
    tokens = paligemma2.image_tokens(recorded_prompts.pixels)
    torch.testing.assert_close(tokens, recorded["output.image_tokens"], atol=ATOL, rtol=0)
    hidden = read(paligemma2.decoder, recorded_prompts.embedded(paligemma2))
    logits = paligemma2.decoder.logits(hidden)
    for ours, name in ((hidden, "hidden"), (logits, "logits")):
        valid = recorded_prompts.valid
        torch.testing.assert_close(
            ours[valid], recorded[f"output.{name}"][valid], atol=ATOL, rtol=0
        )


@torch.no_grad()
def test_the_loss_of_paligemma_2_agrees(paligemma2, recorded, recorded_prompts):
    logits, labels = recorded_prompts.logits(paligemma2), recorded["input.labels"]
    ours = token_cross_entropy(logits[:, :-1], labels[:, 1:], labels[:, 1:] >= 0)
    torch.testing.assert_close(ours, recorded["output.loss"], atol=1e-6, rtol=0)


@torch.no_grad()
def test_greedy_tokens_of_paligemma_2_agree(paligemma2, recorded, recorded_prompts):
    num_prefix = 13  # tokens of the longer prompt; the other ends there too, as it is padded left
    prompt = Prompts(
        recorded_prompts.ids[:, :num_prefix],
        recorded_prompts.valid[:, :num_prefix],
        torch.zeros(2, num_prefix, dtype=torch.bool),
        recorded_prompts.pixels,
    )
    found = generate(paligemma2.decoder, prompt.embedded(paligemma2), max_tokens=8)
    assert found.tokens.tolist() == recorded["output.generated"].tolist()


@torch.no_grad()
def test_another_picture_changes_the_logits_of_what_is_read_after_it_from_the_cache(pair):
    def logits(seed: int) -> Tensor:
        prompts = _prompts([(1, [11, 12], [])])
        prompts.pixels = _pixels(1, seed)
        _, context = prefill(pair.ours.decoder, prompts.embedded(pair.ours), num_further_tokens=1)
        hidden = decode(pair.ours.decoder, torch.tensor([21]), context)
        return pair.ours.decoder.logits(hidden)

    assert (logits(0) - logits(1)).abs().max() > 1e-2


@torch.no_grad()
@pytest.mark.parametrize("generation", [1, 2])
def test_reading_the_answer_from_the_cache_equals_reading_all_at_once(pair, paligemma2, generation):
    model = pair.ours if generation == 1 else paligemma2
    prompts = _prompts([(1, [11, 12, 13], [21, 22])])
    prompts.ids.masked_fill_(prompts.ids == IMAGE, model.config.image_id)
    whole = prompts.logits(model)
    before = Prompts(
        prompts.ids[:, :-2], prompts.valid[:, :-2], prompts.is_suffix[:, :-2], prompts.pixels
    )
    hidden, context = prefill(model.decoder, before.embedded(model), num_further_tokens=2)
    steps = [hidden] + [decode(model.decoder, prompts.ids[:, i], context) for i in (-2, -1)]
    found = model.decoder.logits(torch.cat(steps, dim=1))
    torch.testing.assert_close(found, whole[:, -3:], atol=ATOL, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_does_not_change_a_row(pair, side):
    rows = [(1, [11], [21, 22]), (1, [12] * 6, [24, 25, 26])]
    together = _prompts(rows, side)
    logits = together.logits(pair.ours)
    for i, row in enumerate(rows):
        alone = _prompts([row])
        assert together.pixels is not None
        alone.pixels = together.pixels[i : i + 1]
        torch.testing.assert_close(
            logits[i][together.valid[i]], alone.logits(pair.ours)[0], atol=ATOL, rtol=0
        )


@torch.no_grad()
def test_pictures_are_read_in_their_order(pair):
    prompts = _prompts([(2, [11], [21])])
    logits = prompts.logits(pair.ours)
    assert prompts.pixels is not None
    prompts.pixels = prompts.pixels.flip(0)
    assert (prompts.logits(pair.ours) - logits).abs().max() > 1e-2


@torch.no_grad()
def test_raw_pictures_give_what_the_reference_s_image_processor_gives(pair):
    generator = torch.Generator().manual_seed(0)
    sizes = [(40, 60), (28, 28)]
    pictures = [
        torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in sizes
    ]
    processor = SiglipImageProcessor(size={"height": SIZE, "width": SIZE})
    prompts = _prompts([(2, [11], [21])])
    prompts.pixels = processor(pictures, return_tensors="pt")["pixel_values"]
    raw = pair.ours.config.prepare_pictures(pictures)
    found = pair.ours(prompts.ids, prompts.valid, raw, prompts.is_suffix)
    torch.testing.assert_close(found, prompts.logits(pair.ours), atol=ATOL, rtol=0)


def test_the_prefix_sees_all_of_itself_and_the_answer_what_came_before(pair):
    prompts = _prompts([(1, [11], [21]), (1, [], [21])], "right")
    prefix = prompts.embedded(pair.ours)
    in_prefix, answer, end = [1] * 7 + [0] * 2, [1] * 8 + [0], [1] * 9
    assert attention_mask(prefix.valid, prefix.blocks)[0, 0].int().tolist() == [
        *[in_prefix] * 7,
        answer,
        end,
    ]
    shorter = [1] * 6 + [0] * 3
    assert attention_mask(prefix.valid, prefix.blocks)[1, 0].int().tolist() == [
        *[shorter] * 6,
        [1] * 7 + [0] * 2,
        [1] * 8 + [0],
        [1] * 9,  # padding may read itself, and nobody reads it
    ]
    assert prefix.positions.tolist() == [[*range(1, 10)], [*range(1, 9), 8]]


def test_the_window_of_paligemma_2_cuts_the_answer_and_not_the_prefix(pair):
    prefix = _prompts([(1, [], [21, 22])]).embedded(pair.ours)
    near = attention_mask(prefix.valid, prefix.blocks, window=3, keeps_blocks=prefix.keeps_blocks)
    assert near[0, 0].int().tolist() == [
        *[[1, 1, 1, 1, 1, 1, 0, 0, 0]] * 6,
        [0, 0, 0, 0, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 0, 1, 1, 1],
    ]


def test_pictures_of_another_size_are_refused(pair):
    prompts = _prompts([(1, [11], [21])])
    with pytest.raises(ConfigError, match=r"pictures of 42 x 28 px; this model reads 28 x 28"):
        pair.ours.embed_normalised(prompts.ids, prompts.valid, torch.zeros(1, 3, 42, 28))


@pytest.mark.parametrize("num_pictures", [0, 1, 3])
def test_more_or_fewer_pictures_than_placeholders_are_refused(pair, num_pictures):
    prompts = _prompts([(2, [11], [21])])
    pixels = _pixels(num_pictures) if num_pictures else None
    with pytest.raises(ConfigError, match=rf"give {4 * num_pictures} image tokens.* keep 8 places"):
        pair.ours.embed_normalised(prompts.ids, prompts.valid, pixels)


@torch.no_grad()
def test_bf16_stays_as_close_to_fp32_as_the_reference_in_bf16(pair):
    """Root mean square of the difference in logits: under 2 % of their spread."""
    prompts = _prompts([(2, [11, 12, 13], [21, 22, 23])])
    exact = prompts.logits(pair.ours)
    ours = prompts.logits(copy.deepcopy(pair.ours).bfloat16()).float()
    theirs = copy.deepcopy(pair.theirs).bfloat16()(**prompts.theirs()).logits.float()
    error, reference_error = ((x - exact).square().mean().sqrt() for x in (ours, theirs))
    assert error < 0.02 * exact.std()
    assert error < 1.2 * reference_error


class _Copies(TorchDispatchMode):
    """Notes the shape of everything that is copied to fp32."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and result.dtype is torch.float32:
            self.shapes.add(tuple(result.shape))
        return result


@torch.no_grad()
@pytest.mark.parametrize("generation", [1, 2])
def test_bf16_weights_are_used_as_they_are(pair, paligemma2, generation):
    model = copy.deepcopy(pair.ours if generation == 1 else paligemma2).bfloat16()
    prompts = _prompts([(1, [11], [21])])
    prompts.ids.masked_fill_(prompts.ids == IMAGE, model.config.image_id)
    with _Copies() as copies:
        assert prompts.logits(model).dtype is torch.bfloat16
    matrices = {tuple(p.shape) for p in model.parameters() if p.dim() > 1}
    assert not copies.shapes & matrices


def test_weights_go_there_and_back_bit_for_bit(pair, paligemma2):
    for model in (pair.ours, paligemma2):
        state, key_map = model.state_dict(), paligemma.key_map(model.config)
        again = key_map.convert(key_map.export(state), model)
        assert all(torch.equal(again[name], tensor) for name, tensor in state.items())


def test_the_exported_weights_are_the_reference_s(pair):
    exported = paligemma.key_map(pair.ours.config).export(pair.ours.state_dict())
    theirs = pair.theirs.state_dict()
    assert len(exported) == len(theirs) - 1  # the head is the embedding
    for name, tensor in exported.items():
        in_memory = "model." + name.replace("language_model.model.", "language_model.")
        assert torch.equal(tensor, theirs[in_memory])


SPELLINGS = {  # from transformers' names in memory
    "in memory": {},
    "hub": {"model.language_model.": "language_model.model.", "lm_head.": "language_model.lm_head.", "model.": ""},
    "5.5.4 on disk": {"model.language_model.": "model.language_model.model."},
    "5.23 on disk": {
        "model.language_model.": "language_model.model.", "model.vision_tower.vision_model.": "vision_tower.",
        "model.": "",
    },
    "without the head": {"model.": "", "lm_head.": None},
    "5.23 in memory": {"model.vision_tower.vision_model.": "model.vision_tower."},
}  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_the_prefixes_is_taken(pair, spelling):
    weights = {}
    for name, tensor in pair.theirs.state_dict().items():
        prefix = next((old for old in SPELLINGS[spelling] if name.startswith(old)), "")
        new = SPELLINGS[spelling].get(prefix, "")
        if new is not None:
            weights[new + name.removeprefix(prefix)] = tensor
    converted = paligemma.key_map(pair.ours.config).convert(weights, pair.ours)
    assert all(torch.equal(converted[n], t) for n, t in pair.ours.state_dict().items())


def test_a_saved_reference_is_read_from_its_directory(pair, tmp_path):
    pair.theirs.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    assert paligemma.model_config(values) == pair.ours.config
    weights = load_file(tmp_path / "model.safetensors")
    converted = paligemma.key_map(pair.ours.config).convert(weights, pair.ours)
    assert all(torch.equal(converted[n], t) for n, t in pair.ours.state_dict().items())


def test_a_checkpoint_of_another_family_is_refused(pair):
    llama = transformers.LlamaConfig(**{**SMALL["text_config"], "model_type": "llama"})
    with pytest.raises(CheckpointError, match="model_type 'llama', expected paligemma"):
        paligemma.model_config(llama.to_dict())
    weights = transformers.LlamaForCausalLM(llama).state_dict()
    with pytest.raises(CheckpointError, match="not PaliGemma's"):
        paligemma.key_map(pair.ours.config).convert(weights, pair.ours)


def test_a_decoder_of_another_family_is_refused():
    values = {**SMALL, "text_config": {**SMALL["text_config"], "model_type": "llama"}}
    with pytest.raises(CheckpointError, match="model_type 'llama', expected gemma or gemma2"):
        paligemma.model_config(values)


# What convert_paligemma_weights_to_hf.py and convert_paligemma2_weights_to_hf.py write; 257152 tokens, and two more
# filled up to a multiple of 64.
RELEASED_VISION = {
    "model_type": "siglip_vision_model", "patch_size": 14, "hidden_size": 1152, "intermediate_size": 4304,
    "num_hidden_layers": 27, "num_attention_heads": 16, "projector_hidden_act": "gelu_fast", "vision_use_head": False,
}  # fmt: skip
RELEASED_TEXT: dict[str, dict[str, Any]] = {
    "paligemma_3b": {
        "model_type": "gemma", "vocab_size": 257216, "num_hidden_layers": 18, "num_key_value_heads": 1,
        "head_dim": 256, "hidden_size": 2048, "num_attention_heads": 8, "intermediate_size": 16384,
        "hidden_activation": "gelu_pytorch_tanh",
    },
    "paligemma2_3b": {
        "model_type": "gemma2", "vocab_size": 257216, "num_hidden_layers": 26, "num_key_value_heads": 4,
        "head_dim": 256, "hidden_size": 2304, "num_attention_heads": 8, "intermediate_size": 9216,
        "query_pre_attn_scalar": 256, "hidden_activation": "gelu_pytorch_tanh",
    },
}  # fmt: skip
COUNTS = {
    ("paligemma_3b", 224): 2_923_466_480,
    ("paligemma_3b", 448): 2_924_351_216,
    ("paligemma_3b", 896): 2_927_890_160,
    ("paligemma2_3b", 224): 3_032_242_416,
    ("paligemma2_3b", 448): 3_033_127_152,
    ("paligemma2_3b", 896): 3_036_666_096,
}


@pytest.mark.parametrize(("name", "size"), COUNTS)
def test_a_released_config_gives_the_preset_and_the_reference_s_number_of_parameters(name, size):
    values = {
        "model_type": "paligemma",
        "image_token_index": 257152,
        "projection_dim": RELEASED_TEXT[name]["hidden_size"],
        "text_config": RELEASED_TEXT[name],
        "vision_config": {**RELEASED_VISION, "image_size": size},
    }
    preset = getattr(paligemma_config, name)(size)
    assert paligemma.model_config(values) == preset
    with torch.device("meta"):
        ours = PaliGemma(preset)
        theirs = transformers.PaliGemmaForConditionalGeneration(
            transformers.PaliGemmaConfig(**copy.deepcopy(values))
        )
    count = sum(p.numel() for p in ours.parameters())
    assert count == sum(p.numel() for p in theirs.parameters()) == COUNTS[name, size]
    assert preset.num_image_tokens == {224: 256, 448: 1024, 896: 4096}[size]
