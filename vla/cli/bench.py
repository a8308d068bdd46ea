"""`vla bench NAME`: what things cost on this machine, under outputs/bench/NAME/."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from envs.config import EnvConfig


class Benchmark(Enum):
    """What can be measured."""

    POLICY = "policy"  # operations, training and acting speed, memory of a checkpoint
    ENV = "env"  # simulated steps and resets


@dataclass(kw_only=True)
class BenchConfig:
    """One measurement; times are processor time on one thread."""

    name: Benchmark = Benchmark.POLICY  # policy or env
    checkpoint: str = "tiny"  # a checkpoint directory or a shipped name (policy)
    batch_size: int = 64  # samples of a training step (policy)
    rounds: int = 5  # repetitions, of which the best counts (policy)
    env: EnvConfig = field(default_factory=EnvConfig)  # what is simulated (env)
    steps: int = 300  # environment steps, expert at work (env)


def run(cfg: BenchConfig, directory: Path) -> dict[str, Any]:
    """Measures, prints and returns the figures."""
    figures = _policy(cfg) if cfg.name is Benchmark.POLICY else _env(cfg)
    for name, value in figures.items():
        print(f"{name:32} {_shown(value)}")
    return figures


def _policy(cfg: BenchConfig) -> dict[str, Any]:
    from vla.bench.speed import measure_speed
    from vla.checkpoints import native
    from vla.cli.build import find_checkpoint

    loaded = native.load(find_checkpoint(cfg.checkpoint))
    return asdict(measure_speed(loaded.model, batch_size=cfg.batch_size, rounds=cfg.rounds))


def _env(cfg: BenchConfig) -> dict[str, Any]:
    from envs.experts import make_expert
    from vla.bench.environment import measure_environment
    from vla.cli.build import build_env

    env = build_env(cfg.env)
    try:
        return asdict(measure_environment(env, make_expert(env), steps=cfg.steps))
    finally:
        env.close()


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(item)}" for key, item in value.items())
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"
