"""An openpi-client program, run by an interpreter that has openpi-client and not this package.

    python openpi_program.py URL TOKEN EPISODES    the simulator is at the other end of stdin and stdout

It is what openpi's examples are: their Runtime, PolicyAgent, ActionChunkBroker and WebsocketClientPolicy, unchanged,
around an Environment of one's own. Here that environment is a pipe. What it measured goes to stderr as JSON.
"""

import io
import json
import struct
import sys
import time

import numpy as np
from openpi_client.action_chunk_broker import ActionChunkBroker
from openpi_client.base_policy import BasePolicy
from openpi_client.runtime.agents.policy_agent import PolicyAgent
from openpi_client.runtime.environment import Environment
from openpi_client.runtime.runtime import Runtime
from openpi_client.websocket_client_policy import WebsocketClientPolicy
from websockets.exceptions import InvalidStatus


def send(stream, **arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    stream.write(struct.pack("<Q", buffer.tell()) + buffer.getvalue())
    stream.flush()


def receive(stream):
    (length,) = struct.unpack("<Q", stream.read(8))
    return dict(np.load(io.BytesIO(stream.read(length)), allow_pickle=False))


class PipedEnvironment(Environment):
    def reset(self):
        send(sys.stdout.buffer, reset=True)
        self._state = receive(sys.stdin.buffer)

    def is_episode_complete(self):
        return bool(self._state["done"])

    def get_observation(self):
        return {
            "observation/image": self._state["front"],
            "observation/wrist_image": self._state["wrist"],
            "observation/state": self._state["state"],
            "prompt": str(self._state["prompt"]),
        }

    def apply_action(self, action):
        send(sys.stdout.buffer, action=action["actions"])
        self._state = receive(sys.stdin.buffer)


class TimedPolicy(BasePolicy):
    def __init__(self, policy):
        self._policy = policy
        self.round_trips_ms, self.infer_ms, self.last = [], [], {}

    def infer(self, obs):
        began = time.perf_counter()
        self.last = self._policy.infer(obs)
        self.round_trips_ms.append(1e3 * (time.perf_counter() - began))
        self.infer_ms.append(self.last["server_timing"]["infer_ms"])
        return self.last

    def reset(self):
        self._policy.reset()


def main(url, token, episodes):
    try:
        WebsocketClientPolicy(url, api_key=token + " but wrong")
        refusal = "none"
    except InvalidStatus as error:
        refusal = f"{type(error).__name__}: {error}"
    client = WebsocketClientPolicy(url, api_key=token)
    timed = TimedPolicy(client)
    agent = PolicyAgent(ActionChunkBroker(timed, action_horizon=1))
    Runtime(PipedEnvironment(), agent, [], num_episodes=int(episodes), max_episode_steps=200).run()
    send(sys.stdout.buffer, end=True)
    try:
        client.infer({"prompt": "go"})
        complaint = "none"
    except RuntimeError as error:
        complaint = str(error)
    found = {
        "numpy": np.__version__,
        "cameras": client.get_server_metadata()["cameras"],
        "refusal": refusal,
        "complaint": complaint,
        "chunk": list(timed.last["actions"].shape),
        "num_calls": len(timed.round_trips_ms),
        "round_trip_ms": {
            f"p{q}": float(np.percentile(timed.round_trips_ms[1:], q)) for q in (50, 99)
        },
        "infer_ms_p50": float(np.percentile(timed.infer_ms[1:], 50)),
    }
    print(json.dumps(found), file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
