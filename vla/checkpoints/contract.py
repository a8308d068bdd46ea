"""What must stay with a model's weights so that it can act: body, cameras, units, statistics, prompt, rate."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

from vla.data.stats import ActionStatistics, StateStatistics
from vla.tokenizers.fast import FastTokenizer
from vla.tokenizers.prompt import PromptTemplate
from vla.types import ActionSpec, Embodiment, StateSpec


@dataclass(frozen=True, kw_only=True)
class Contract:
    """Between a policy and the robot it was trained for.

    Attributes:
        image_size: side of the square pictures in pixels.
        max_text_tokens: length of a prompt row.
        fast: codes action chunks, for a model that decodes with FAST.
        training: how the weights came about, for people: steps, samples, datasets, metrics.
    """

    embodiment: Embodiment
    image_size: int
    action_statistics: ActionStatistics
    state_statistics: StateStatistics
    prompt: PromptTemplate
    max_text_tokens: int
    fast: FastTokenizer | None = field(default=None, compare=False)
    training: dict[str, Any] = field(default_factory=dict)

    @property
    def rate_hz(self) -> float:
        """Actions a second."""
        return self.embodiment.action_spec.rate_hz

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        body = self.embodiment
        return {
            "embodiment": {
                "name": body.name,
                "camera_names": list(body.camera_names),
                "state_spec": {
                    "names": list(body.state_spec.names),
                    "units": list(body.state_spec.units),
                },
                "action_spec": body.action_spec.to_dict(),
            },
            "image_size": self.image_size,
            "rate_hz": self.rate_hz,
            "prompt": self.prompt.name,
            "max_text_tokens": self.max_text_tokens,
            "action_statistics": self.action_statistics.to_dict(),
            "state_statistics": self.state_statistics.to_dict(),
            "training": self.training,
            **({} if self.fast is None else {"fast": self.fast.to_dict()}),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Returns what `to_dict` wrote.

        Raises:
            KeyError, TypeError, ValueError: something is missing or unknown.
            CheckpointError: the FAST tokenizer is damaged.
        """
        given = dict(values)
        body = dict(given.pop("embodiment"))
        action_spec = ActionSpec(**body.pop("action_spec"))
        embodiment = Embodiment(
            name=body.pop("name"),
            camera_names=tuple(body.pop("camera_names")),
            state_spec=StateSpec(**body.pop("state_spec")),
            action_spec=action_spec,
        )
        rate_hz, fast = given.pop("rate_hz"), given.pop("fast", None)
        if body or rate_hz != action_spec.rate_hz:
            raise ValueError(
                f"the embodiment has unknown entries {sorted(body)} or two rates, {rate_hz} Hz among them"
            )
        return cls(
            embodiment=embodiment,
            fast=None if fast is None else FastTokenizer.from_dict(fast),
            prompt=PromptTemplate[given.pop("prompt")],
            action_statistics=ActionStatistics.from_dict(given.pop("action_statistics")),
            state_statistics=StateStatistics.from_dict(given.pop("state_statistics")),
            **given,
        )
