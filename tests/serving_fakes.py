"""A policy whose answers say which observation they belong to, and a server with it in a process of its own.

python tests/serving_fakes.py key=value ...    settings of ServerConfig; prints both URLs once it listens
"""

from __future__ import annotations

import sys
import time
import zlib

import numpy as np

from vla.types import END_EFFECTOR_DELTA_7D, ActionChunk, Observation

STEPS = 3


class EchoPolicy:
    """Answers with numbers made of everything in the observation; some instructions make it misbehave."""

    action_spec = END_EFFECTOR_DELTA_7D
    camera_names = ("front", "wrist")

    def reset(self, seed: int | None = None) -> None:
        pass

    def act(self, observation: Observation) -> ActionChunk:
        if observation.instruction == "crash":
            raise RuntimeError("as policies do")
        if observation.instruction.startswith("sleep "):
            time.sleep(float(observation.instruction.split()[1]))
        if observation.instruction == "nan":
            return ActionChunk(actions=np.full((1, 7), np.nan, np.float32))
        return ActionChunk(
            actions=right_answer(observation), captured_at_s=observation.captured_at_s
        )


def right_answer(observation: Observation) -> np.ndarray:
    """Returns (STEPS, 7) actions within the limits that change with every byte of the observation."""
    parts = [observation.images[name].tobytes() for name in EchoPolicy.camera_names]
    parts += [observation.state.tobytes(), observation.instruction.encode()]
    seed = zlib.crc32(b"|".join(parts))
    spec = EchoPolicy.action_spec
    return np.random.default_rng(seed).uniform(spec.low, spec.high, (STEPS, 7)).astype(np.float32)


def main(words: list[str]) -> None:
    from vla.cli.convert import from_plain
    from vla.serving.card import PolicyCard
    from vla.serving.config import ServerConfig
    from vla.serving.server import PolicyServer

    values: dict = {"port": 0, "rest_port": 0}
    for word in words:
        key, value = word.split("=", 1)
        node = values
        *parents, last = key.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = float(value) if value.replace(".", "").isdigit() and key != "host" else value
    policy = EchoPolicy()
    server = PolicyServer(policy, PolicyCard.of(policy, "echo"), from_plain(ServerConfig, values))
    print(server.run(lambda at: print(at.websocket, at.rest, flush=True)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
