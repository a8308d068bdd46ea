"""`vla ask`: a picture and a prompt in, words, boxes and masks out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla.errors import ConfigError

if TYPE_CHECKING:
    from vla.inference.answer import Answer


@dataclass(kw_only=True)
class AskConfig:
    """What is asked, and about what."""

    image: str = ""  # picture file
    prompt: str = "caption en"  # or "answer en how many cubes are there?", "detect red cube", "segment the red cube"
    checkpoint: str = "vlm"  # directory of a model that answers, or the name of one in the package
    output: str = ""  # PNG with what was found; "" puts it beside the picture
    max_tokens: int = 64  # of the answer

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ConfigError(f"max_tokens must be at least 1; got {self.max_tokens}")


def run(cfg: AskConfig, directory: Path) -> dict[str, Any]:
    """Prints the answer and returns it for summary.json; draws what was found."""
    if not cfg.image:
        raise ConfigError('give a picture: vla ask image=PATH prompt="how many cubes are there?"')
    from vla.cli.ask_drawing import draw_answer, read_picture

    path = Path(cfg.image).expanduser()
    pixels = read_picture(path)  # before the model: a wrong path is told at once
    import torch

    from vla.checkpoints.answering import load_answerable
    from vla.cli.build import find_checkpoint
    from vla.inference.answer import answer

    model = load_answerable(find_checkpoint(cfg.checkpoint))
    picture = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    begun = time.perf_counter()
    (reply,) = answer(model, [picture], [as_trained(cfg.prompt)], max_tokens=cfg.max_tokens)
    seconds = time.perf_counter() - begun
    print(reply.text)
    drawn = None
    if reply.objects:
        drawn = Path(cfg.output).expanduser() if cfg.output else _beside(path)
        if drawn.resolve() == path.resolve():
            raise ConfigError(f"output={drawn} is the picture itself; choose another name")
        draw_answer(pixels, reply, drawn)
    for line in _lines(reply):
        print(line)
    if drawn is not None:
        print(drawn)
    return {
        "image": str(path),
        "prompt": cfg.prompt,
        "answer": reply.text,
        "probability": reply.probability,
        "is_whole": reply.is_whole,
        "objects": [
            {
                "label": item.label,
                "box": list(item.box),
                "confidence": item.confidence,
                "mask_pixels": None if item.mask is None else int(item.mask.sum()),
            }
            for item in reply.objects
        ],
        "drawn": None if drawn is None else str(drawn),
        "answer_seconds": seconds,
    }


def as_trained(prompt: str) -> str:
    """Returns a prompt in the form that training uses, whatever a person writes.

    "detect the red cube" loses its article, "segment red cube" gets one, and a bare question gets its command.
    """
    words = prompt.split()
    match words:
        case ["detect", "the" | "a" | "an", *rest] if rest:
            return " ".join(["detect", *rest])
        case ["segment", first, *rest] if first not in ("the", "a", "an"):
            return " ".join(["segment the", first, *rest])
        case [*_, last] if last.endswith("?") and words[0] not in ("answer", "caption"):
            return " ".join(["answer en", *words])
    return prompt


def _lines(reply: Answer) -> list[str]:
    lines = [f"  probability {reply.probability:.3f}"]
    if not reply.is_whole:
        lines.append("  cut off; allow more with max_tokens=")
    for item in reply.objects:
        y_min, x_min, y_max, x_max = item.box
        mask = "" if item.mask is None else f", mask of {int(item.mask.sum())} pixels"
        lines.append(
            f"  {item.label}: rows {y_min:.3f} to {y_max:.3f}, columns {x_min:.3f} to {x_max:.3f} of the picture, "
            f"probability {item.confidence:.3f}{mask}"
        )
    return lines


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.stem}_answer.png")
