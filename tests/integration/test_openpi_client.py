"""The real openpi-client, in an environment of its own (it pins numpy below 2), plays PickCube against `vla serve`."""

import contextlib
import io
import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from envs.config import EnvConfig
from policies.config import PolicyConfig
from vla.cli import build
from vla.types import Observation

pytestmark = [pytest.mark.network, pytest.mark.slow]

REPOSITORY = Path(__file__).resolve().parents[2]
TOKEN = "the token of an openpi client"
EPISODES = 5
FIRST_SEED = 1_000_000


@pytest.fixture(scope="module")
def openpi_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with openpi-client; $OPENPI_VENV names one that is there already."""
    given = os.environ.get("OPENPI_VENV")
    directory = Path(given) if given else tmp_path_factory.mktemp("openpi") / "venv"
    python = directory / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
        # openpi-client 0.1.2 imports typing_extensions without declaring it
        packages = ["openpi-client==0.1.2", "typing_extensions"]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


@contextlib.contextmanager
def tiny_served(output: Path) -> Iterator[str]:
    words = ["serve", "policy=tiny", "port=0", "rest_port=null", f"output_root={output}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "vla.cli.main", *words],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "VLA_SERVE_TOKEN": TOKEN},
        stdout=subprocess.PIPE,
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
        assert url, printed
        yield url[0]
        process.terminate()
        process.communicate(timeout=30)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


def receive(stream) -> dict[str, np.ndarray]:
    (length,) = struct.unpack("<Q", stream.read(8))
    return dict(np.load(io.BytesIO(stream.read(length)), allow_pickle=False))


def send(stream, **arrays) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    stream.write(struct.pack("<Q", buffer.tell()) + buffer.getvalue())
    stream.flush()


def test_an_openpi_program_solves_pick_cube_against_our_server(
    openpi_python: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    env = build.build_env(EnvConfig(task="pick_cube"))
    policy = build.build_policy(
        PolicyConfig(path="tiny")
    )  # what the server computes, for comparison
    successes = steps = 0
    with tiny_served(tmp_path) as url:
        client = subprocess.Popen(
            [openpi_python, str(REPOSITORY / "tests/openpi_program.py"), url, TOKEN, str(EPISODES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": os.environ["PATH"]},
        )
        try:
            seed, raw, done = FIRST_SEED, {}, True
            while "end" not in (message := receive(client.stdout)):
                if "reset" in message:  # one more than episodes: openpi's Runtime homes the robot
                    raw, info = env.reset(seed=seed)
                    seed, done = seed + 1, False
                else:
                    expected = policy.act(Observation(**raw)).actions[0]
                    np.testing.assert_allclose(message["action"], expected, atol=1e-5)
                    raw, _, terminated, truncated, info = env.step(message["action"])
                    done = terminated or truncated
                    steps += 1
                    successes += int(done and info["is_success"])
                send(
                    client.stdin,
                    **raw["images"],
                    state=raw["state"],
                    prompt=np.array(raw["instruction"]),
                    done=np.array(done),
                )
            errors = client.communicate(timeout=60)[1].decode()
        finally:
            client.kill()
            client.communicate()
            env.close()
    found = json.loads(errors.splitlines()[-1])
    with capsys.disabled():
        print(f"\n{successes} of {EPISODES} episodes, {steps} steps: {json.dumps(found)}")
    assert successes >= EPISODES - 1  # 200 of 200 in the evaluation of the shipped policy
    assert found["numpy"].startswith("1.")
    assert found["cameras"] == ["front", "wrist"]
    assert found["chunk"] == [4, 7]
    assert "401" in found["refusal"]
    assert (
        "lacks observation/image, observation/wrist_image, observation/state" in found["complaint"]
    )
