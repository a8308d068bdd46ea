"""Which policy acts, and how its chunks are carried out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from vla.errors import ConfigError
from vla.inference.readout import Readout


class PolicyKind(Enum):
    """Who chooses the actions."""

    CHECKPOINT = "checkpoint"
    EXPERT = "expert"
    RANDOM = "random"
    HOLD = "hold"
    REMOTE = "remote"


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
    temperature: float = 0.0  # of the sampling over action bins; 0 = no sampling
    # what temperature 0 takes of a chunk that is decoded at once: the likeliest bin, or what most of the probability
    # agrees on (median, cautious), which is better where actions are carried out late and worse where words are new
    readout: Readout = Readout.MODE
    flow_steps: int = 10  # from noise to actions, of policies with a flow head
    device: str = "auto"  # auto, cpu, cuda or cuda:N; auto = cuda when there is one
    url: str = ""  # ws://HOST:PORT or wss://HOST:PORT of a `vla serve` (kind=remote)
    token_env: str = "VLA_SERVE_TOKEN"  # environment variable with the server's token (kind=remote)
    token_file: str = ""  # file with the token; goes before the environment variable (kind=remote)
    deadline_s: float = 2.0  # longest wait for an answer, reconnecting included (kind=remote)
    connect_timeout_s: float = 10.0  # longest wait for the server at the start (kind=remote)

    def __post_init__(self) -> None:
        if self.execute_steps is not None and self.execute_steps < 0:
            raise ConfigError(
                f"policy.execute_steps must be 0 (whole chunk) or more; got {self.execute_steps}"
            )
        if self.flow_steps < 1:
            raise ConfigError(f"policy.flow_steps must be at least 1; got {self.flow_steps}")
        if self.temperature < 0:
            raise ConfigError(
                f"policy.temperature must be 0 (no sampling) or more; got {self.temperature}"
            )
        for name in ("deadline_s", "connect_timeout_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"policy.{name} must be positive; got {getattr(self, name)}")
        if self.url and not self.url.startswith(("ws://", "wss://")):
            raise ConfigError(f"policy.url is {self.url!r}; expected ws://HOST:PORT or wss://...")
