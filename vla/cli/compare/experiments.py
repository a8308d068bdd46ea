"""The experiments beside the main table: each changes one thing that the text makes a claim about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from vla.cli.compare.arms import (
    ACTION_COLUMNS,
    ANSWER_COLUMNS,
    ANSWER_TOKENS,
    COST_COLUMNS,
    generations,
)
from vla.cli.compare.plan import Arm, Experiment, Reading
from vla.cli.compare.sizes import Sizes
from vla.cli.compare.stages import Stages, action_metrics, retrieval_metrics
from vla.cli.compare.steps import Step
from vla.evaluation.comparison import Column

VQA, VQA_HELD_OUT, AP50, MASK_IOU = (replace(column, group="") for column in ANSWER_COLUMNS)
TOKENS = replace(ANSWER_TOKENS, group="")
PARAMETERS, *_, PICTURES, FRAMES, CPU_SECONDS = (
    replace(column, group="") for column in COST_COLUMNS
)
ACTION_TOKENS = replace(ACTION_COLUMNS[0], group="")
SUCCESS = Column(name="success", title="success")
SCENE_FRACTION = 0.25


def all_experiments(sizes: Sizes) -> list[Experiment]:
    """Returns every experiment, the main table first."""
    stages = Stages(sizes=sizes)
    makers = (
        generations, detail, wide, tower_rope, mrope, prefix, batch_sizes, connectors, joint_loss, pretraining,
    )  # fmt: skip
    return [make(stages) for make in makers]


def detail(stages: Stages) -> Experiment:
    side, square = stages.sizes.detail_picture, stages.sizes.detail_square
    return Experiment(
        name="detail",
        title="Fixed size against native resolution: a detail of a few pixels",
        question=(
            f"Pictures of {side} px with questions that dots of a few pixels decide, to one model (Qwen2-VL's) "
            f"stretched to a square of {square} px first, and as they are."
        ),
        arms=_answering(
            stages,
            "detail",
            {
                "native": ("native", []),
                "fixed": (f"{square} px square", [f"fixed_size={square}"]),
            },
        ),
        columns=[
            Column(name="vqa/detail", title="detail questions"),
            VQA,
            TOKENS,
            PICTURES,
            CPU_SECONDS,
        ],
    )


def wide(stages: Stages) -> Experiment:
    side = stages.sizes.wide_picture
    return Experiment(
        name="wide",
        title="Fixed size against native resolution: wide and tall pictures",
        question=(
            f"Pictures of several proportions, to one model (Qwen2-VL's) stretched to a square of {side} px first, and "
            "as they are, with as many pixels."
        ),
        arms=_answering(
            stages, "wide", {"native": ("native", []), "fixed": ("square", [f"fixed_size={side}"])}
        ),
        columns=[
            Column(name="vqa/wide", title="questions on proportions"),
            VQA,
            TOKENS,
            PICTURES,
            CPU_SECONDS,
        ],
    )


def tower_rope(stages: Stages) -> Experiment:
    kinds = {"rows_and_columns": "2-D", "raster": "1-D"}
    return Experiment(
        name="tower_rope",
        title="1-D against 2-D RoPE in the tower",
        question="Patches turned by row and column, or by their number in the picture (Qwen2-VL's tower).",
        arms=_answering(
            stages,
            "still",
            {kind: (title, [f"tower_rope={kind}"]) for kind, title in kinds.items()},
        ),
        columns=[
            VQA,
            Column(name="vqa/relation", title="relations"),
            AP50,
            TOKENS,
            PICTURES,
            CPU_SECONDS,
        ],
    )


def mrope(stages: Stages) -> Experiment:
    return Experiment(
        name="mrope",
        title="M-RoPE against 1-D positions on clips",
        question=(
            "Clips with questions that no single frame answers; the decoder's positions count time, row and column, or "
            "tokens."
        ),
        arms=_answering(
            stages,
            "motion",
            {"mrope": ("M-RoPE", []), "plain": ("1-D", ["mrope=false"])},
            is_examined=True,
        ),
        columns=[
            Column(name="vqa/motion", title="motion questions"),
            VQA,
            TOKENS,
            PICTURES,
            CPU_SECONDS,
        ],
    )


def prefix(stages: Stages) -> Experiment:
    kinds = {"prefix_lm": "prefix-LM", "causal": "causal"}
    return Experiment(
        name="prefix",
        title="Prefix-LM against causal attention",
        question="Pictures and prompt see all of each other, or only what came before (PaliGemma, one question a row).",
        arms=_answering(
            stages,
            "still",
            {
                kind: (title, [f"attention={kind}", "pictures_apart=false"])
                for kind, title in kinds.items()
            },
            family="paligemma",
            more=["multimodal.is_packed=false"],
        ),
        columns=[VQA, VQA_HELD_OUT, AP50, TOKENS, PICTURES, CPU_SECONDS],
    )


def batch_sizes(stages: Stages) -> Experiment:
    def arm(stage: str, title: str, size: int) -> Arm:
        def readings(seed: int) -> list[Reading]:
            seconds = stages.sizes.tower_seconds
            step = stages.tower(stage, seed, depth=4, seconds=seconds, batch_size=size)
            return [Reading(step=step, metrics=retrieval_metrics())]

        return Arm(
            name=f"{stage}_{size}",
            title=f"{title}, batches of {size}",
            readings=readings,
            series=title,
            x=float(size),
        )

    kinds = {"siglip": "sigmoid", "clip": "softmax"}
    return Experiment(
        name="batch_sizes",
        title="Sigmoid against softmax across batch sizes",
        question="A tower and a text tower aligned by either loss, in equal time: how well do they find each other?",
        arms=[
            arm(stage, title, size)
            for stage, title in kinds.items()
            for size in stages.sizes.batch_sizes
        ],
        columns=[
            Column(name="retrieval", title=f"R@1 of {stages.sizes.pool}, captions"),
            Column(name="retrieval_of_pictures", title=f"R@1 of {stages.sizes.pool}, pictures"),
            CPU_SECONDS,
        ],
        x_label="pairs in a batch",
    )


def connectors(stages: Stages) -> Experiment:
    def arm(
        name: str, title: str, family: str, variant: Sequence[str], *, is_stitched: bool
    ) -> Arm:
        def readings(seed: int) -> list[Reading]:
            seconds, shared = stages.sizes.experiment_seconds, stages.sizes.tower_seconds
            tower = stages.tower("siglip", seed, depth=4, seconds=shared)
            step = stages.answers(
                family,
                seed,
                seconds=seconds + (0.0 if is_stitched else shared),
                variant=variant,
                towers=[tower] if is_stitched else [],
            )
            return [stages.answers_reading(step)]

        return Arm(name=name, title=title, readings=readings)

    stitched = {"linear": "linear", "mlp": "MLP"}
    return Experiment(
        name="connectors",
        title="Connector: linear, MLP, or none",
        question=(
            "A frozen SigLIP tower joined to the decoder by one linear layer or an MLP (PaliGemma), against patches "
            "that go straight into a deeper decoder (Gemma 4, woven), all in the same time."
        ),
        arms=[
            *(
                arm(kind, title, "paligemma", [f"connector={kind}"], is_stitched=True)
                for kind, title in stitched.items()
            ),
            arm("woven", "woven", "gemma4", ["decoder_depth=6"], is_stitched=False),
        ],
        columns=[VQA, VQA_HELD_OUT, AP50, MASK_IOU, TOKENS, PARAMETERS, PICTURES, CPU_SECONDS],
    )


def joint_loss(stages: Stages) -> Experiment:
    def answers(seed: int) -> Step:
        sizes = stages.sizes
        tower = stages.tower("siglip", seed, depth=4, seconds=sizes.tower_seconds)
        return stages.answers("paligemma", seed, seconds=sizes.answers_seconds, towers=[tower])

    def before(seed: int) -> list[Reading]:
        return [stages.examined(answers(seed), "still")]

    def trained(fraction: float) -> Callable[[int], list[Reading]]:
        def readings(seed: int) -> list[Reading]:
            settings = [
                "data.scenes=[{scenes},{held_out}]",
                f"data.scene_fraction={fraction}",
            ]
            policy = stages.policy(
                answers(seed),
                seed,
                demonstrations=stages.all_demonstrations(),
                seconds=stages.sizes.few_seconds,
                more=settings,
                needs=stages.scenes(),
            )
            learnt = Reading(
                step=policy, metrics=action_metrics(), facts={"policy_samples": "samples"}
            )
            return [learnt, stages.examined(policy, "still"), *stages.succeeding(policy)]

        return readings

    means = stages.success_means()
    return Experiment(
        name="joint_loss",
        title="Joint loss against actions only",
        question=(
            "A model that answers learns to act, with or without pictures and questions among the robot frames: does "
            "it forget how to answer?"
        ),
        arms=[
            Arm(name="before", title="before", readings=before),
            Arm(name="joint", title="joint", readings=trained(SCENE_FRACTION), means=means),
            Arm(name="actions_only", title="actions only", readings=trained(0.0), means=means),
        ],
        columns=[VQA, VQA_HELD_OUT, AP50, SUCCESS, ACTION_TOKENS, FRAMES, CPU_SECONDS],
    )


def pretraining(stages: Stages) -> Experiment:
    task = stages.sizes.few_task

    def arm(name: str, title: str, count: int, *, keeps: bool) -> Arm:
        def readings(seed: int) -> list[Reading]:
            sizes = stages.sizes
            tower = stages.tower("siglip", seed, depth=4, seconds=sizes.tower_seconds)
            answers = stages.answers(
                "paligemma", seed, seconds=sizes.answers_seconds, towers=[tower]
            )
            policy = stages.policy(
                answers,
                seed,
                demonstrations={"demos": stages.demonstrations(task, count)},
                seconds=sizes.few_seconds,
                more=[f"backbone.keeps_weights={str(keeps).lower()}"],
            )
            return [
                Reading(step=policy, facts={"policy_samples": "samples"}),
                stages.success(policy, task, "success", episodes=sizes.few_episodes),
            ]

        return Arm(
            name=f"{name}_{count}",
            title=f"{title}, {count} demonstrations",
            readings=readings,
            series=title,
            x=float(count),
        )

    kinds = {"pretrained": ("pretrained", True), "scratch": ("from scratch", False)}
    return Experiment(
        name="pretraining",
        title="Pretrained against from scratch",
        question=(
            f"PaliGemma's small form learns {task.replace('_', ' ')} from few demonstrations, in equal fine-tuning "
            "time, from its pretrained weights or from random ones."
        ),
        arms=[
            arm(name, title, count, keeps=keeps)
            for name, (title, keeps) in kinds.items()
            for count in stages.sizes.few_demonstrations
        ],
        columns=[SUCCESS, FRAMES, CPU_SECONDS],
        x_label="demonstrations",
    )


def _answering(
    stages: Stages,
    scenes: str,
    arms: dict[str, tuple[str, Sequence[str]]],
    *,
    family: str = "qwen2_vl",
    more: Sequence[str] = (),
    is_examined: bool = False,
) -> list[Arm]:
    """Arms of one family that learn to answer from nothing, in the time of an experiment."""
    depth = stages.sizes.experiment_depth
    shape = [f"decoder_depth={depth}", f"tower_depth={depth}"] if depth else []

    def arm(name: str, title: str, variant: Sequence[str]) -> Arm:
        def readings(seed: int) -> list[Reading]:
            step = stages.answers(
                family,
                seed,
                seconds=stages.sizes.experiment_seconds,
                variant=[*variant, *shape],
                scenes=scenes,
                more=more,
            )
            asked = [stages.examined(step, scenes)] if is_examined else []
            return [stages.answers_reading(step), *asked]

        return Arm(name=name, title=title, readings=readings)

    return [arm(name, title, variant) for name, (title, variant) in arms.items()]
