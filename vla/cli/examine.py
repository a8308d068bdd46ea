"""`vla examine`: how well a checkpoint answers about pictures it has not seen: questions, boxes, masks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from vla.checkpoints.answering import Answerable


@dataclass(kw_only=True)
class ExamineConfig:
    """One examination, on the held-out rows of labelled scenes."""

    # a model that answers, or a policy that came of one: its folder, that of the run that trained it, or a shipped name
    checkpoint: str = ""
    scenes: list[str] = field(default_factory=list)  # folders of labelled scenes
    pictures: int = 256  # held-out pictures or clips of each folder, the first ones
    questions_per_picture: int = 12  # drawn where there are more
    seed: int = 0  # of what is drawn

    def __post_init__(self) -> None:
        for name in ("pictures", "questions_per_picture"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1; got {getattr(self, name)}")


def run(cfg: ExamineConfig, directory: Path) -> dict[str, Any]:
    """Examines, prints the figures, draws them as scores.html and returns them with their intervals."""
    from vla.cli.build import find_checkpoint
    from vla.cli.examine_page import figures, page
    from vla.cli.run_directory import write_text
    from vla.data.scene_pictures import HELD_OUT_SEED
    from vla.data.scenes import open_scenes
    from vla.evaluation import html
    from vla.evaluation.answering import measure_answers

    if not cfg.checkpoint or not cfg.scenes:
        raise ConfigError("name what is asked and about what: checkpoint=PATH scenes=[PATH]")
    path = find_checkpoint(cfg.checkpoint)
    model = load(path)
    rows = []
    for root in cfg.scenes:
        held_out = (row for row in open_scenes(root) if row.scene_seed >= HELD_OUT_SEED)
        rows += [row for row, _ in zip(held_out, range(cfg.pictures), strict=False)]
    if not rows:
        raise DatasetError(
            f"{', '.join(cfg.scenes)}: no scene has a seed from {HELD_OUT_SEED:,} on; collect some with "
            f"vla collect labels=true seed={HELD_OUT_SEED}"
        )
    scores = measure_answers(
        model, rows, questions_per_picture=cfg.questions_per_picture, seed=cfg.seed
    )
    named = figures(scores)
    for name, figure in named.items():
        print(f"  {name:<24}{figure.text()}")
    drawn = directory / "scores.html"
    write_text(drawn, html.render(page(str(path), ", ".join(cfg.scenes), named, len(rows))))
    print(drawn)
    return {**scores.to_dict(), "checkpoint": str(path), "report": str(drawn)}


def load(directory: Path) -> Answerable:
    """Returns the model of a checkpoint, ready to be asked; a policy's is asked without a mask codec."""
    from vla.checkpoints import answering, folder, native
    from vla.models.backbones.families import family_of
    from vla.tokenizers.prompt_answer import AnswerPrompts
    from vla.training.multimodal_config import MultimodalStageConfig

    found = folder.find(directory)
    if folder.read_config(found)["kind"] != native.KIND:
        return answering.load_answerable(found)
    policy = native.load(found)
    backbone = policy.model.backbone
    return answering.Answerable(
        backbone=backbone,
        tokenizer=policy.tokenizer,
        prompts=AnswerPrompts(policy.tokenizer, family_of(backbone.config)),
        codec=None,
        max_instruction_tokens=MultimodalStageConfig().max_instruction_tokens,
    )
