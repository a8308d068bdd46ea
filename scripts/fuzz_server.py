"""Attacks a policy server of its own while honest clients beside it check every answer, and prints the figures.

    python scripts/fuzz_server.py seconds=600 policy=tiny honest=4 attackers=3 seed=0

Exit status 1 when the server died, an honest client got a wrong answer or none, nonsense was answered with actions,
or memory grew by more than `growth_mb` between the first and the last fifth of the time.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from fuzz_attacks import ATTACKS, LIMITS, RARE, TOKEN, Scene, Target
from websockets.exceptions import WebSocketException

from vla.cli.build import build_policy
from vla.cli.config import compose
from vla.cli.serve import ServeConfig
from vla.serving import numpy_json, wire
from vla.types import Observation

REPOSITORY = Path(__file__).resolve().parents[1]
NUM_SCENES = 8  # different observations, whose answers are known beforehand


@dataclass
class Settings:
    """What the command line may set."""

    seconds: float = 600.0
    policy: str = "tiny"
    honest: int = 4  # clients that check their answers; every other one asks over REST
    attackers: int = 3
    seed: int = 0
    growth_mb: float = 30.0

    @classmethod
    def parse(cls, words: list[str]) -> Settings:
        given = dict(word.split("=", 1) for word in words)
        unknown = set(given) - set(cls.__annotations__)
        if unknown:
            sys.exit(
                f"unknown {', '.join(sorted(unknown))}; there are {', '.join(cls.__annotations__)}"
            )
        return cls(**{name: type(getattr(cls, name))(value) for name, value in given.items()})


@dataclass
class Figures:
    """What happened; every thread adds to it."""

    attacks: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    round_trips_ms: list[float] = field(default_factory=list)


# ---- honest clients ----------------------------------------------------------------------------------------------


def ask_websocket(target: Target, stop: threading.Event, figures: Figures, seed: int) -> None:
    rng = random.Random(seed)
    with target.connect() as connection:
        wire.unpack(_bytes(connection.recv(timeout=60)))
        while not stop.is_set():
            scene, stamp, began = rng.choice(target.scenes), rng.random(), time.perf_counter()
            connection.send(wire.pack({**scene.values, "captured_at_s": stamp}))
            answer = wire.unpack(_bytes(connection.recv(timeout=60)))
            figures.round_trips_ms.append(1e3 * (time.perf_counter() - began))
            figures.answers["websocket"] += 1
            if answer["captured_at_s"] != stamp or not _same(answer["actions"], scene.actions):
                figures.problems.append(f"wrong answer over websocket: {answer}")
            time.sleep(0.02)


def ask_rest(target: Target, stop: threading.Event, figures: Figures, seed: int) -> None:
    rng = random.Random(seed)
    connection = http.client.HTTPConnection(target.host, target.rest_port, timeout=60)
    while not stop.is_set():
        scene, began = rng.choice(target.scenes), time.perf_counter()
        body = numpy_json.dumps(scene.values).encode()
        connection.request("POST", "/act", body, target.headers)
        response = connection.getresponse()
        text = response.read()
        figures.round_trips_ms.append(1e3 * (time.perf_counter() - began))
        figures.answers["rest"] += 1
        if response.status != 200 or not _same(numpy_json.loads(text), scene.actions[0]):
            figures.problems.append(f"wrong answer over REST: {response.status} {text[:200]!r}")
        time.sleep(0.02)
    connection.close()


def _same(got: np.ndarray, expected: np.ndarray) -> bool:
    return got.shape == expected.shape and bool(np.allclose(got, expected, atol=1e-5))


def _bytes(message: str | bytes) -> bytes:
    if isinstance(message, str):
        raise AssertionError(f"an honest client was told {message[:300]!r}")
    return message


def attack_on(target: Target, stop: threading.Event, figures: Figures, seed: int) -> None:
    rng = random.Random(seed)
    weights = [0.1 if attack in RARE else 1.0 for attack in ATTACKS]
    # Each kind once at least, in another order for every attacker.
    queue = rng.sample(ATTACKS, len(ATTACKS))
    while not stop.is_set():
        attack = queue.pop() if queue else rng.choices(ATTACKS, weights)[0]
        name = attack.__name__
        try:
            figures.endings[f"{name}: {attack(target, rng)}"] += 1
        except (WebSocketException, OSError) as error:  # cut off before the reason arrived
            figures.endings[f"{name}: {type(error).__name__}"] += 1
        figures.attacks[name] += 1


# ---- the run -----------------------------------------------------------------------------------------------------


def main(words: list[str]) -> int:
    settings = Settings.parse(words)
    logging.getLogger("websockets.client").setLevel(logging.CRITICAL)  # the attackers' own
    scenes = _scenes(settings)
    with _server(settings) as (process, target_of):
        target = target_of(scenes)
        figures, stop, memory = Figures(), threading.Event(), list[float]()
        workers = [ask_websocket if i % 2 == 0 else ask_rest for i in range(settings.honest)]
        workers += [attack_on] * settings.attackers
        threads = [
            threading.Thread(target=_guarded, args=(work, target, stop, figures, settings.seed + i))
            for i, work in enumerate(workers)
        ]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + settings.seconds
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(min(0.2, settings.seconds / 50))
            memory.append(_memory_mb(process.pid))
        stop.set()
        for thread in threads:
            thread.join(90)
        if process.poll() is not None:
            figures.problems.append(f"the server ended with status {process.returncode}")
        process.send_signal(signal.SIGTERM)
        if process.wait(30) != 0:
            figures.problems.append(f"the server ended with status {process.returncode}")
    return _report(settings, figures, memory)


def _guarded(
    work: Callable[..., None], target: Target, stop: threading.Event, figures: Figures, seed: int
) -> None:
    try:
        work(target, stop, figures, seed)
    except Exception as error:  # noqa: BLE001 - it is the finding
        figures.problems.append(f"{work.__name__}: {type(error).__name__}: {error}")


def _scenes(settings: Settings) -> list[Scene]:
    cfg = compose("serve", ServeConfig, [f"policy={settings.policy}"])
    policy = build_policy(cfg.policy)
    rng = np.random.default_rng(settings.seed)
    scenes: list[Scene] = []
    for number in range(NUM_SCENES):
        images = {name: rng.integers(0, 256, (64, 64, 3), np.uint8) for name in policy.camera_names}
        state = rng.uniform(-0.1, 0.1, 7).astype(np.float32)
        instruction = f"pick up the cube, number {number}"
        actions = policy.act(
            Observation(images=images, state=state, instruction=instruction)
        ).actions
        values = {"images": images, "state": state, "instruction": instruction}
        scenes.append(Scene(values, actions))
    return scenes


@contextlib.contextmanager
def _server(
    settings: Settings,
) -> Iterator[tuple[subprocess.Popen[str], Callable[[list[Scene]], Target]]]:
    limits = [f"limits.{name}={value}" for name, value in LIMITS.items()]
    words = ["serve", f"policy={settings.policy}", "port=0", "rest_port=0", *limits]
    process = subprocess.Popen(
        [sys.executable, "-m", "vla.cli.main", *words],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "VLA_SERVE_TOKEN": TOKEN},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        printed = ""
        for line in process.stdout:
            printed += line
            if line.startswith("stop with"):
                break
        url = re.search(r"ws://\S+", printed)
        rest = re.search(r"http://\S+:(\d+)/act", printed)
        if not url or not rest:
            raise SystemExit(f"the server did not start: {printed}")
        yield process, lambda scenes: Target(url[0], "127.0.0.1", int(rest[1]), scenes)
    finally:
        process.kill()
        process.wait()


def _memory_mb(pid: int) -> float:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
    return float("nan")


def _report(settings: Settings, figures: Figures, memory: list[float]) -> int:
    fifth = max(1, len(memory) // 5)
    start, end = float(np.median(memory[:fifth])), float(np.median(memory[-fifth:]))
    if not end - start < settings.growth_mb:
        figures.problems.append(f"memory grew from {start:.0f} to {end:.0f} MB")
    trips = np.asarray(figures.round_trips_ms or [np.nan])
    print(
        json.dumps(
            {
                "seconds": settings.seconds,
                "policy": settings.policy,
                "honest_answers": dict(figures.answers),
                "round_trip_ms": {
                    f"p{q}": round(float(np.percentile(trips, q)), 2) for q in (50, 99, 100)
                },
                "attacks": sum(figures.attacks.values()),
                "attacks_by_kind": dict(figures.attacks),
                "endings": dict(sorted(figures.endings.items())),
                "memory_mb": {
                    "start": round(start, 1),
                    "end": round(end, 1),
                    "every_tenth": [
                        round(value, 1) for value in memory[:: max(1, len(memory) // 10)]
                    ],
                },
                "problems": figures.problems,
            },
            indent=2,
        )
    )
    return 1 if figures.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
