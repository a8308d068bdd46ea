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
    flags: tuple[str, ...] = ()  # settings that `--name` turns on
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
    "pretrain": Verb(
        module="vla.cli.pretrain",
        config_name="pretrain",
        summary="train a tower, a decoder, a mask codec or a model that answers on labelled scenes",
        examples=(
            "vla pretrain siglip scenes=[datasets/scenes]",
            "vla pretrain dinov2 scenes=[datasets/scenes] training.steps=2000",
            "vla pretrain siglip resume=true",
        ),
        positional="stage",
        resumes=True,
    ),
    "ask": Verb(
        module="vla.cli.ask",
        config_name="ask",
        summary="ask a model about a picture: words, boxes and masks",
        examples=(
            'vla ask image=table.png prompt="detect the red cube"',
            'vla ask image=table.png prompt="answer en how many balls are there?"',
        ),
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
    "examine": Verb(
        module="vla.cli.examine",
        config_name="examine",
        summary="measure how well a model answers, detects and segments on held-out scenes",
        examples=(
            "vla examine checkpoint=outputs/pretrain/multimodal/latest scenes=[datasets/scenes]",
        ),
    ),
    "compare": Verb(
        module="vla.cli.compare.command",
        config_name="compare",
        summary="measure the backbone families against each other, with a report",
        examples=("vla compare --quick", "vla compare only=[generations] seeds=[0]"),
        flags=("quick",),
    ),
    "deploy": Verb(
        module="vla.cli.deploy.command",
        config_name="deploy",
        summary="drive an arm in real time, simulated or real",
        examples=(
            "vla deploy robot=sim policy=tiny seconds=60",
            "vla deploy robot=sim policy=tiny view=true record=datasets/driven",
            "vla deploy robot=so101 port=/dev/ttyACM0 policy=outputs/train/latest --dry-run",
        ),
        flags=("dry_run",),
    ),
    "doctor": Verb(
        module="vla.cli.doctor.command",
        config_name="doctor",
        summary="check a robot and a policy against each other before anything moves",
        examples=(
            "vla doctor robot=sim policy=tiny",
            "vla doctor robot=so101 port=/dev/ttyACM0 policy=outputs/train/latest",
        ),
    ),
    "serve": Verb(
        module="vla.cli.serve",
        config_name="serve",
        summary="answer openpi and OpenVLA clients with a policy, over the network",
        examples=(
            "vla serve policy=tiny port=8000",
            "vla serve policy=outputs/train/latest host=0.0.0.0 token_file=token.txt",
        ),
    ),
    "twin": Verb(
        module="vla.cli.twin",
        config_name="twin",
        summary="open a port with a simulated arm behind it that real drivers can move",
        examples=(
            "vla twin so101 link=outputs/so101",
            "vla twin so101 twin.faults.corrupt_every=50 twin.faults.dies_at_s=60",
        ),
        positional="name",
    ),
    "describe": Verb(
        module="vla.cli.describe.command",
        config_name="describe",
        summary="show what a checkpoint or a backbone is made of, expects and costs",
        examples=(
            "vla describe checkpoint=tiny",
            "vla describe backbone=qwen2_vl_2b",
            "vla describe --trace",
        ),
        flags=("trace",),
    ),
    "bench": Verb(
        module="vla.cli.bench",
        config_name="bench",
        summary="measure what a policy, the simulation or the control loop costs on this machine",
        examples=(
            "vla bench policy checkpoint=tiny",
            "vla bench env env.image_size=96",
            "vla bench control seconds=600 rate=100",
        ),
        positional="name",
    ),
    "demo": Verb(
        module="vla.cli.demo",
        config_name="demo",
        summary="collect, fine-tune, evaluate and deploy in one go, with a report",
        examples=("vla demo",),
    ),
}
