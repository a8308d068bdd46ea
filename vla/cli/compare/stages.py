"""The steps that arms are put together from: data, the stages of training, and what is measured of the outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vla.cli.compare.plan import Read, Reading
from vla.cli.compare.sizes import Sizes
from vla.cli.compare.steps import Step

HELD_OUT_SEED = 1_000_000
CONDITIONS = {
    "success_hard": "env.randomization=hard",
    "success_paraphrased": "instruction_split=held_out",
    "success_swapped": "swap_instruction=true",
}
# Scenes made for one kind of question are learnt from by questions alone.
WORDS_ALONE = {"caption": 0.0, "detect": 0.0, "segment": 0.0}


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
        side = {"still": sizes.picture, "motion": sizes.picture, "detail": sizes.detail_picture}
        return {
            name: Step(
                name=f"{family}_{name}",
                verb="collect",
                settings=[
                    "labels=true",
                    f"scene_labels.family={family}",
                    *(
                        [f"scene_labels.sizes=[{side[family]}x{side[family]}]"]
                        if family in side
                        else []
                    ),
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
            *self._tower(depth),
            *(self._short_distillation() if stage == "dinov2" else retrieval),
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
        weights = self.sizes.question_weights if scenes == "still" else WORDS_ALONE
        settings = [
            "stage=multimodal",
            "scenes=[{scenes},{held_out}]",
            f"image_size={self._largest(scenes)}",
            *self._tower(tower_depth),
            f"multimodal.family={family}",
            *(f"multimodal.variant.{switch}" for switch in variant),
            f"multimodal.final_pictures={self.sizes.examined}",
            "multimodal.measured_pictures=1",  # the finished model is what counts
            f"multimodal.tasks_per_picture={self.sizes.questions}",
            *(f"multimodal.weights.{kind}={w:g}" for kind, w in weights.items()),
            *self._training(seed, seconds, self.sizes.pictures_a_step),
            *more,
        ]
        if named:
            places = ",".join(f"{{{name}}}" for name in named)
            settings += [f"multimodal.vision_from=[{places}]", "training.frozen_parts=[vision]"]
        if scenes == "still" and self.sizes.has_masks:
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
        sizes = self.sizes
        roots = ",".join(f"{{{name}}}" for name in demonstrations)
        passes = ",".join(f"{sizes.passes_of.get(name, 1.0):g}" for name in demonstrations)
        settings = [
            "init_from={answers}",
            f"data.roots=[{roots}]",
            *([f"data.weights=[{passes}]"] if len(demonstrations) > 1 else []),
            f"data.validation_fraction={sizes.validation_fraction:g}",
            f"backbone.image_size={sizes.picture}",
            "backbone.max_text_tokens=32",  # the tokenizer is that of the scenes, and spells out verbs
            *self._training(seed, seconds),
            *more,
        ]
        all_needs = {"answers": answers, **demonstrations, **(needs or {})}
        return Step(name="policy", verb="train", settings=settings, needs=all_needs)

    def all_demonstrations(self) -> dict[str, Step]:
        """Returns those of every task."""
        sizes = self.sizes
        return {
            task: self.demonstrations(task, sizes.demonstrations_of.get(task, sizes.demonstrations))
            for task in sizes.tasks
        }

    def success(self, policy: Step, task: str, name: str, *more: str, episodes: int) -> Reading:
        """Returns how often the policy succeeds at a task, read as the metric `name`."""
        settings = [
            "policy={policy}",
            f"env={task}",
            f"episodes={episodes}",
            "batch_size=10",
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

    def succeeding(self, policy: Step) -> list[Reading]:
        """Returns success on every task."""
        sizes = self.sizes
        return [
            self.success(
                policy,
                task,
                f"success/{task}",
                episodes=sizes.episodes_of.get(task, sizes.episodes),
            )
            for task in sizes.tasks
        ]

    def policy_readings(self, policy: Step) -> list[Reading]:
        """Returns the action error, success on every task, in harder scenes and other words, and what acting costs."""
        sizes = self.sizes
        cost = Step(
            name="cost",
            verb="bench",
            settings=["name=policy", "checkpoint={policy}", "batch_size=8", "rounds=3"],
            needs={"policy": policy},
        )
        facts = ("parameters", "image_tokens", "forward_mflop", "action_cpu_ms")
        return [
            Reading(step=policy, metrics=action_metrics(), facts={"policy_samples": "samples"}),
            *self.succeeding(policy),
            *(
                self.success(policy, task, f"{name}/{task}", how, episodes=sizes.condition_episodes)
                for name, how in CONDITIONS.items()
                for task in sizes.conditions
            ),
            Reading(step=cost, facts={fact: fact for fact in facts}),
        ]

    def success_means(self) -> dict[str, list[str]]:
        """Returns which figures of `succeeding` make up the mean over tasks."""
        return {"success": [f"success/{task}" for task in self.sizes.tasks]}

    def condition_means(self) -> dict[str, list[str]]:
        """Returns the same for the other conditions of `policy_readings`."""
        return {name: [f"{name}/{task}" for task in self.sizes.conditions] for name in CONDITIONS}

    def answers_reading(self, step: Step) -> Reading:
        """Returns what a model that answers was measured to know at the end of its training."""
        told = {"answer_tokens": Read(path="metrics.token_accuracy", is_bare=True)}
        return Reading(
            step=step,
            metrics={**answer_metrics(), **told},
            facts={"parameters": "parameters", "answer_pictures": "samples"},
        )

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

    def _tower(self, depth: int) -> list[str]:
        return ["tower.width=128", f"tower.patch_size={self.sizes.patch}", f"tower.depth={depth}"]

    def _short_distillation(self) -> list[str]:
        """What else must come sooner in a run of a few hundred steps."""
        if (steps := self.sizes.warmup_steps) is None:
            return []
        return [
            f"self_distillation.resting_steps={steps}",
            f"self_distillation.teacher_warmup_steps={4 * steps}",
        ]

    def _largest(self, scenes: str) -> int:
        """Pixels a side, or their square root, that models may see of a kind of scenes."""
        sizes = self.sizes
        return {"detail": sizes.detail_picture, "wide": sizes.wide_picture}.get(
            scenes, sizes.picture
        )

    def _training(self, seed: int, seconds: float, batch_size: int | None = None) -> list[str]:
        sizes = self.sizes
        pace = {"warmup_steps": sizes.warmup_steps, "ema_decay": sizes.ema_decay}
        return [
            f"training.seed={seed}",
            f"training.steps={sizes.steps}",
            f"training.max_cpu_seconds={seconds:g}",
            f"training.batch_size={batch_size or sizes.batch_size}",
            "training.num_threads=1",
            f"training.validate_every={sizes.steps}",
            "training.validation_batches=8",
            "training.checkpoint_every=500",
            *(f"training.optim.{name}={v:g}" for name, v in pace.items() if v is not None),
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


def action_metrics() -> dict[str, Read]:
    """Returns where training says how far its actions are off on scenes that it did not train on."""
    return {
        "action_tokens": Read(path="metrics.token_accuracy_within_2", is_bare=True),
        **{
            f"action_error/{name}": Read(path=f"metrics.action_l1/{name}", is_bare=True)
            for name in ("dx", "dy", "dz")
        },
    }


def retrieval_metrics() -> dict[str, Read]:
    """Returns where summaries have how well a tower and its text tower find each other."""
    n = "metrics.num_queries"
    return {
        "retrieval": Read(path="metrics.image_to_text_r1", n=n),
        "retrieval_of_pictures": Read(path="metrics.text_to_image_r1", n=n),
    }
