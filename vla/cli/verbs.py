"""The verbs of the command line: what each does, where its code is, and how it is used."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Verb:
    """One word of the command line."""

    module: str  # imported only when the verb is used; offers run(cfg, directory) -> summary
    config_name: str  # configs/<config_name>.yaml
    summary: str
    examples: tuple[str, ...]
    positional: str | None = (
        None  # the setting that a bare word stands for; its value also names the output folder
    )
    resumes: bool = False  # resume=true goes on in the folder of the last run


VERBS: dict[str, Verb] = {
    "collect": Verb(
        module="vla.cli.collect",
        config_name="collect",
        summary="record demonstrations of a scripted expert as a LeRobot dataset",
        examples=("vla collect env=pick_cube episodes=200 root=datasets/pick_cube",),
    ),
    "train": Verb(
        module="vla.cli.train",
        config_name="train",
        summary="train or fine-tune a policy on a dataset",
        examples=(
            "vla train data.roots=[datasets/pick_cube] training.steps=2000",
            "vla train init_from=tiny data.roots=[datasets/push]",
            "vla train resume=true",
        ),
        resumes=True,
    ),
    "eval": Verb(
        module="vla.cli.evaluate",
        config_name="eval",
        summary="measure a policy's success rate in simulation on held-out seeds",
        examples=(
            "vla eval policy=tiny env=pick_cube episodes=200 seed=1000000",
            "vla eval policy=outputs/train/latest env=stack swap_instruction=true",
        ),
    ),
    "deploy": Verb(
        module="vla.cli.deploy",
        config_name="deploy",
        summary="drive an arm in real time, simulated or real",
        examples=("vla deploy robot=sim policy=tiny seconds=60",),
    ),
    "describe": Verb(
        module="vla.cli.describe",
        config_name="describe",
        summary="show what a checkpoint is made of and expects",
        examples=("vla describe checkpoint=tiny",),
    ),
    "bench": Verb(
        module="vla.cli.bench",
        config_name="bench",
        summary="measure what a policy or the simulation costs on this machine",
        examples=("vla bench policy checkpoint=tiny", "vla bench env env.image_size=96"),
        positional="name",
    ),
    "demo": Verb(
        module="vla.cli.demo",
        config_name="demo",
        summary="collect, fine-tune, evaluate and deploy in one go, with a report",
        examples=("vla demo",),
    ),
}
