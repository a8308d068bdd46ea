"""`vla bench NAME`: what things cost on this machine, under outputs/bench/NAME/."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

from envs.config import EnvConfig
from policies.config import PolicyConfig

INSTRUCTION = "pick up the red cube and put it in the bowl"


class Benchmark(Enum):
    """What can be measured."""

    POLICY = "policy"  # operations, training and acting speed, memory of a checkpoint
    ENV = "env"  # simulated steps and resets
    CONTROL = "control"  # deadlines of the control loop while a policy computes beside it


@dataclass(kw_only=True)
class BenchConfig:
    """One measurement; times are processor time on one thread, those of the control loop wall clock."""

    name: Benchmark = Benchmark.POLICY  # policy, env or control
    checkpoint: str = "tiny"  # a checkpoint directory or a shipped name (policy)
    batch_size: int = 64  # samples of a training step (policy)
    rounds: int = 5  # repetitions, of which the best counts (policy)
    env: EnvConfig = field(default_factory=EnvConfig)  # what is simulated (env)
    steps: int = 300  # environment steps, expert at work (env)
    policy: PolicyConfig = field(default_factory=PolicyConfig)  # who computes beside it (control)
    seconds: float = 60.0  # of each drive (control)
    compare: bool = True  # drive a second time, as an ordinary process without priority (control)
    rate: float = 100.0  # servo ticks per second, 50 to 500 (control)


def run(cfg: BenchConfig, directory: Path) -> dict[str, Any]:
    """Measures, prints and returns the figures."""
    match cfg.name:
        case Benchmark.POLICY:
            figures = _policy(cfg)
        case Benchmark.ENV:
            figures = _env(cfg)
        case Benchmark.CONTROL:
            return _control(cfg, directory)
    for name, value in figures.items():
        print(f"{name:32} {_shown(value)}")
    return figures


def _policy(cfg: BenchConfig) -> dict[str, Any]:
    import torch

    from vla.bench.speed import measure_speed
    from vla.checkpoints import native
    from vla.cli.build import find_checkpoint

    loaded = native.load(find_checkpoint(cfg.checkpoint))
    contract = loaded.contract
    return asdict(
        measure_speed(
            loaded.model,
            torch.tensor(loaded.prompt_encoder.ids(INSTRUCTION)),
            (len(contract.embodiment.camera_names), contract.image_size),
            batch_size=cfg.batch_size,
            rounds=cfg.rounds,
            fast=contract.fast,
            end_id=loaded.prompt_encoder.end_id,
        )
    )


def _env(cfg: BenchConfig) -> dict[str, Any]:
    from envs.experts import make_expert
    from vla.bench.environment import measure_environment
    from vla.cli.build import build_env

    env = build_env(cfg.env)
    try:
        return asdict(measure_environment(env, make_expert(env), steps=cfg.steps))
    finally:
        env.close()


def _control(cfg: BenchConfig, directory: Path) -> dict[str, Any]:
    """Drives with and without real-time priority, and prints the report with the channel's own latency."""
    from vla.bench.control import measure_channel, phase_facts, table
    from vla.cli.deploy.command import DeployConfig
    from vla.cli.deploy.processes import drive
    from vla.cli.deploy.report import summarize
    from vla.control.config import ControlConfig
    from vla.control.realtime import RealtimeConfig

    settings = DeployConfig(env=cfg.env, policy=cfg.policy, seconds=cfg.seconds, save_video=False)
    phases: dict[str, dict[str, Any]] = {}
    for name in ("realtime", "ordinary") if cfg.compare else ("realtime",):
        folder = directory / name
        folder.mkdir(parents=True, exist_ok=True)
        control = ControlConfig(
            servo_hz=cfg.rate, realtime=RealtimeConfig(enabled=name == "realtime")
        )
        phase = replace(settings, control=control)
        ended = drive(phase, folder)
        if ended.is_interrupted:
            raise KeyboardInterrupt
        phases[name] = phase_facts(summarize(phase, ended, folder))
    messages = min(1000, round(100 * cfg.seconds))
    channels = [measure_channel(size, messages) for size in (256, 4096, 32768)]
    print(table(phases, channels))
    return {"phases": phases, "channels": [asdict(report) for report in channels]}


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(item)}" for key, item in value.items())
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"
