"""What came of one episode, and the reasons for which one fails."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any


class Failure(Enum):
    """Why an episode did not succeed. An EXCEPTION says nothing about the policy and is never scored."""

    TIMEOUT = "timeout"
    DROPPED = "dropped"
    WRONG_OBJECT = "wrong_object"
    SAFETY_STOP = "safety_stop"  # a command that no robot could be sent: not finite
    EXCEPTION = "exception"


@dataclass(frozen=True, kw_only=True)
class Episode:
    """What came of one seed.

    Attributes:
        failure: "" when it succeeded, else a value of Failure.
        handled: the object that was picked or moved in the end, "" when there was none or the task does not say.
        steps: actions executed.
        clipped_steps: actions that had to be brought within the limits of the ActionSpec.
        confidence: mean probability of the executed bins, None for a policy without bins.
        error: the exception's last line, "" otherwise.
        traceback: the exception's traceback, "" otherwise.
        policy_ms: mean time of one `act`, of this machine's clock; not part of equality.
    """

    seed: int
    task: str = ""
    instruction: str = ""
    target: str = ""
    is_success: bool = False
    failure: str = ""
    handled: str = ""
    steps: int = 0
    clipped_steps: int = 0
    confidence: float | None = None
    error: str = ""
    traceback: str = ""
    policy_ms: float = field(default=0.0, compare=False)

    @property
    def is_scored(self) -> bool:
        """Whether the outcome says something about the policy."""
        return self.failure != Failure.EXCEPTION.value

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values; the traceback stays out."""
        return {key: value for key, value in asdict(self).items() if key != "traceback"}
