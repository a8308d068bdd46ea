"""`vla describe trace=true`: one observation on its way through a model, with the shape of everything it becomes.

perceive   pictures to features of patches
align      features to tokens as wide as the decoder's
reason     the decoder reads image tokens and words
generate   action tokens come out, one after another or all at once
act        tokens to bins, bins to numbers, numbers to motion
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vla.cli import trace_inputs
from vla.cli.backbones import Backbone
from vla.cli.build import find_checkpoint
from vla.cli.describe_pictures import connector_of
from vla.cli.trace_actions import ActionMeaning
from vla.cli.trace_inputs import PrismaticInputs, SequenceInputs
from vla.inference.engine import ActionEngine, embed_prefix
from vla.inference.generate import generate
from vla.models.action_heads import ParallelActionHead, TokenActionHead
from vla.models.backbones.prismatic import Prismatic
from vla.models.sequence import Prefix, next_positions, read
from vla.nn.masks import attention_mask


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thing on the way.

    Attributes:
        stage: perceive, align, reason, generate or act.
        shape: of its tensor.
        note: a value or a remark.
    """

    stage: str
    what: str
    shape: tuple[int, ...]
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return asdict(self) | {"shape": list(self.shape)}


def trace(checkpoint: str, backbone: str) -> list[Step]:
    """Returns the steps of one observation.

    Args:
        checkpoint: whose model is followed, unless `backbone` is given; one made for the simulated table sees it.
        backbone: name of a small backbone; it gets random weights and a test picture.

    Raises:
        ConfigError: the backbone is unknown, or too large to be run here.
        CheckpointError: there is no such checkpoint.
    """
    if not backbone:
        return _trace_prismatic(trace_inputs.of_checkpoint(find_checkpoint(checkpoint)))
    inputs = trace_inputs.of_backbone(backbone)
    if isinstance(inputs, PrismaticInputs):
        return _trace_prismatic(inputs)
    return _trace_sequence(inputs)


def text(steps: Sequence[Step]) -> str:
    """Returns the steps as a table for people."""
    lines, stage = [], ""
    for step in steps:
        label, stage = ("" if step.stage == stage else step.stage), step.stage
        shape = " x ".join(map(str, step.shape))
        lines.append(f"{label:<9} {step.what:<35} {shape:<19} {step.note}".rstrip())
    return "\n".join(lines)


def _trace_sequence(inputs: SequenceInputs) -> list[Step]:
    """PaliGemma, Qwen2-VL and Gemma 4: image tokens stand where the prompt keeps places for them."""
    model = inputs.model.eval()
    with torch.inference_mode(), _watching(model) as seen:
        prefix = model.embed(inputs.ids, inputs.valid, *inputs.pictures.values())
    steps = [
        Step(stage="perceive", what="picture (colours, rows, columns)", shape=inputs.picture_shape),
        *(
            Step(stage="perceive", what=name, shape=tuple(tensor.shape))
            for name, tensor in inputs.pictures.items()
        ),
        *_seen_steps(seen),
        Step(
            stage="align",
            what="prompt",
            shape=tuple(inputs.ids.shape),
            note=f"{int((inputs.ids == inputs.image_id).sum())} of them places for image tokens",
        ),
        *_reason_steps(model, prefix),
    ]
    generated = generate(
        model.decoder,
        prefix,
        max_tokens=inputs.meaning.width,
        allowed_ids=lambda step: inputs.meaning.ids(step),
    )
    steps += _generated_steps(generated.tokens, generated.probabilities, prefix, model)
    return [*steps, *_act_steps(inputs.meaning.bins(generated.tokens), inputs.meaning)]


def _trace_prismatic(inputs: PrismaticInputs) -> list[Step]:
    """Pictures of every camera, then words and proprioception; actions one by one or all in one pass."""
    model = inputs.model.eval()
    arguments = (inputs.images, inputs.text_ids, inputs.text_valid, inputs.state)
    with torch.inference_mode(), _watching(model) as seen:
        prefix = embed_prefix(model, *arguments)
        read_once = None if isinstance(model.action_head, TokenActionHead) else model(*arguments)
    steps = [
        Step(
            stage="perceive",
            what="pictures (batch, cameras, ...)",
            shape=tuple(inputs.images.shape),
            note=inputs.source,
        ),
        *_seen_steps(seen[:2]),
        Step(
            stage="align", what="words", shape=tuple(inputs.text_ids.shape), note=inputs.instruction
        ),
    ]
    if inputs.state is not None:
        note = "becomes one token" if model.proprio is not None else ""
        shape = tuple(inputs.state.shape)
        steps.append(Step(stage="align", what="proprioception", shape=shape, note=note))
    steps += _reason_steps(model, prefix)
    statistics, spec = inputs.meaning.statistics, inputs.meaning.spec
    rest = None if statistics is None else torch.from_numpy(statistics.rest_bins(spec))
    bins, probabilities = ActionEngine(model=model, rest_bins=rest).predict(*arguments)
    if read_once is None:
        tokens = inputs.meaning.tokens(bins).flatten(1)
        steps += _generated_steps(tokens, probabilities.flatten(1), prefix, model)
    else:
        logits = read_once.action_logits
        slots = "learned slots, all read in one pass"
        steps += [
            Step(stage="generate", what=slots, shape=_slots_shape(model)),
            Step(stage="generate", what="logits over the bins", shape=tuple(logits.shape)),
        ]
    return [*steps, *_act_steps(bins, inputs.meaning)]


def _reason_steps(model: Backbone, prefix: Prefix) -> Iterator[Step]:
    mask = attention_mask(prefix.valid, prefix.blocks)
    with torch.inference_mode():
        hidden = read(model.decoder, prefix)
    yield Step(stage="reason", what="sequence", shape=tuple(prefix.embeddings.shape))
    last = int(next_positions(prefix)[0]) - 1
    axes = "time, row, column; " if prefix.positions.dim() == 3 else ""
    yield Step(
        stage="reason",
        what="positions",
        shape=tuple(prefix.positions.shape),
        note=f"{axes}up to {last}",
    )
    open_share = f"{100 * mask.float().mean().item():.0f} % may"
    window, depth = model.config.decoder.window, model.config.decoder.depth
    if window is not None:
        open_share += f"; in windowed layers only the last {window} tokens"
    yield Step(
        stage="reason", what="who may attend to whom", shape=tuple(mask.shape), note=open_share
    )
    yield Step(
        stage="reason",
        what="hidden states",
        shape=tuple(hidden.shape),
        note=f"after {depth} blocks",
    )


def _generated_steps(
    tokens: Tensor, probabilities: Tensor, prefix: Prefix, model: Backbone
) -> Iterator[Step]:
    config = model.config.decoder
    shapes = [config.kv_shape(layer) for layer in range(config.depth)]
    kept = [shape for shape in shapes if shape is not None]
    num_tokens = prefix.valid.shape[1] + tokens.shape[1] - 1
    yield Step(
        stage="generate",
        what="keys (layers, heads, tokens, width)",
        shape=(len(kept), kept[0].num_heads, num_tokens, kept[0].head_dim),
        note="and as many values",
    )
    yield Step(
        stage="generate", what="tokens", shape=tuple(tokens.shape), note=_few(tokens[0].tolist())
    )
    least = f"the least sure {probabilities.min().item():.3f}"
    yield Step(
        stage="generate", what="their probabilities", shape=tuple(probabilities.shape), note=least
    )


def _act_steps(bins: Tensor, meaning: ActionMeaning) -> Iterator[Step]:
    values, actions = meaning.values(bins), meaning.actions(bins)
    first = bins.reshape(-1, meaning.width)[0].tolist()
    yield Step(stage="act", what="bins", shape=tuple(bins.shape), note=_few(first))
    yield Step(stage="act", what="bin centres in [-1, 1]", shape=values.shape, note=_few(values[0]))
    yield Step(stage="act", what="actions", shape=actions.shape)
    for name, unit, value in zip(meaning.spec.names, meaning.spec.units, actions[0], strict=True):
        yield Step(
            stage="act", what=f"  first action, {name}", shape=(), note=f"{value:+.4f} {unit}"
        )


def _seen_steps(seen: Sequence[tuple[str, tuple[int, ...]]]) -> Iterator[Step]:
    """What went into the connector, and what came out; patches that enter the decoder as they are only came out."""
    if len(seen) > 1:
        yield Step(stage="perceive", what="features of patches", shape=seen[0][1])
    note = "no connector" if len(seen) == 1 else ""
    yield Step(stage="align", what="image tokens", shape=seen[-1][1], note=note)


@contextmanager
def _watching(model: Backbone) -> Iterator[list[tuple[str, tuple[int, ...]]]]:
    """Collects the shapes that enter and leave the connector, or leave the patch embedding where there is none."""
    seen: list[tuple[str, tuple[int, ...]]] = []
    connector = connector_of(model)

    def note(part: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        if connector is not None:
            seen.append(("in", tuple(arguments[0].shape)))
        tokens = output[0][output[1]] if isinstance(output, tuple) else output  # without filling
        seen.append(("out", tuple(tokens.shape)))

    handle = (connector or model.vision).register_forward_hook(note)
    try:
        yield seen
    finally:
        handle.remove()


def _few(values: Sequence[float]) -> str:
    shown = [str(value) if isinstance(value, int) else f"{value:.3f}" for value in list(values)[:7]]
    return " ".join(shown) + (" ..." if len(values) > 7 else "")


def _slots_shape(model: Prismatic) -> tuple[int, ...]:
    head = model.action_head
    assert isinstance(head, ParallelActionHead)
    return (1, head.num_slots, model.config.decoder.width)
