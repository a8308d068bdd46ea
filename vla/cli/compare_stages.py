"""The steps that arms are put together from: data, the stages of training, and what is measured of the outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vla.cli.compare_plan import Read, Reading, Sizes
from vla.cli.compare_steps import Step

HELD_OUT_SEED = 1_000_000
TOWER = "tower.width=128", "tower.patch_size=8"
PICTURES = {
    "detail": 224,
    "wide": 128,
}  # pixels a side, or their square root, that native models may see


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Makes steps of one size; equal arguments give equal steps, which are run once."""

    sizes: Sizes

    def scenes(self, family: str = "still") -> dict[str, Step]:
        """Returns the labelled scenes to learn from and those held out."""
        still = family == "still"
        sizes = self.sizes
        counts = {
            "scenes": sizes.scenes if still else sizes.special_scenes,
            "held_out": sizes.held_out_scenes if still else sizes.held_out_special_scenes,
        }
        side = f"scene_labels.sizes=[{sizes.picture}x{sizes.picture}]"
        return {
            name: Step(
                name=f"{family}_{name}",
                verb="collect",
                settings=[
                    "labels=true",
                    f"scene_labels.family={family}",
                    *([side] if still else []),
                    f"episodes={count}",
                    f"seed={0 if name == 'scenes' else HELD_OUT_SEED}",
                    "root={made}",
                    self._workers(),
                ],
                makes="scenes",
            )
            for name, count in counts.items()
        }

    def demonstrations(self, task: str, episodes: int) -> Step:
        """Returns the expert's demonstrations of one task."""
        settings = [f"env={task}", f"episodes={episodes}", "root={made}", self._workers()]
        if self.sizes.picture != 64:
            settings.append(f"env.image_size={self.sizes.picture}")
        return Step(name=f"demos_{task}", verb="collect", settings=settings, makes="demonstrations")

    def tower(
        self, stage: str, seed: int, *, depth: int, seconds: float, batch_size: int | None = None
    ) -> Step:
        """Returns stage 1 of a vision tower: siglip, clip or dinov2."""
        sizes = self.sizes
        retrieval = [
            f"contrastive.retrieval_pool={sizes.pool}",
            f"contrastive.retrieval_queries={max(sizes.pool, sizes.held_out_scenes // 2)}",
        ]
        settings = [
            f"stage={stage}",
            "scenes=[{scenes},{held_out}]",
            f"image_size={sizes.picture}",
            *TOWER,
            f"tower.depth={depth}",
            *([] if stage == "dinov2" else retrieval),
            *self._training(seed, seconds, batch_size),
        ]
        return Step(name=f"tower_{stage}", verb="pretrain", settings=settings, needs=self.scenes())

    def mask_codec(self) -> Step:
        """Returns the mask codec that all arms share."""
        settings = [
            "stage=mask_codec",
            "scenes=[{scenes},{held_out}]",
            *self._training(0, self.sizes.codec_seconds),
        ]
        return Step(name="mask_codec", verb="pretrain", settings=settings, needs=self.scenes())

    def answers(
        self,
        family: str,
        seed: int,
        *,
        seconds: float,
        variant: Sequence[str] = (),
        towers: Sequence[Step] = (),
        more: Sequence[str] = (),
        scenes: str = "still",
        tower_depth: int = 4,
    ) -> Step:
        """Returns stage 2: a model that answers, its towers frozen where they have had a stage 1.

        Args:
            family: of the backbone.
            seed: of weights and order.
            seconds: its budget.
            variant: switches, as `name=value`.
            towers: stage 1 of its towers, in the order of the family.
            more: further settings.
            scenes: which labelled scenes it learns from.
            tower_depth: blocks of each tower of families whose towers the stage shapes.
        """
        named = {f"tower_{place}": step for place, step in enumerate(towers)}
        needs = {**self.scenes(scenes), **named}
        settings = [
            "stage=multimodal",
            "scenes=[{scenes},{held_out}]",
            f"image_size={PICTURES.get(scenes, self.sizes.picture)}",
            *TOWER,
            f"tower.depth={tower_depth}",
            f"multimodal.family={family}",
            *(f"multimodal.variant.{switch}" for switch in variant),
            f"multimodal.final_pictures={self.sizes.examined}",
            f"multimodal.measured_pictures={min(8, self.sizes.examined)}",
            *self._training(seed, seconds),
            *more,
        ]
        if named:
            places = ",".join(f"{{{name}}}" for name in named)
            settings += [f"multimodal.vision_from=[{places}]", "training.frozen_parts=[vision]"]
        if scenes == "still":
            needs["codec"] = self.mask_codec()
            settings.append("multimodal.mask_codec={codec}")
        return Step(name=f"answers_{family}", verb="pretrain", settings=settings, needs=needs)

    def policy(
        self,
        answers: Step,
        seed: int,
        *,
        demonstrations: Mapping[str, Step],
        seconds: float,
        more: Sequence[str] = (),
        needs: Mapping[str, Step] | None = None,
    ) -> Step:
        """Returns robot training that starts from a model that answers."""
        roots = ",".join(f"{{{name}}}" for name in demonstrations)
        settings = [
            "init_from={answers}",
            f"data.roots=[{roots}]",
            f"backbone.image_size={self.sizes.picture}",
            *self._training(seed, seconds),
            *more,
        ]
        all_needs = {"answers": answers, **demonstrations, **(needs or {})}
        return Step(name="policy", verb="train", settings=settings, needs=all_needs)

    def all_demonstrations(self) -> dict[str, Step]:
        """Returns those of every task."""
        count = self.sizes.demonstrations
        return {task: self.demonstrations(task, count) for task in self.sizes.tasks}

    def success(self, policy: Step, task: str, name: str, *more: str, times: int = 1) -> Reading:
        """Returns how often the policy succeeds, read as the metric `name`."""
        settings = [
            "policy={policy}",
            f"env={task}",
            f"episodes={self.sizes.episodes * times}",
            "save_video=false",
            self._workers(),
            *more,
        ]
        if self.sizes.max_steps is not None:
            settings.append(f"env.max_steps={self.sizes.max_steps}")
        step = Step(
            name=f"eval_{name.replace('/', '_')}",
            verb="eval",
            settings=settings,
            needs={"policy": policy},
        )
        return Reading(step=step, metrics={name: Read(path=".")})

    def policy_readings(self, policy: Step) -> list[Reading]:
        """Returns success on every task, on harder scenes, in other and in swapped words, and what acting costs."""
        whole = "tabletop" if len(self.sizes.tasks) > 1 else self.sizes.tasks[0]
        cost = Step(
            name="cost",
            verb="bench",
            settings=["name=policy", "checkpoint={policy}", "batch_size=8", "rounds=3"],
            needs={"policy": policy},
        )
        facts = ("parameters", "image_tokens", "forward_mflop", "action_cpu_ms")
        return [
            *(self.success(policy, task, f"success/{task}") for task in self.sizes.tasks),
            self.success(policy, whole, "success/all", times=2),
            self.success(policy, whole, "success_hard", "env.randomization=hard", times=2),
            self.success(
                policy, whole, "success_paraphrased", "instruction_split=held_out", times=2
            ),
            self.success(policy, whole, "success_swapped", "swap_instruction=true", times=2),
            Reading(step=cost, facts={fact: fact for fact in facts}),
        ]

    def answers_reading(self, step: Step) -> Reading:
        """Returns what a model that answers was measured to know at the end of its training."""
        return Reading(step=step, metrics=answer_metrics(), facts={"parameters": "parameters"})

    def examined(self, step: Step, scenes: str) -> Reading:
        """Returns what a finished model, or a policy, knows about held-out pictures or clips of a kind."""
        sizes = self.sizes
        count = sizes.examined if scenes == "still" else sizes.held_out_special_scenes
        settings = [
            "checkpoint={answers}",
            "scenes=[{held_out}]",
            f"pictures={count}",
        ]
        needs = {"answers": step, "held_out": self.scenes(scenes)["held_out"]}
        examine = Step(name=f"examine_{scenes}", verb="examine", settings=settings, needs=needs)
        return Reading(step=examine, metrics=answer_metrics())

    def _training(self, seed: int, seconds: float, batch_size: int | None = None) -> list[str]:
        sizes = self.sizes
        return [
            f"training.seed={seed}",
            f"training.steps={sizes.steps}",
            f"training.max_cpu_seconds={seconds:g}",
            f"training.batch_size={batch_size or sizes.batch_size}",
            "training.num_threads=1",
            f"training.validate_every={sizes.steps}",
            "training.validation_batches=8",
            "training.checkpoint_every=500",
            "resume=true",
        ]

    def _workers(self) -> str:
        count = self.sizes.num_workers
        return f"num_workers={'null' if count is None else count}"


def answer_metrics() -> dict[str, Read]:
    """Returns where summaries have what a model that answers knows."""
    return {
        "vqa": Read(path="vqa.*"),
        "vqa_held_out": Read(path="vqa_held_out.*"),
        "ap50": Read(path="ap50"),
        "mask_iou": Read(path="mask_iou"),
    }


def retrieval_metrics() -> dict[str, Read]:
    """Returns where summaries have how well a tower and its text tower find each other."""
    n = "metrics.num_queries"
    return {
        "retrieval": Read(path="metrics.image_to_text_r1", n=n),
        "retrieval_of_pictures": Read(path="metrics.text_to_image_r1", n=n),
    }
