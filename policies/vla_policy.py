"""A trained vision-language-action model as a policy: observations in, chunks of actions in physical units out."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Self, cast

import numpy as np
import torch
from PIL import Image

from policies.config import PolicyConfig
from vla.checkpoints import native
from vla.control.guidance import guided_chunk
from vla.data.frames_cache import resized
from vla.data.stats import ActionStatistics, StateStatistics
from vla.errors import PolicyError
from vla.inference.engine import ActionEngine
from vla.models.action_config import ActionDecoding
from vla.nn.device import find_device
from vla.tokenizers.prompt_action import InstructionPrompts
from vla.types import ActionChunk, Embodiment, FloatArray, ImageArray, Observation


class VlaPolicy:
    """Predicts the whole chunk that the model was trained for at every call.

    How chunks are carried out is the caller's business (`vla.control.schedule`). A policy that decodes token by token
    continues from the actions that the observation says are committed, a flow is guided to; others ignore them.

    Attributes:
        embodiment: cameras, proprioception and actions that the model was trained with.
        image_size: side of the pictures that the model was trained with, pixels.
    """

    def __init__(
        self,
        engine: ActionEngine,
        prompt_encoder: InstructionPrompts,
        action_statistics: ActionStatistics,
        state_statistics: StateStatistics,
        embodiment: Embodiment,
        image_size: int,
        config: PolicyConfig | None = None,
    ) -> None:
        self.config = config or PolicyConfig()
        self.embodiment = embodiment
        self.action_spec = embodiment.action_spec
        self.camera_names = embodiment.camera_names
        self.image_size = image_size
        self.chunk_length = engine.model.config.chunk_length
        self._engine = engine
        self._action_statistics, self._state_statistics = action_statistics, state_statistics
        self._encode = functools.lru_cache(maxsize=256)(
            lambda instruction: tuple(torch.from_numpy(x) for x in prompt_encoder([instruction]))
        )
        engine.readout = self.config.readout
        engine.rest_bins = torch.from_numpy(action_statistics.rest_bins(self.action_spec))
        engine.temperature = self.config.temperature
        engine.flow_steps, engine.guide = self.config.flow_steps, guided_chunk
        self.reset(seed=0)

    @classmethod
    def from_checkpoint(cls, path: Path | str, config: PolicyConfig | None = None) -> Self:
        """Returns the policy stored in a checkpoint directory.

        Raises:
            CheckpointError: the directory is missing, truncated or holds something else.
            ConfigError: the device does not exist.
        """
        config = config or PolicyConfig(path=str(path))
        device = find_device(config.device)
        loaded = native.load(Path(path))
        contract, prompts = loaded.contract, loaded.prompt_encoder
        return cls(
            ActionEngine(model=loaded.model.to(device), fast=contract.fast, end_id=prompts.end_id),
            prompts,
            contract.action_statistics,
            contract.state_statistics,
            contract.embodiment,
            contract.image_size,
            config,
        )

    def reset(self, seed: int | None = None) -> None:
        """Keeps nothing of an episode; with a seed, sampling (temperature > 0) starts that seed's sequence of draws."""
        if seed is not None:
            device = next(self._engine.model.parameters()).device
            self._engine.generator = torch.Generator(device).manual_seed(seed)

    def act(self, observation: Observation) -> ActionChunk:
        """Returns the chunk for one observation.

        Raises:
            PolicyError: a camera is missing, or a picture or the proprioception has another shape than in training.
        """
        return self.act_batch([observation])[0]

    def act_batch(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        """Returns one chunk per observation; equally many committed actions share a forward pass. Errors as `act`."""
        chunks: dict[int, ActionChunk] = {}
        for count in sorted({self._num_committed(observation) for observation in observations}):
            rows = [
                i for i, known in enumerate(observations) if self._num_committed(known) == count
            ]
            answers = self._act_together([observations[row] for row in rows], count)
            chunks.update(zip(rows, answers, strict=True))
        return [chunks[row] for row in range(len(observations))]

    def _act_together(
        self, observations: Sequence[Observation], num_committed: int
    ) -> list[ActionChunk]:
        images = np.stack([self._pictures(observation) for observation in observations])
        states = np.stack([self._state(observation) for observation in observations])
        prompts = [self._encode(observation.instruction) for observation in observations]
        normalized, probabilities = self._engine.chunk(
            torch.from_numpy(images),
            torch.cat([ids for ids, _ in prompts]),
            torch.cat([valid for _, valid in prompts]),
            torch.from_numpy(states) if self._engine.model.config.state_width else None,
            self._committed(observations, num_committed) if num_committed else None,
        )
        actions = self._physical(normalized.cpu().numpy())
        chosen = None if probabilities is None else probabilities.cpu().numpy()
        return [
            ActionChunk(
                actions=actions[row],
                captured_at_s=observation.captured_at_s,
                probabilities=None if chosen is None else chosen[row],
            )
            for row, observation in enumerate(observations)
        ]

    def _num_committed(self, observation: Observation) -> int:
        """Returns how many committed actions the model is to continue from; one slot at least stays open."""
        is_told = self._engine.model.config.decoding in (
            ActionDecoding.AUTOREGRESSIVE,
            ActionDecoding.FLOW,
        )
        if not is_told or observation.committed is None:
            return 0
        return min(len(observation.committed), self.chunk_length - 1)

    def _committed(self, observations: Sequence[Observation], count: int) -> torch.Tensor:
        """Returns (observations, count, width) the first `count` committed actions, normalised."""
        actions = np.stack([cast(FloatArray, known.committed)[:count] for known in observations])
        return torch.from_numpy(self._action_statistics.normalize(actions))

    def _physical(self, normalized: FloatArray) -> FloatArray:
        """Returns actions (..., width) in the units of the ActionSpec and within its limits."""
        return self.action_spec.clip(self._action_statistics.unnormalize(normalized))

    def _pictures(self, observation: Observation) -> ImageArray:
        """Returns (views, 3, image_size, image_size) in the order of training."""
        missing = [name for name in self.camera_names if name not in observation.images]
        if missing:
            raise PolicyError(
                f"the observation has no camera {', '.join(map(repr, missing))}; it has "
                f"{', '.join(sorted(observation.images)) or 'none'}; the policy was trained with "
                f"{', '.join(self.camera_names)}"
            )
        views = [self._picture(name, observation.images[name]) for name in self.camera_names]
        return np.ascontiguousarray(np.stack(views).transpose(0, 3, 1, 2))

    def _picture(self, name: str, image: ImageArray) -> ImageArray:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise PolicyError(
                f"camera {name!r} gave {image.dtype} of shape {image.shape}; expected (height, width, 3) uint8 RGB"
            )
        size = (self.image_size, self.image_size)
        if image.shape[:2] == size:
            return image
        # As datasets of another size are brought to the model's: bicubic with antialiasing, stretched to a square.
        return resized(Image.fromarray(image), size)

    def _state(self, observation: Observation) -> FloatArray:
        width = self.embodiment.state_spec.width
        if observation.state.shape != (width,):
            raise PolicyError(
                f"the proprioception has shape {observation.state.shape}; the policy was trained with {width} numbers: "
                f"{', '.join(self.embodiment.state_spec.names)}"
            )
        return self._state_statistics.normalize(observation.state)
