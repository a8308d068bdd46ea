"""`vla ask scenes=PATH`: how often a model is right about held-out pictures, with intervals, as JSON and as a page."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from vla.checkpoints.answering import load_answerable
from vla.cli.build import find_checkpoint
from vla.cli.run_directory import write_text
from vla.errors import DatasetError
from vla.evaluation import html
from vla.evaluation.answering import AnsweringScores, measure_answers
from vla.evaluation.charts import Interval, interval_chart
from vla.evaluation.estimates import Estimate
from vla.training.multimodal import held_out_stills


def measure_scenes(
    checkpoint: str, scenes: str, num_pictures: int, directory: Path
) -> dict[str, Any]:
    """Prints the scores and writes them as scores.html into `directory`; returns them for summary.json.

    Raises:
        DatasetError: no folder of labelled scenes, or none of them is held out.
        CheckpointError: no model that answers.
    """
    path = find_checkpoint(checkpoint)
    rows = held_out_stills([scenes], num_pictures)
    if not rows:
        raise DatasetError(
            f"{scenes} has no held-out pictures; collect some with seeds from 1,000,000 on"
        )
    begun = time.perf_counter()
    scores = measure_answers(load_answerable(path), rows)
    seconds = time.perf_counter() - begun
    named = figures(scores)
    for name, figure in named.items():
        print(f"  {name:<24}{figure.text()}")
    page = directory / "scores.html"
    write_text(page, html.render(_page(str(path), scenes, named, scores.num_pictures)))
    print(page)
    return {
        **scores.to_dict(),
        "checkpoint": str(path),
        "scenes": scenes,
        "answer_seconds": seconds,
        "report": str(page),
    }


def figures(scores: AnsweringScores) -> dict[str, Estimate]:
    """Returns every figure by the name a person reads."""
    named = {f"questions, {kind}": one for kind, one in scores.vqa.items()}
    if "all" in scores.vqa_held_out:
        named["questions in new words"] = scores.vqa_held_out["all"]
    for name, one in (("boxes, AP50", scores.ap50), ("masks, mean IoU", scores.mask_iou)):
        if one is not None:
            named[name] = one
    return named


def _page(path: str, scenes: str, named: dict[str, Estimate], num_pictures: int) -> html.Page:
    chart = interval_chart(
        [
            Interval(label=name, value=one.value, low=max(0.0, one.low), high=min(1.0, one.high))
            for name, one in named.items()
        ]
    )
    rows = [
        [name, f"{one.value:.3f}", f"{one.low:.3f} to {one.high:.3f}", str(one.n), one.method]
        for name, one in named.items()
    ]
    head = ["figure", "value", "95 % interval", "n", "interval by"]
    return html.Page(
        title="Answers about held-out pictures",
        kicker="vla ask",
        verdict=f"{num_pictures} pictures of scenes that training never saw.",
        figures=[html.Figure(value=f"{one.value:.2f}", label=name) for name, one in _chief(named)],
        sections=[
            html.Section(
                title="Scores",
                lead="Every answer is generated text; boxes and masks are read from it.",
                cards=[
                    html.Card(html=chart, is_wide=True),
                    html.Card(html=html.table(head, rows), is_wide=True),
                ],
            )
        ],
        footer=f"{path} on {scenes}",
    )


def _chief(named: dict[str, Estimate]) -> list[tuple[str, Estimate]]:
    chief = ("questions, all", "boxes, AP50", "masks, mean IoU")
    return [(name, named[name]) for name in chief if name in named]
