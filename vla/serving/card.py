"""What a client must know of a policy before the first action: cameras, sizes, names, units, frame, limits, rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from vla.types import TABLETOP, ActionSpec, Embodiment, Policy, StateSpec

PROTOCOL_VERSION = 1


@runtime_checkable
class TrainedPolicy(Protocol):
    """A policy that knows which robot it was trained for, and at which picture size."""

    embodiment: Embodiment
    image_size: int


@dataclass(frozen=True, kw_only=True)
class PolicyCard:
    """A policy as others see it.

    Attributes:
        name: of the checkpoint or the kind of policy, for people.
        image_size: side of the square pictures that the policy was trained with, pixels; None = any.
        unnorm_keys: names that OpenVLA's clients may give for the statistics actions are scaled with.
    """

    name: str
    action_spec: ActionSpec
    camera_names: tuple[str, ...]
    state_spec: StateSpec
    image_size: int | None = None
    unnorm_keys: tuple[str, ...] = ()

    @classmethod
    def of(cls, policy: Policy, name: str) -> PolicyCard:
        """Returns the card of a policy; one that does not say for which robot it is, is taken to be the tabletop's."""
        is_trained = isinstance(policy, TrainedPolicy)
        body = policy.embodiment if is_trained else TABLETOP
        return cls(
            name=name,
            action_spec=policy.action_spec,
            camera_names=tuple(policy.camera_names),
            state_spec=body.state_spec,
            image_size=policy.image_size if is_trained else None,
            unnorm_keys=(body.name,),
        )

    def metadata(self) -> dict[str, Any]:
        """Returns plain values, the first message of a connection."""
        spec = self.action_spec
        gripper = [
            unit for name, unit in zip(spec.names, spec.units, strict=True) if name == "gripper"
        ]
        return {
            "protocol": f"openpi websocket, vla {PROTOCOL_VERSION}",
            "policy": self.name,
            "action_spec": spec.to_dict(),
            "rate_hz": spec.rate_hz,
            "frame": spec.frame,
            "gripper": gripper[0] if gripper else "none",
            "cameras": list(self.camera_names),
            "image_size": self.image_size,
            "state_spec": {"names": list(self.state_spec.names), "units": list(self.state_spec.units)},
            "unnorm_keys": list(self.unnorm_keys),
        }  # fmt: skip
