"""The main table: four families and each of Prismatic's towers alone, at matched parameters, data and processor time.

Sizes are chosen so that every arm has 2.7 to 2.95 million parameters without its action head. A family whose tower has
a stage 1 (its table row in the text: "frozen encoder, tuned projection") spends part of the time there and freezes it;
the others ("joint tuning", "native joint training") spend all of it in stage 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vla.cli.compare.plan import Arm, Experiment, Reading
from vla.cli.compare.sizes import Sizes
from vla.cli.compare.stages import Stages, retrieval_metrics
from vla.evaluation.comparison import Column

NAME = "generations"
ANSWERS, ACTIONS, COST = "answers", "action error", "cost"
SUCCESS, CONDITIONS = "success", "success under other conditions"
ANSWER_TOKENS = Column(name="answer_tokens", title="answer tokens right", group=ANSWERS)
ANSWER_COLUMNS = (
    Column(name="vqa/all", title="VQA", group=ANSWERS),
    Column(name="vqa_held_out/all", title="VQA, held-out words", group=ANSWERS),
    Column(name="ap50", title="AP50", group=ANSWERS),
    Column(name="mask_iou", title="mask IoU", group=ANSWERS),
)
# Of held-out demonstrations: arms differ here long before they differ in success.
ACTION_COLUMNS = (
    Column(name="action_tokens", title="action tokens within 2 bins", group=ACTIONS),
    *(
        Column(
            name=f"action_error/d{axis}",
            title=f"{axis} off by",
            is_share=False,
            unit="mm",
            scale=1000.0,
            group=ACTIONS,
        )
        for axis in "xyz"
    ),
)
COST_COLUMNS = (
    Column(name="parameters", title="parameters", is_share=False, group=COST),
    Column(name="image_tokens", title="tokens a picture", is_share=False, group=COST),
    Column(name="forward_mflop", title="MFLOP an action", is_share=False, group=COST),
    Column(name="action_cpu_ms", title="CPU ms an action", is_share=False, group=COST),
    Column(name="answer_pictures", title="pictures seen", is_share=False, group=COST),
    Column(name="policy_samples", title="robot frames seen", is_share=False, group=COST),
    Column(name="cpu_seconds", title="training, CPU s", is_share=False, group=COST),
)


@dataclass(frozen=True, kw_only=True)
class Generation:
    """An arm of the table.

    Attributes:
        label: the title in a dozen letters.
        towers: stage 1 of its towers, in the family's order; () where there is none.
        tower_depth: blocks of each.
    """

    name: str
    title: str
    label: str
    family: str
    variant: Sequence[str] = ()
    towers: Sequence[str] = ()
    tower_depth: int = 4


GENERATIONS = (
    Generation(
        name="prismatic",
        title="Prismatic, DINOv2 + SigLIP",
        label="both towers",
        family="prismatic",
        variant=["decoder_depth=3"],
        towers=["dinov2", "siglip"],
        tower_depth=2,
    ),
    Generation(
        name="prismatic_dinov2",
        title="Prismatic, DINOv2",
        label="DINOv2 alone",
        family="prismatic",
        variant=["towers=[dinov2]", "decoder_depth=3"],
        towers=["dinov2"],
    ),
    Generation(
        name="prismatic_siglip",
        title="Prismatic, SigLIP",
        label="SigLIP alone",
        family="prismatic",
        variant=["towers=[siglip]", "decoder_depth=3"],
        towers=["siglip"],
    ),
    Generation(
        name="paligemma",
        title="PaliGemma",
        label="PaliGemma",
        family="paligemma",
        towers=["siglip"],
    ),
    Generation(
        name="qwen2_vl",
        title="Qwen2-VL",
        label="Qwen2-VL",
        family="qwen2_vl",
        variant=["decoder_depth=3"],
    ),
    Generation(
        name="gemma4",
        title="Gemma 4, woven",
        label="Gemma, woven",
        family="gemma4",
        variant=["decoder_depth=6"],
    ),
    Generation(
        name="gemma4_encoder",
        title="Gemma 4, encoder",
        label="with encoder",
        family="gemma4",
        variant=["encoder=true"],
    ),
)


def generations(stages: Stages) -> Experiment:
    """Returns the experiment behind the main table."""
    sizes = stages.sizes
    retrieval = Column(name="retrieval", title=f"R@1 of {sizes.pool}, its SigLIP", group=ANSWERS)
    return Experiment(
        name=NAME,
        title="The generations as policies",
        question=(
            "The same labelled pictures, the same demonstrations and the same processor time: who answers best, and "
            "who acts best?"
        ),
        arms=[_arm(stages, generation) for generation in GENERATIONS],
        columns=[
            retrieval,
            *ANSWER_COLUMNS,
            ANSWER_TOKENS,
            *ACTION_COLUMNS,
            *_success_columns(sizes),
            *COST_COLUMNS,
        ],
    )


def _success_columns(sizes: Sizes) -> list[Column]:
    """Of every task and of all, then under other conditions, for which the table says of which tasks."""
    all_tasks = sizes.conditions == sizes.tasks
    which = "" if all_tasks else f" ({', '.join(_words(task) for task in sizes.conditions)})"
    told = {
        "success": "all, mean" if len(sizes.tasks) > 1 else "all",
        **{f"success/{task}": _words(task) for task in sizes.tasks},
        "success_hard": f"hard scenes{which}",
        "success_paraphrased": f"held-out words{which}",
        "success_swapped": f"swapped words{which}",
    }
    return [
        Column(
            name=name, title=title, group=SUCCESS if "_" not in name.split("/")[0] else CONDITIONS
        )
        for name, title in told.items()
    ]


def _words(task: str) -> str:
    return task.replace("_", " ")


def _arm(stages: Stages, generation: Generation) -> Arm:
    def readings(seed: int) -> list[Reading]:
        sizes = stages.sizes
        count = max(1, len(generation.towers))
        towers = [
            stages.tower(
                stage,
                seed,
                depth=generation.tower_depth,
                seconds=sizes.tower_seconds / count,
            )
            for stage in generation.towers
        ]
        found = [
            Reading(step=tower, metrics=retrieval_metrics())
            for tower, stage in zip(towers, generation.towers, strict=True)
            if stage == "siglip"
        ]
        answers = stages.answers(
            generation.family,
            seed,
            seconds=sizes.answers_seconds + (0.0 if towers else sizes.tower_seconds),
            variant=generation.variant,
            towers=towers,
            tower_depth=generation.tower_depth,
        )
        policy = stages.policy(
            answers,
            seed,
            demonstrations=stages.all_demonstrations(),
            seconds=sizes.policy_seconds,
        )
        # The policy comes last: its number of parameters is the one that counts.
        return [*found, stages.answers_reading(answers), *stages.policy_readings(policy)]

    means = {**stages.success_means(), **stages.condition_means()}
    return Arm(
        name=generation.name,
        title=generation.title,
        label=generation.label,
        readings=readings,
        means=means,
    )
