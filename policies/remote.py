"""A policy that lives on another computer: this side needs neither torch nor a GPU."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from policies.config import PolicyConfig
from vla.errors import ActionError, ConfigError, PolicyError
from vla.serving.access import read_token
from vla.serving.client import PolicyClient
from vla.types import ActionChunk, ActionSpec, FloatArray, Observation


class RemotePolicy:
    """Asks a policy server for every chunk, and waits for it no longer than the deadline.

    A connection that is lost is made again with growing pauses, within the deadline of the question; the observation
    is sent again then. The server keeps no memory of an episode, so `reset` sends nothing.

    Attributes:
        metadata: what the server says of its policy.
        image_size: side of the pictures the policy was trained with, pixels; absent where any will do.
    """

    def __init__(self, client: PolicyClient, metadata: dict[str, Any], deadline_s: float) -> None:
        """Takes a client that is connected; raises PolicyError when the server does not say what its actions mean."""
        self._client, self._deadline_s = client, deadline_s
        self.metadata = metadata
        try:
            self.action_spec = ActionSpec(**metadata["action_spec"])
            self.camera_names = tuple(str(name) for name in metadata["cameras"])
            image_size: int | None = metadata["image_size"]
        except (KeyError, TypeError, ActionError) as error:
            raise PolicyError(
                "the server does not say what its actions mean (action_spec, cameras and image_size in its metadata), "
                "so no robot can be driven by it; use `vla serve`"
            ) from error
        if image_size is not None:
            self.image_size = image_size

    @classmethod
    def from_config(cls, config: PolicyConfig) -> Self:
        """Returns a policy whose server has answered.

        Raises:
            ConfigError: there is no address, or the token's file cannot be read.
            PolicyError: nobody answers, or the token is refused.
        """
        if not config.url:
            raise ConfigError("policy=remote needs the server's address: policy.url=ws://HOST:PORT")
        client = PolicyClient(config.url, read_token(config.token_file, config.token_env))
        return cls(client, client.connect(config.connect_timeout_s), config.deadline_s)

    def reset(self, seed: int | None = None) -> None:
        """Does nothing: the server answers every observation by itself."""

    def act(self, observation: Observation) -> ActionChunk:
        """Returns the server's chunk.

        Raises:
            PolicyError: no answer in time, the server refuses the observation, or its actions are out of bounds.
        """
        answer = self._client.ask(
            {
                "images": {name: observation.images[name] for name in self._seen(observation)},
                "state": observation.state,
                "instruction": observation.instruction,
                "captured_at_s": observation.captured_at_s,
            },
            self._deadline_s,
        )
        actions, probabilities = self._actions(answer), answer.get("probabilities")
        has_bins = isinstance(probabilities, np.ndarray) and probabilities.shape == actions.shape
        return ActionChunk(
            actions=actions,
            captured_at_s=observation.captured_at_s,
            probabilities=probabilities if has_bins else None,
        )

    def close(self) -> None:
        """Ends the connection."""
        self._client.close()

    def _seen(self, observation: Observation) -> tuple[str, ...]:
        missing = [name for name in self.camera_names if name not in observation.images]
        if missing:
            raise PolicyError(
                f"the observation has no camera {', '.join(missing)}; the server's policy sees "
                f"{', '.join(self.camera_names)}"
            )
        return self.camera_names

    def _actions(self, answer: dict[str, Any]) -> FloatArray:
        actions = answer.get("actions")
        if not isinstance(actions, np.ndarray) or actions.ndim != 2 or not len(actions):
            raise PolicyError("the server's answer has no actions (steps, width)")
        try:
            return self.action_spec.check(actions)
        except ActionError as error:
            raise PolicyError(f"the server's answer is refused: {error}") from error
