"""Which policy acts, and how its chunks are carried out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from vla.errors import ConfigError


class PolicyKind(Enum):
    """Who chooses the actions."""

    CHECKPOINT = "checkpoint"
    EXPERT = "expert"
    RANDOM = "random"
    HOLD = "hold"


class Ensemble(Enum):
    """How chunks that overlap in time become one action."""

    NONE = "none"  # the newest chunk counts
    ACT = "act"  # exponential weights, oldest heaviest


@dataclass(kw_only=True)
class PolicyConfig:
    """Everything `build_policy` needs."""

    kind: PolicyKind = PolicyKind.CHECKPOINT  # who chooses the actions
    path: str = (
        ""  # checkpoint directory, or the name of one shipped in the package (kind=checkpoint)
    )
    # actions carried out of each chunk before the next counts; 0 = the whole chunk; null = 1 in an evaluation, which
    # waits for the policy, and whatever is due until a newer chunk arrives in a deployment, which does not
    execute_steps: int | None = None
    temperature: float = 0.0  # of the sampling over action bins; 0 = the most probable bin
    ensemble: Ensemble = (
        Ensemble.NONE
    )  # act: predict every step and average the chunks that overlap
    ensemble_decay: float = 0.01  # ACT's m: weight exp(-m i), i = 0 for the oldest prediction
    device: str = "auto"  # auto, cpu, cuda or cuda:N; auto = cuda when there is one

    def __post_init__(self) -> None:
        if self.execute_steps is not None and self.execute_steps < 0:
            raise ConfigError(
                f"policy.execute_steps must be 0 (whole chunk) or more; got {self.execute_steps}"
            )
        if self.temperature < 0:
            raise ConfigError(
                f"policy.temperature must be 0 (most probable bin) or more; got {self.temperature}"
            )
        if self.ensemble_decay < 0:
            raise ConfigError(f"policy.ensemble_decay must be 0 or more; got {self.ensemble_decay}")
        if self.ensemble is Ensemble.ACT and (self.execute_steps or 0) > 1:
            raise ConfigError(
                "policy.ensemble=act predicts at every step, so policy.execute_steps must be 0 or 1; "
                f"got {self.execute_steps}"
            )
