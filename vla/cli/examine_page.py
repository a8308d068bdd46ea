"""The page of `vla examine`: every figure with its interval."""

from __future__ import annotations

from vla.evaluation import html
from vla.evaluation.answering import AnsweringScores
from vla.evaluation.charts import Interval, interval_chart
from vla.evaluation.estimates import Estimate


def figures(scores: AnsweringScores) -> dict[str, Estimate]:
    """Returns every figure by the name a person reads."""
    named = {f"questions, {kind}": one for kind, one in scores.vqa.items()}
    if "all" in scores.vqa_held_out:
        named["questions in new words"] = scores.vqa_held_out["all"]
    for name, one in (("boxes, AP50", scores.ap50), ("masks, mean IoU", scores.mask_iou)):
        if one is not None:
            named[name] = one
    return named


def page(path: str, scenes: str, named: dict[str, Estimate], num_pictures: int) -> html.Page:
    """Returns the page that shows `figures` of one checkpoint."""
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
        kicker="vla examine",
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
