"""How much of everything a comparison has: the two levels are configs/sizes/full.yaml and laptop.yaml."""

from __future__ import annotations

from dataclasses import dataclass, field

from vla.errors import ConfigError, unknown_name

TABLETOP_TASKS = ("reach", "pick_cube", "place_in_bowl", "stack", "push", "open_drawer")


@dataclass(kw_only=True)
class Sizes:
    """Data and budgets; times are processor seconds of training, the budget of every arm.

    The defaults are those of `sizes=full`.
    """

    name: str = "full"  # of the level, as it is typed
    # Pictures
    picture: int = 64  # pixels, square, of scenes and cameras
    patch: int = (
        8  # pixels a side of what a tower's token sees (PaliGemma, Prismatic, towers alone)
    )
    detail_picture: int = 224  # of the questions that a detail decides; native models see all of it
    detail_square: int = 64  # what the other arm sees of it
    wide_picture: int = 128  # square root of the pixels that wide pictures are seen with
    scenes: int = 20_000  # labelled pictures to learn from
    held_out_scenes: int = 1_000
    special_scenes: int = 6_000  # of each special kind: detail, wide, motion
    held_out_special_scenes: int = 400
    # Questions
    questions: int = 8  # about a picture whenever it is learnt from
    question_weights: dict[str, float] = field(
        default_factory=dict
    )  # of multimodal.weights; without segment there is no mask codec
    pool: int = 64  # pictures and captions that retrieval searches among
    examined: int = 256  # held-out pictures that finished models are asked about
    # Robot data
    tasks: list[str] = field(default_factory=lambda: list(TABLETOP_TASKS))
    demonstrations: int = 300  # of each task
    demonstrations_of: dict[str, int] = field(default_factory=dict)  # of these tasks instead
    passes_of: dict[str, float] = field(default_factory=dict)  # over a task's frames, against 1
    few_demonstrations: list[int] = field(default_factory=lambda: [10, 30, 100])
    few_task: str = "pick_cube"  # that is learnt from few demonstrations
    validation_fraction: float = 0.03  # of the demonstrated scenes, for the action error
    # Episodes
    episodes: int = 100  # of each task, for success
    episodes_of: dict[str, int] = field(default_factory=dict)  # of these tasks instead
    # tasks that are tried in harder scenes, in other words and in swapped ones; empty: all of them
    condition_tasks: list[str] = field(default_factory=list)
    condition_episodes: int = 34  # of each of them
    few_episodes: int = 200  # of the task that is learnt from few demonstrations
    max_steps: int | None = None  # of an episode; null: the task's own limit
    num_workers: int | None = None  # of simulation; null: one per core, 0: none
    # Training
    tower_seconds: float = 900.0  # stage 1, or longer stage 2 where there is no stage 1
    codec_seconds: float = 300.0  # of the mask codec that all arms share
    answers_seconds: float = 1800.0  # stage 2
    policy_seconds: float = 3600.0  # robot data
    experiment_seconds: float = 900.0  # each arm of the smaller experiments
    few_seconds: float = 900.0  # of fine-tuning there: on few demonstrations, or with a joint loss
    # blocks of decoder and tower in the experiments that learn to answer from nothing; null: the family's
    experiment_depth: int | None = None
    batch_size: int = 64  # of towers and policies
    pictures_a_step: int = 64  # of stage 2
    batch_sizes: list[int] = field(default_factory=lambda: [16, 64, 256])  # sigmoid against softmax
    warmup_steps: int | None = None  # of the learning rate; null: each stage's own
    ema_decay: float | None = None  # of the averaged weights; null: each stage's own
    steps: int = 1_000_000  # of any training, should the time last that long

    def __post_init__(self) -> None:
        named = (
            *self.tasks, *self.condition_tasks, self.few_task,
            *self.demonstrations_of, *self.passes_of, *self.episodes_of,
        )  # fmt: skip
        for task in named:
            if task not in TABLETOP_TASKS:
                raise ConfigError(unknown_name("task", task, TABLETOP_TASKS))

    def told(self) -> str:
        """Returns the level and its budgets as a person would read them."""
        budgets = {
            "a tower": self.tower_seconds,
            "answering": self.answers_seconds,
            "acting": self.policy_seconds,
            "fine-tuning in the smaller experiments": self.few_seconds,
            "learning to answer in them": self.experiment_seconds,
        }
        listed = ", ".join(f"{seconds:g} s for {what}" for what, seconds in budgets.items())
        if self.experiment_depth:
            listed += f" (models of {self.experiment_depth} blocks)"
        masks = "" if self.has_masks else " Masks are left out at this size."
        return (
            f"Budgets are processor seconds on one thread: {listed}; {self.scenes:,} labelled pictures of "
            f"{self.picture} px.{masks}"
        )

    @property
    def has_masks(self) -> bool:
        """Whether models learn to segment."""
        return self.question_weights.get("segment", 1.0) > 0

    @property
    def conditions(self) -> list[str]:
        """The tasks that are also tried under other conditions."""
        return self.condition_tasks or self.tasks


QUICK = Sizes(
    name="quick",
    scenes=6,
    held_out_scenes=4,
    special_scenes=4,
    held_out_special_scenes=2,
    pool=2,
    examined=1,
    tasks=["reach"],
    demonstrations=3,
    few_demonstrations=[3],
    few_task="reach",
    validation_fraction=0.4,
    episodes=1,
    condition_episodes=1,
    few_episodes=1,
    max_steps=2,
    num_workers=0,
    batch_size=4,  # a quarter of it may be scenes
    pictures_a_step=4,
    batch_sizes=[2, 4],
    steps=1,
)
