"""The main table: four families and each of Prismatic's towers alone, at matched parameters, data and processor time.

Sizes are chosen so that every arm has 2.7 to 2.95 million parameters without its action head. A family whose tower has
a stage 1 (its table row in the text: "frozen encoder, tuned projection") spends part of the time there and freezes it;
the others ("joint tuning", "native joint training") spend all of it in stage 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vla.cli.compare_plan import Arm, Experiment, Reading
from vla.cli.compare_stages import Stages, retrieval_metrics
from vla.evaluation.comparison import Column

NAME = "generations"
ANSWER_COLUMNS = (
    Column(name="vqa/all", title="VQA"),
    Column(name="vqa_held_out/all", title="VQA, held-out words"),
    Column(name="ap50", title="AP50"),
    Column(name="mask_iou", title="mask IoU"),
)
POLICY_COLUMNS = (
    Column(name="success/all", title="success"),
    Column(name="success_hard", title="success, hard"),
    Column(name="success_paraphrased", title="success, held-out words"),
    Column(name="success_swapped", title="success, swapped words"),
)
COST_COLUMNS = (
    Column(name="parameters", title="parameters", is_share=False),
    Column(name="image_tokens", title="tokens a picture", is_share=False),
    Column(name="forward_mflop", title="MFLOP an action", is_share=False),
    Column(name="action_cpu_ms", title="CPU ms an action", is_share=False),
    Column(name="cpu_seconds", title="training, CPU s", is_share=False),
)


@dataclass(frozen=True, kw_only=True)
class Generation:
    """An arm of the table.

    Attributes:
        towers: stage 1 of its towers, in the family's order; () where there is none.
        tower_depth: blocks of each.
    """

    name: str
    title: str
    family: str
    variant: Sequence[str] = ()
    towers: Sequence[str] = ()
    tower_depth: int = 4


GENERATIONS = (
    Generation(
        name="prismatic",
        title="Prismatic, DINOv2 + SigLIP",
        family="prismatic",
        variant=["decoder_depth=3"],
        towers=["dinov2", "siglip"],
        tower_depth=2,
    ),
    Generation(
        name="prismatic_dinov2",
        title="Prismatic, DINOv2",
        family="prismatic",
        variant=["towers=[dinov2]", "decoder_depth=3"],
        towers=["dinov2"],
    ),
    Generation(
        name="prismatic_siglip",
        title="Prismatic, SigLIP",
        family="prismatic",
        variant=["towers=[siglip]", "decoder_depth=3"],
        towers=["siglip"],
    ),
    Generation(name="paligemma", title="PaliGemma", family="paligemma", towers=["siglip"]),
    Generation(name="qwen2_vl", title="Qwen2-VL", family="qwen2_vl", variant=["decoder_depth=3"]),
    Generation(name="gemma4", title="Gemma 4, woven", family="gemma4", variant=["decoder_depth=6"]),
    Generation(
        name="gemma4_encoder",
        title="Gemma 4, encoder",
        family="gemma4",
        variant=["encoder=true"],
    ),
)


def generations(stages: Stages) -> Experiment:
    """Returns the experiment behind the main table."""
    tasks = [
        Column(name=f"success/{task}", title=task.replace("_", " ")) for task in stages.sizes.tasks
    ]
    retrieval = Column(name="retrieval", title=f"R@1 of {stages.sizes.pool}, its SigLIP")
    return Experiment(
        name=NAME,
        title="The generations as policies",
        question=(
            "The same labelled pictures, the same demonstrations and the same processor time: who answers best, and "
            "who acts best?"
        ),
        arms=[_arm(stages, generation) for generation in GENERATIONS],
        columns=[retrieval, *ANSWER_COLUMNS, *POLICY_COLUMNS, *tasks, *COST_COLUMNS],
    )


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

    return Arm(name=generation.name, title=generation.title, readings=readings)
