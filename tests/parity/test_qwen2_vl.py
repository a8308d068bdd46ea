"""Our Qwen2-VL against transformers 5.5.4 (pictures) and recorded outputs of 4.57.6 (clips).

5.5.4 cannot be asked about clips: it gives every step the same time, and numbers rows wrongly when there are several
steps. The recording is looked for where VLA_GOLDENS points, or in shared/goldens beside the repository.
"""

import copy
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vla.checkpoints.maps import qwen2_vl
from vla.inference.generate import Context, decode, generate, prefill
from vla.losses.suffix import token_cross_entropy
from vla.models.backbones.qwen2_vl import Qwen2VL
from vla.models.decoder_config import Head
from vla.models.sequence import read

ATOL = 1e-5
WORD, START, END, IMAGE, VIDEO = 5, 92, 93, 94, 95
SMALL: dict[str, Any] = {
    "model_type": "qwen2_vl",
    "tie_word_embeddings": False,
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "vision_start_token_id": START,
    "vision_end_token_id": END,
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-3,
    "rope_theta": 1e4,
    "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
    "vision_config": {
        "depth": 2,
        "embed_dim": 32,
        "hidden_size": 32,
        "mlp_ratio": 2,
        "num_heads": 2,
        "patch_size": 4,
    },
}
PICTURE, NUM_NEW = object(), 6
BESIDE_THE_REPOSITORY = Path(__file__).parents[2].parent / "shared" / "goldens"
GOLDEN = Path(os.environ.get("VLA_GOLDENS", BESIDE_THE_REPOSITORY)) / "qwen2_vl_video"


@dataclass
class Pair:
    """The reference, and ours with its weights."""

    theirs: Any
    ours: Qwen2VL


def _pair(**changes: Any) -> Pair:
    """Weights hide nothing: norms and biases are random too."""
    torch.manual_seed(0)
    config = transformers.Qwen2VLConfig(**{**SMALL, **changes})
    theirs = transformers.Qwen2VLForConditionalGeneration(config).eval()
    for name, tensor in theirs.state_dict().items():
        is_gain = "norm" in name or "ln_q" in name
        noise = torch.randn_like(tensor)
        tensor.copy_(tensor + 0.3 * noise if is_gain else 0.2 * noise)
    ours = Qwen2VL(qwen2_vl.model_config({**SMALL, **changes})).eval()
    ours.load_state_dict(qwen2_vl.key_map(ours.config).convert(theirs.state_dict(), ours))
    return Pair(theirs, ours)


@pytest.fixture(scope="module", params=[False, True], ids=["own head", "tied head"])
def pair(request) -> Pair:
    return _pair(tie_word_embeddings=request.param)


@dataclass
class Prompts:
    """Rows of words and pictures, as either implementation takes them."""

    ids: Tensor
    valid: Tensor
    patches: Tensor
    grids: Tensor

    def ours(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.ids, self.valid, self.patches, self.grids

    def theirs(self) -> dict[str, Tensor]:
        return {
            "input_ids": self.ids,
            "attention_mask": self.valid.long(),
            "pixel_values": _channels_first(self.patches, patch_size=4),
            "image_grid_thw": self.grids,
            "mm_token_type_ids": (self.ids == IMAGE).long(),
        }


def _channels_first(patches: Tensor, patch_size: int) -> Tensor:
    """From (frames, rows, columns, channels) to the reference's (channels, frames, rows, columns)."""
    window = patches.unflatten(1, (2, patch_size, patch_size, 3))
    return window.movedim(-1, 1).flatten(1)


def _prompts(
    model: Qwen2VL, rows: list[list[Any]], pictures: list[Tensor], side: str = "right"
) -> Prompts:
    """Each row a list of ids, with PICTURE where a picture stands; padded on one side."""
    prepared = model.config.prepare_pictures(pictures)
    counts = iter(prepared.num_tokens)
    written = [
        [
            token
            for item in row
            for token in ([START, *[IMAGE] * next(counts), END] if item is PICTURE else [item])
        ]
        for row in rows
    ]
    length = max(map(len, written))
    ids, valid = torch.zeros(len(rows), length, dtype=torch.int64), []
    for row, tokens in zip(ids, written, strict=True):
        first = length - len(tokens) if side == "left" else 0
        row[first : first + len(tokens)] = torch.tensor(tokens)
        valid.append([first <= i < first + len(tokens) for i in range(length)])
    return Prompts(ids, torch.tensor(valid), prepared.pixels, prepared.grids)


def _picture(rows: int, columns: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, rows, columns), generator=generator, dtype=torch.uint8)


CASES: dict[str, tuple[list[list[Any]], list[tuple[int, int]], str]] = {
    "words alone but for a picture at the end": ([[7, 8, 9, PICTURE]], [(56, 56)], "right"),
    "one picture": ([[7, PICTURE, 8, 9]], [(60, 90)], "right"),
    "two pictures of different size": (
        [[PICTURE, 7, 8, PICTURE, 9]],
        [(40, 120), (80, 64)],
        "right",
    ),
    "two rows padded right": ([[7, PICTURE, 8], [PICTURE, *range(10, 25)]], [(60, 90), (56, 56)], "right"),
    "two rows padded left": ([[7, PICTURE, 8], [PICTURE, *range(10, 25)]], [(60, 90), (56, 56)], "left"),
    "a row without a picture": ([[7, 8, 9], [PICTURE, 7, PICTURE, 8]], [(60, 90), (56, 56)], "left"),
}  # fmt: skip


@pytest.fixture(params=CASES, ids=str)
def prompts(request, pair) -> Prompts:
    rows, sizes, side = CASES[request.param]
    pictures = [_picture(*size, seed) for seed, size in enumerate(sizes)]
    return _prompts(pair.ours, rows, pictures, side)


@torch.no_grad()
def test_position_ids_agree(pair, prompts):
    theirs, _ = pair.theirs.model.get_rope_index(
        prompts.ids,
        mm_token_type_ids=(prompts.ids == IMAGE).long(),
        image_grid_thw=prompts.grids,
        attention_mask=prompts.valid.long(),
    )
    ours = pair.ours.embed(*prompts.ours()).positions
    torch.testing.assert_close(ours[prompts.valid], theirs.permute(1, 2, 0)[prompts.valid])


@torch.no_grad()
def test_hidden_states_and_logits_agree(pair, prompts):
    theirs = pair.theirs(**prompts.theirs(), output_hidden_states=True)
    hidden = read(pair.ours.decoder, pair.ours.embed(*prompts.ours()))
    logits = pair.ours(*prompts.ours())
    for ours, reference in ((hidden, theirs.hidden_states[-1]), (logits, theirs.logits)):
        torch.testing.assert_close(ours[prompts.valid], reference[prompts.valid], atol=ATOL, rtol=0)


@torch.no_grad()
def test_the_loss_agrees(pair, prompts):
    is_label = prompts.valid & (prompts.ids != IMAGE)
    is_label[:, 1:] &= prompts.valid[:, :-1]  # what stands after padding is predicted by padding
    labels = prompts.ids.masked_fill(~is_label, -100)
    theirs = pair.theirs(**prompts.theirs(), labels=labels).loss
    logits = pair.ours(*prompts.ours())[:, :-1]
    ours = token_cross_entropy(logits, prompts.ids[:, 1:], is_label[:, 1:])
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_greedy_tokens_agree(pair, name):
    """On whichever side ours is padded: the reference goes on after the padding, so it takes left padding alone."""
    rows, sizes, side = CASES[name]
    pictures = [_picture(*size, seed) for seed, size in enumerate(sizes)]
    padded_left = _prompts(pair.ours, rows, pictures, "left")
    theirs = pair.theirs.generate(
        **padded_left.theirs(), do_sample=False, max_new_tokens=NUM_NEW, pad_token_id=0
    )
    prefix = pair.ours.embed(*_prompts(pair.ours, rows, pictures, side).ours())
    ours = generate(pair.ours.decoder, prefix, max_tokens=NUM_NEW)
    assert ours.tokens.tolist() == theirs[:, padded_left.ids.shape[1] :].tolist()


@torch.no_grad()
def test_greedy_tokens_of_a_row_padded_right_equal_those_of_the_row_alone(pair):
    pictures = [_picture(60, 90, 0), _picture(56, 56, 1)]
    rows = [[7, PICTURE, 8], [PICTURE, *range(10, 25)]]
    together = _prompts(pair.ours, rows, pictures)
    tokens = generate(
        pair.ours.decoder, pair.ours.embed(*together.ours()), max_tokens=NUM_NEW
    ).tokens
    for row, picture, expected in zip(rows, pictures, tokens, strict=True):
        alone = _prompts(pair.ours, [row], [picture])
        found = generate(pair.ours.decoder, pair.ours.embed(*alone.ours()), max_tokens=NUM_NEW)
        assert found.tokens[0].tolist() == expected.tolist()


@torch.no_grad()
def test_another_picture_changes_the_logits_of_what_is_read_after_it_from_the_cache(pair):
    def logits(seed: int) -> tuple[Tensor, Context]:
        prompts = _prompts(pair.ours, [[7, PICTURE, 8, 9]], [_picture(60, 90, seed)])
        prefix = pair.ours.embed(*prompts.ours())
        _, context = prefill(pair.ours.decoder, prefix, num_further_tokens=1)
        hidden = decode(pair.ours.decoder, torch.tensor([WORD]), context)
        return pair.ours.decoder.logits(hidden), context

    (first, context), (second, _) = logits(0), logits(1)
    assert context.cache.length == context.valid.shape[1]
    assert (first - second).abs().max() > 1e-2


@torch.no_grad()
def test_reading_with_the_cache_equals_reading_all_at_once(pair):
    prompts = _prompts(pair.ours, [[7, PICTURE, 8, 9, 10, 11]], [_picture(60, 90, 0)])
    whole = pair.ours(*prompts.ours())
    ids, valid = prompts.ids[:, :-2], prompts.valid[:, :-2]
    prefix = pair.ours.embed(ids, valid, prompts.patches, prompts.grids)
    hidden, context = prefill(pair.ours.decoder, prefix, num_further_tokens=2)
    steps = [hidden] + [decode(pair.ours.decoder, prompts.ids[:, i], context) for i in (-2, -1)]
    found = pair.ours.decoder.logits(torch.cat(steps, dim=1))
    torch.testing.assert_close(found, whole[:, -3:], atol=ATOL, rtol=0)


@torch.no_grad()
def test_words_alone_need_no_patches(pair):
    ids = torch.arange(5, 25).view(2, 10)
    theirs = pair.theirs(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    ours = pair.ours(ids, torch.ones_like(ids, dtype=torch.bool))
    torch.testing.assert_close(ours, theirs, atol=ATOL, rtol=0)


@torch.no_grad()
def test_bf16_stays_as_close_to_fp32_as_the_reference_in_bf16(pair):
    """Root mean square of the difference in logits: 1.1 % of their spread here and there; at most 2 % is allowed."""
    prompts = _prompts(
        pair.ours, [[PICTURE, 7, 8, PICTURE]], [_picture(60, 90, 0), _picture(56, 56, 1)]
    )
    exact = pair.ours(*prompts.ours())
    ours = copy.deepcopy(pair.ours).bfloat16()(*prompts.ours()).float()
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
def test_bf16_weights_are_used_as_they_are(pair):
    prompts = _prompts(pair.ours, [[7, PICTURE, 8]], [_picture(60, 90, 0)])
    model = copy.deepcopy(pair.ours).bfloat16()
    with _Copies() as copies:
        assert model(*prompts.ours()).dtype is torch.bfloat16
    assert not copies.shapes & {tuple(p.shape) for p in model.parameters() if p.dim() > 1}


def test_weights_go_there_and_back_bit_for_bit(pair):
    state = pair.ours.state_dict()
    key_map = qwen2_vl.key_map(pair.ours.config)
    exported = key_map.export(state)
    again = key_map.convert(exported, pair.ours)
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())
    is_tied = pair.ours.config.decoder.head is Head.TIED
    assert ("lm_head.weight" in exported) is not is_tied


@pytest.mark.parametrize("spelling", ["hub", "transformers 5 in memory", "5.5.4 on disk"])
def test_every_spelling_of_the_prefixes_is_taken(pair, spelling):
    theirs = dict(pair.theirs.state_dict().items())
    if spelling != "transformers 5 in memory":
        theirs = {n.replace("model.language_model.", "model."): t for n, t in theirs.items()}
    if spelling == "hub":
        theirs = {n.replace("model.visual.", "visual."): t for n, t in theirs.items()}
    converted = qwen2_vl.key_map(pair.ours.config).convert(theirs, pair.ours)
    assert all(torch.equal(converted[n], t) for n, t in pair.ours.state_dict().items())


def test_a_saved_reference_is_read_from_its_directory(pair, tmp_path):
    pair.theirs.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    assert "text_config" in values  # the newer spelling; SMALL is the older
    assert qwen2_vl.model_config(values) == pair.ours.config
    weights = load_file(tmp_path / "model.safetensors")
    converted = qwen2_vl.key_map(pair.ours.config).convert(weights, pair.ours)
    assert all(torch.equal(converted[n], t) for n, t in pair.ours.state_dict().items())


@dataclass
class Recording:
    """What 4.57.6 gave for one clip among words."""

    model: Qwen2VL
    weights: dict[str, Tensor]
    io: dict[str, Tensor]

    def prompt(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        ids = self.io["input.input_ids"]
        patches = self.io["input.pixel_values_videos"].unflatten(1, (3, 2, 14, 14))
        patches = patches.movedim(1, -1).flatten(1)
        return ids, torch.ones_like(ids, dtype=torch.bool), patches, self.io["input.video_grid_thw"]


@pytest.fixture(scope="module")
def recording() -> Recording:
    if not (GOLDEN / "io.safetensors").is_file():
        pytest.skip(f"no recorded outputs at {GOLDEN}; set VLA_GOLDENS to the folder of goldens")
    values = json.loads((GOLDEN / "config.json").read_text())["config"]
    weights = load_file(GOLDEN / "weights.safetensors")
    model = Qwen2VL(qwen2_vl.model_config(values)).eval()
    model.load_state_dict(qwen2_vl.key_map(model.config).convert(weights, model))
    return Recording(model, weights, load_file(GOLDEN / "io.safetensors"))


def test_the_positions_of_a_clip_agree(recording):
    positions = recording.model.embed(*recording.prompt()).positions
    assert torch.equal(positions.permute(2, 0, 1), recording.io["output.position_ids"])


@torch.no_grad()
def test_the_logits_of_a_clip_agree(recording):
    logits = recording.model(*recording.prompt())
    torch.testing.assert_close(logits, recording.io["output.logits"], atol=ATOL, rtol=0)


def test_greedy_tokens_after_a_clip_agree(recording):
    prefix = recording.model.embed(*recording.prompt())
    tokens = generate(recording.model.decoder, prefix, max_tokens=5).tokens
    assert tokens.tolist() == recording.io["output.generated"][:, -5:].tolist()


def test_the_recorded_weights_go_there_and_back_bit_for_bit(recording):
    key_map = qwen2_vl.key_map(recording.model.config)
    exported = key_map.export(recording.model.state_dict())
    theirs = {key_map.canonical(name): tensor for name, tensor in recording.weights.items()}
    assert exported.keys() == theirs.keys()
    assert all(torch.equal(exported[name], tensor) for name, tensor in theirs.items())
