"""`vla describe trace=true`: one observation on its way through a model, with the shape of everything it becomes.

perceive   pictures to features of patches
align      features to tokens as wide as the decoder's
reason     the decoder reads image tokens and words
generate   tokens, bins or numbers come out, one after another, all at once, or out of noise
act        what came out to numbers, numbers to motion
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vla.cli.build import find_checkpoint
from vla.cli.describe import trace_inputs
from vla.cli.describe.pictures import connector_of
from vla.cli.describe.trace_actions import ActionMeaning
from vla.cli.describe.trace_inputs import TraceInputs
from vla.inference.engine import ActionEngine
from vla.inference.fast_decoding import generate_chunks
from vla.models.action_heads import (
    FastActionHead,
    FlowActionHead,
    L1ActionHead,
    ParallelActionHead,
    TokenActionHead,
)
from vla.models.action_model import VisionLanguageAction
from vla.models.backbones.families import AnyBackbone
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
    if backbone:
        return _trace(trace_inputs.of_backbone(backbone))
    return _trace(trace_inputs.of_checkpoint(find_checkpoint(checkpoint)))


def text(steps: Sequence[Step]) -> str:
    """Returns the steps as a table for people."""
    lines, stage = [], ""
    for step in steps:
        label, stage = ("" if step.stage == stage else step.stage), step.stage
        shape = " x ".join(map(str, step.shape))
        lines.append(f"{label:<9} {step.what:<35} {shape:<19} {step.note}".rstrip())
    return "\n".join(lines)


def _trace(inputs: TraceInputs) -> list[Step]:
    """Pictures of every camera, then words and proprioception; what comes out depends on the action head."""
    model = inputs.model.eval()
    arguments = (inputs.images, inputs.text_ids, inputs.text_valid, inputs.state)
    with torch.inference_mode(), _watching(model.backbone) as seen:
        prefix = model.prefix(*arguments)
    steps = [
        Step(
            stage="perceive",
            what="pictures (batch, cameras, ...)",
            shape=tuple(inputs.images.shape),
            note=inputs.source,
        ),
        *_seen_steps(seen[:2]),
        Step(
            stage="align",
            what="prompt",
            shape=tuple(inputs.text_ids.shape),
            note=inputs.instruction,
        ),
    ]
    if inputs.state is not None:
        note = "becomes one token" if model.proprio is not None else ""
        shape = tuple(inputs.state.shape)
        steps.append(Step(stage="align", what="proprioception", shape=shape, note=note))
    steps += _reason_steps(model.backbone, prefix)
    with torch.inference_mode():
        decoded, values = _decoded(inputs, prefix)
    return [*steps, *decoded, *_act_steps(values, inputs.meaning)]


def _decoded(inputs: TraceInputs, prefix: Prefix) -> tuple[list[Step], NDArray[np.float32]]:
    """What comes out, and the actions in [-1, 1] that it stands for."""
    model, meaning, head = inputs.model, inputs.meaning, inputs.model.action_head
    arguments = (inputs.images, inputs.text_ids, inputs.text_valid, inputs.state)
    engine = ActionEngine(model=model)
    match head:
        case TokenActionHead() | ParallelActionHead():
            if meaning.statistics is not None:
                engine.rest_bins = torch.from_numpy(meaning.statistics.rest_bins(meaning.spec))
            bins, probabilities = engine.predict(*arguments)
            if isinstance(head, TokenActionHead):
                tokens = meaning.tokens(bins).flatten(1)
                steps = [
                    *_generated_steps(tokens, probabilities.flatten(1), prefix, model.backbone)
                ]
            else:
                shape = tuple(model(*arguments).action_logits.shape)
                steps = [
                    _suffix_step("learned slots, all read in one pass", model, head.num_slots),
                    Step(stage="generate", what="logits over the bins", shape=shape),
                ]
            first = bins.reshape(-1, meaning.width)[0].tolist()
            steps.append(Step(stage="act", what="bins", shape=tuple(bins.shape), note=_few(first)))
            values = meaning.values(bins)
            centres = "bin centres in [-1, 1]"
            steps.append(Step(stage="act", what=centres, shape=values.shape, note=_few(values[0])))
            return steps, values
        case FastActionHead():
            assert meaning.fast is not None
            assert meaning.end_id is not None
            chunk, written = generate_chunks(model, prefix, meaning.fast, meaning.end_id)
            steps = [
                *_generated_steps(written.tokens, written.probabilities, prefix, model.backbone)
            ]
            what = "chunk that the tokens spell"
        case L1ActionHead():
            chunk, _ = engine.chunk(*arguments)
            steps = [_suffix_step("learned slots, all read in one pass", model, chunk.shape[1])]
            what = "numbers in [-1, 1]"
        case FlowActionHead():
            engine.generator = torch.Generator().manual_seed(0)
            chunk, _ = engine.chunk(*arguments)
            note = f"read {engine.flow_steps} times, from noise to actions"
            steps = [_suffix_step("noisy actions and the time", model, chunk.shape[1], note)]
            what = "numbers in [-1, 1]"
    values = chunk[0].float().numpy()
    return [*steps, Step(stage="act", what=what, shape=values.shape, note=_few(values[0]))], values


def _reason_steps(model: AnyBackbone, prefix: Prefix) -> Iterator[Step]:
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
    tokens: Tensor, probabilities: Tensor, prefix: Prefix, model: AnyBackbone
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


def _act_steps(values: NDArray[np.float32], meaning: ActionMeaning) -> Iterator[Step]:
    actions = meaning.actions(values)
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
def _watching(model: AnyBackbone) -> Iterator[list[tuple[str, tuple[int, ...]]]]:
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


def _suffix_step(what: str, model: VisionLanguageAction, num_tokens: int, note: str = "") -> Step:
    width = model.backbone.config.decoder.width
    return Step(stage="generate", what=what, shape=(1, num_tokens, width), note=note)
