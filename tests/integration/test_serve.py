"""A server in a process of its own, honest clients, and clients that are not."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from serving_fakes import STEPS, EchoPolicy, right_answer
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from policies.config import PolicyConfig, PolicyKind
from policies.remote import RemotePolicy
from vla.cli.build import build_policy
from vla.errors import ConfigError, PolicyError
from vla.serving import numpy_json, wire
from vla.types import END_EFFECTOR_DELTA_7D, Observation, Policy

REPOSITORY = Path(__file__).resolve().parents[2]
TOKEN = "a token that only these tests know"
LIMITS = ("limits.max_message_mb=1", "limits.message_timeout_s=1", "limits.messages_per_s=50")


@dataclass
class Server:
    """A running server."""

    process: subprocess.Popen
    url: str
    rest: str

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def rest_port(self) -> int:
        return int(self.rest.rpartition(":")[2].partition("/")[0])

    def connect(self, token: str | None = None) -> ClientConnection:
        headers = {"Authorization": f"Api-Key {token}"} if token else None
        return connect(self.url, additional_headers=headers, compression=None, max_size=None)

    def post(self, body: bytes | dict, **headers: str) -> tuple[int, object]:
        """Returns status and JSON of `POST /act`."""
        raw = numpy_json.dumps(body).encode() if isinstance(body, dict) else body
        request = urllib.request.Request(self.rest, raw, headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, numpy_json.loads(response.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())


@contextlib.contextmanager
def serving(*words: str, token: str | None = None) -> Iterator[Server]:
    """Starts a server with EchoPolicy, and stops it with SIGTERM: it must end by itself, with status 0."""
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}"}
    environment.pop("VLA_SERVE_TOKEN", None)
    if token:
        environment["VLA_SERVE_TOKEN"] = token
    process = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "tests/serving_fakes.py"), *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline().split()
        assert line, process.communicate()[1]
        yield Server(process, *line)
        assert process.poll() is None, process.communicate()[1]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(*LIMITS) as started:
        yield started


def observation(seed: int = 0, instruction: str = "pick up the cube") -> Observation:
    rng = np.random.default_rng(seed)
    images = {name: rng.integers(0, 256, (32, 32, 3), np.uint8) for name in EchoPolicy.camera_names}
    state = rng.uniform(-1, 1, 7).astype(np.float32)
    return Observation(images=images, state=state, instruction=instruction, captured_at_s=seed)


def libero(seen: Observation) -> dict:
    return {
        "observation/image": seen.images["front"],
        "observation/wrist_image": seen.images["wrist"],
        "observation/state": seen.state,
        "prompt": seen.instruction,
    }


def openvla(seen: Observation) -> dict:
    return {
        "image": seen.images["front"],
        "wrist_image": seen.images["wrist"],
        "state": seen.state,
        "instruction": seen.instruction,
    }


def ask(connection: ClientConnection, message: bytes) -> dict:
    connection.send(message)
    answer = connection.recv(timeout=30)
    assert isinstance(answer, bytes), answer
    return wire.unpack(answer)


def check_honest_client_is_served(server: Server, token: str | None = None) -> None:
    seen = observation(seed=99)
    with server.connect(token) as connection:
        connection.recv(timeout=30)
        answer = ask(connection, wire.pack(libero(seen)))
    np.testing.assert_array_equal(answer["actions"], right_answer(seen))


# ---- openpi's protocol -------------------------------------------------------------------------------------------


def test_metadata_come_first_and_say_what_the_actions_mean(server):
    with server.connect() as connection:
        metadata = wire.unpack(connection.recv(timeout=30))
    assert metadata["policy"] == "echo"
    assert metadata["action_spec"] == END_EFFECTOR_DELTA_7D.to_dict()
    assert metadata["cameras"] == ["front", "wrist"]
    assert metadata["limits"]["max_message_mb"] == 1.0
    assert "observation/image" in metadata["layouts"]["libero"]


def test_an_answer_has_the_chunk_of_its_observation_and_the_servers_timing(server):
    with server.connect() as connection:
        connection.recv(timeout=30)
        for seed in range(3):
            seen = observation(seed)
            answer = ask(connection, wire.pack(libero(seen)))
            np.testing.assert_array_equal(answer["actions"], right_answer(seen))
            assert answer["actions"].dtype == np.float32
            timing = answer["server_timing"]
            assert timing["infer_ms"] >= 0
            assert timing["wait_ms"] >= 0
            assert timing["dropped"] == 0
            assert ("prev_total_ms" in timing) == (seed > 0)


def test_health_is_told_to_anybody_on_both_ports():
    with serving(token=TOKEN) as server:
        for port in (server.port, server.rest_port):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz") as response:
                assert (response.status, response.read()) == (200, b"OK\n")


def test_a_wrong_token_or_none_is_refused_with_401_and_the_right_one_is_not():
    with serving(token=TOKEN) as server:
        for token in (None, TOKEN[:-1], TOKEN + "x"):
            with pytest.raises(InvalidStatus) as refused:
                server.connect(token)
            assert refused.value.response.status_code == 401
            assert b"Authorization: Api-Key TOKEN" in refused.value.response.body
            headers = {"Authorization": f"Api-Key {token}"} if token else {}
            assert server.post(openvla(observation()), **headers)[0] == 401
        check_honest_client_is_served(server, TOKEN)
        assert server.post(openvla(observation()), Authorization=f"Bearer {TOKEN}")[0] == 200


def test_a_page_in_a_browser_cannot_drive_the_robot(server):
    with pytest.raises(InvalidStatus) as refused:
        connect(server.url, origin="https://example.org")
    assert refused.value.response.status_code == 403
    assert server.post(openvla(observation()), Origin="https://example.org")[0] == 403


MESSAGE = wire.pack(libero(observation()))
BAD_MESSAGES = {
    "a text frame": ("hello", "a text frame; expected an observation as binary msgpack"),
    "truncated": (MESSAGE[:-10], "truncated"),
    "bytes after the end": (MESSAGE + b"\0", "goes on for 1 bytes"),
    "no map": (wire.pack([1, 2]), "an observation is a map"),
    "nothing": (b"", "truncated"),
    "extension types": (b"\xc7\x01\x01\x01", "extension types"),
    "a missing camera": (
        wire.pack({k: v for k, v in libero(observation()).items() if "wrist" not in k}),
        "lacks observation/wrist_image of layout libero",
    ),
    "a wrong dtype": (
        wire.pack(libero(observation()) | {"observation/image": np.zeros((8, 8, 3), np.int16)}),
        "observation/image is int16; expected uint8",
    ),
    "a wrong shape": (
        wire.pack(libero(observation()) | {"observation/state": np.zeros(8)}),
        "observation/state has 8 numbers; the policy takes 7",
    ),
    "not a number": (
        wire.pack(libero(observation()) | {"observation/state": np.full(7, np.nan)}),
        "not finite",
    ),
    "a claim of petabytes": (
        wire.pack({"image": {"x": 1}}).replace(b"\x81\xa1x\x01", b"\xc6\xff\xff\xff\xff"),
        "4294967295 bytes expected",
    ),
}


@pytest.mark.parametrize("name", BAD_MESSAGES)
def test_a_bad_message_is_answered_with_the_reason_as_text_and_code_1011_and_others_are_served_on(
    server, name
):
    message, reason = BAD_MESSAGES[name]
    with server.connect() as honest, server.connect() as bad:
        honest.recv(timeout=30)
        bad.recv(timeout=30)
        bad.send(message)
        answer = bad.recv(timeout=30)
        assert isinstance(answer, str)
        assert reason in answer
        assert "Traceback" not in answer
        with pytest.raises(ConnectionClosed) as closed:
            bad.recv(timeout=30)
        assert closed.value.rcvd.code == 1011
        seen = observation(5)
        np.testing.assert_array_equal(
            ask(honest, wire.pack(libero(seen)))["actions"], right_answer(seen)
        )


def test_a_message_over_the_limit_ends_the_connection_with_1009(server):
    with server.connect() as connection:
        connection.recv(timeout=30)
        with pytest.raises(ConnectionClosed) as closed:
            connection.send(b"\0" * (2 << 20))
            connection.recv(timeout=30)
    assert closed.value.rcvd.code == 1009
    assert "1048576" in closed.value.rcvd.reason
    check_honest_client_is_served(server)


def test_a_message_that_comes_too_slowly_ends_the_connection(server):
    def dribble() -> Iterator[bytes]:
        for byte in MESSAGE:
            time.sleep(0.1)
            yield bytes([byte])

    with server.connect() as connection:
        connection.recv(timeout=30)
        with pytest.raises(ConnectionClosed):
            connection.send(dribble())
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                assert "took longer than limits.message_timeout_s=1" in connection.recv(timeout=30)
    assert closed.value.rcvd.code == 1011
    check_honest_client_is_served(server)


def test_a_frame_that_comes_too_slowly_ends_the_connection(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as raw:
        raw.sendall(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        raw.sendall(b"\x82\xfe\xff\xff" + b"\0" * 4)  # a frame of 65535 bytes is begun
        began = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - began < 20:
                raw.sendall(b"\0")
                raw.settimeout(0.1)
                with contextlib.suppress(TimeoutError):
                    if not raw.recv(4096):
                        break
        assert time.monotonic() - began < 20
    check_honest_client_is_served(server)


def test_a_flood_ends_with_the_reason_and_code_1008_while_others_are_served(server):
    with server.connect() as bad:
        bad.recv(timeout=30)
        with contextlib.suppress(ConnectionClosed):
            for _ in range(500):
                bad.send(MESSAGE)
        check_honest_client_is_served(server)
        told = ""
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                answer = bad.recv(timeout=30)
                told += answer if isinstance(answer, str) else ""
    assert "more than limits.messages_per_s=50 messages a second" in told
    assert closed.value.rcvd.code == 1008


def test_of_observations_that_wait_only_the_newest_is_answered(server):
    with server.connect() as busy, server.connect() as hasty:
        for connection in (busy, hasty):
            connection.recv(timeout=30)
        busy.send(wire.pack(libero(observation(0, "sleep 0.5"))))
        time.sleep(0.2)  # the policy is at it
        for seed in range(1, 6):
            hasty.send(wire.pack(libero(observation(seed))))
        answer = wire.unpack(hasty.recv(timeout=30))
        np.testing.assert_array_equal(answer["actions"], right_answer(observation(5)))
        assert answer["server_timing"]["dropped"] == 4
        assert answer["server_timing"]["wait_ms"] > 50


def test_a_late_answer_is_an_error_that_leaves_the_connection_open_and_health_names_a_stuck_policy():
    with serving("limits.deadline_s=0.3") as server, server.connect() as connection:
        connection.recv(timeout=30)
        connection.send(wire.pack(libero(observation(0, "sleep 1.5"))))
        assert "no answer within 0.3 s" in connection.recv(timeout=30)
        with pytest.raises(urllib.error.HTTPError) as stuck:
            urllib.request.urlopen(f"http://127.0.0.1:{server.port}/healthz")
        with stuck.value as response:
            assert (response.code, response.read()) == (503, b"the policy is stuck\n")
        time.sleep(1.5)
        seen = observation(3)
        np.testing.assert_array_equal(
            ask(connection, wire.pack(libero(seen)))["actions"], right_answer(seen)
        )


@pytest.mark.parametrize(
    ("instruction", "reason"),
    [("crash", "internal error: RuntimeError"), ("nan", "an action that is not finite")],
)
def test_a_policy_that_fails_costs_one_answer_and_gives_no_details_away(
    server, instruction, reason
):
    seen = observation(0, instruction)
    with server.connect() as connection:
        connection.recv(timeout=30)
        connection.send(wire.pack(libero(seen)))
        answer = connection.recv(timeout=30)
    assert reason in answer
    assert "as policies do" not in answer
    status, text = server.post(openvla(seen))
    assert status in (422, 500)
    assert reason in str(text)
    check_honest_client_is_served(server)


def test_there_are_only_so_many_places_and_one_that_is_left_is_free_again():
    with serving("limits.max_clients=2") as server:
        with server.connect() as first, server.connect():
            first.recv(timeout=30)
            with pytest.raises(InvalidStatus) as refused:
                server.connect()
            assert refused.value.response.status_code == 503
            assert b"all 2 places are taken" in refused.value.response.body
        time.sleep(0.2)
        check_honest_client_is_served(server)


def test_many_clients_at_once_get_their_own_answers(server):
    wrong = []

    def client(number: int) -> None:
        with server.connect() as connection:
            connection.recv(timeout=30)
            for i in range(10):
                seen = observation(1000 * number + i)
                answer = ask(connection, wire.pack(libero(seen)))
                if not np.array_equal(answer["actions"], right_answer(seen)):
                    wrong.append(number)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


# ---- OpenVLA's POST /act -----------------------------------------------------------------------------------------


def test_act_answers_with_the_first_action_as_openvla_does(server):
    seen = observation(7)
    status, action = server.post(openvla(seen))
    assert status == 200
    assert isinstance(action, np.ndarray)
    assert (action.shape, action.dtype) == ((7,), np.float64)
    np.testing.assert_allclose(action, right_answer(seen)[0])


def test_act_takes_the_request_inside_a_text_and_answers_in_kind(server):
    seen = observation(8)
    status, text = server.post({"encoded": numpy_json.dumps(openvla(seen))})
    assert status == 200
    assert isinstance(text, str)
    np.testing.assert_allclose(numpy_json.loads(text), right_answer(seen)[0])


def test_act_takes_the_policys_unnorm_key_and_refuses_others_by_name(server):
    request = openvla(observation())
    assert server.post(request | {"unnorm_key": "tabletop"})[0] == 200
    status, text = server.post(request | {"unnorm_key": "bridge_orig"})
    assert status == 400
    assert text == "error: unknown unnorm_key 'bridge_orig'; choose one of tabletop"


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 400, "not JSON"),
        (b"{", 400, "not JSON"),
        (b"[1]", 400, "an observation is a map"),
        (b"[" * 15_000, 400, "nests"),
        ({"encoded": 5}, 400, "`encoded` holds nothing else"),
        ({"encoded": "{", "more": 1}, 400, "`encoded` holds nothing else"),
        (
            {"image": np.zeros((8, 8, 3), np.uint8), "instruction": "go"},
            400,
            "lacks wrist_image, state of layout openvla",
        ),
        (b"\0" * (2 << 20), 413, "at most 1048576"),
    ],
)
def test_a_bad_request_is_answered_with_status_and_reason(server, body, status, reason):
    got, text = server.post(body)
    assert got == status
    assert str(text).startswith("error: ")
    assert reason in str(text)
    check_honest_client_is_served(server)


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (b"garbage\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /act HTTP/1.1\r\n\r\n", 405),
        (b"POST /act HTTP/1.1\r\n\r\n", 411),
        (b"POST /act HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"POST /act HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST /act HTTP/1.1\r\nContent-Length: +1\r\n\r\n", 400),
        (b"POST /act HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"POST /act HTTP/1.1\r\n" + b"a: b\r\n" * 100 + b"\r\n", 431),
        (b"POST /act HTTP/1.1\r\na: " + b"b" * 40_000 + b"\r\n\r\n", 431),
        (b"POST /act HTTP/1.1\r\nContent-Length: 9\r\n\r\nslow", 408),
    ],
)
def test_http_that_is_none_is_answered_with_a_status_and_hung_up(server, request_text, status):
    with socket.create_connection(("127.0.0.1", server.rest_port), timeout=30) as raw:
        raw.sendall(request_text)
        answer = b""
        while data := raw.recv(4096):
            answer += data
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"Connection: close" in answer


def test_a_connection_is_kept_for_the_next_request(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=30)
    connection.connect()
    first = connection.sock
    for seed in range(3):
        seen = observation(seed)
        connection.request("POST", "/act", numpy_json.dumps(openvla(seen)).encode())
        np.testing.assert_allclose(
            numpy_json.loads(connection.getresponse().read()), right_answer(seen)[0]
        )
    assert connection.sock is first
    connection.close()


def test_requests_that_never_end_give_way_to_those_that_do():
    with serving("limits.max_clients=2", "limits.message_timeout_s=30") as server:
        hanging = [socket.create_connection(("127.0.0.1", server.rest_port)) for _ in range(20)]
        for raw in hanging:
            raw.sendall(b"POST /act HT")
        assert server.post(openvla(observation()))[0] == 200
        time.sleep(0.2)
        assert [is_open(raw) for raw in hanging] == [False] * 13 + [True] * 7  # and the post: 8
        for raw in hanging:
            raw.close()


def is_open(raw: socket.socket) -> bool:
    raw.settimeout(0.05)
    try:
        return bool(raw.recv(1))
    except TimeoutError:
        return True
    except ConnectionResetError:
        return False


# ---- our own client ----------------------------------------------------------------------------------------------


def remote(url: str, **settings) -> RemotePolicy:
    policy = build_policy(PolicyConfig(kind=PolicyKind.REMOTE, url=url, **settings))
    assert isinstance(policy, RemotePolicy)
    return policy


def test_a_remote_policy_is_a_policy_that_gives_the_servers_chunks(server):
    policy = remote(server.url)
    assert isinstance(policy, Policy)
    assert policy.action_spec == EchoPolicy.action_spec
    assert policy.camera_names == EchoPolicy.camera_names
    policy.reset(seed=3)
    for seed in range(3):
        chunk = policy.act(observation(seed))
        np.testing.assert_array_equal(chunk.actions, right_answer(observation(seed)))
        assert chunk.actions.shape == (STEPS, 7)
        assert chunk.actions.flags.writeable
        assert chunk.captured_at_s == seed
    policy.close()


def test_a_remote_policy_comes_back_after_the_server_was_gone():
    with serving() as server:
        policy = remote(server.url, deadline_s=20.0)
        policy.act(observation(0))
        port = server.port
    with serving(f"port={port}"):
        chunk = policy.act(observation(1))
    np.testing.assert_array_equal(chunk.actions, right_answer(observation(1)))
    policy.close()


def test_a_remote_policy_gives_up_at_its_deadline_and_does_not_take_a_late_answer_for_the_next(
    server,
):
    policy = remote(server.url, deadline_s=0.3)
    with pytest.raises(PolicyError, match=r"no answer from .* within 0\.3 s"):
        policy.act(observation(0, "sleep 0.6"))
    time.sleep(0.8)
    np.testing.assert_array_equal(policy.act(observation(1)).actions, right_answer(observation(1)))
    policy.close()


def test_a_remote_policy_repeats_what_the_server_says_is_wrong_and_can_go_on(server):
    policy = remote(server.url)
    with pytest.raises(PolicyError, match="says: internal error: RuntimeError"):
        policy.act(observation(0, "crash"))
    blind = Observation(images={}, state=np.zeros(7, np.float32), instruction="go")
    with pytest.raises(PolicyError, match="has no camera front, wrist"):
        policy.act(blind)
    policy.act(observation(1))
    policy.close()


def test_a_remote_policy_without_server_address_or_token_says_what_to_do(monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match=r"policy\.url=ws://HOST:PORT"):
        remote("")
    with pytest.raises(PolicyError, match=r"no policy server answers at .*vla serve"):
        remote("ws://127.0.0.1:9", connect_timeout_s=0.2)
    with serving(token=TOKEN) as server:
        monkeypatch.delenv("VLA_SERVE_TOKEN", raising=False)
        with pytest.raises(PolicyError, match=r"status 401.*policy\.token_file=PATH"):
            remote(server.url)
        file = tmp_path / "token"
        file.write_text(TOKEN)
        file.chmod(0o600)
        remote(server.url, token_file=str(file)).close()
        monkeypatch.setenv("VLA_SERVE_TOKEN", TOKEN)
        remote(server.url).close()


def test_the_robots_side_loads_no_torch(server):
    code = (
        "import sys; from policies.config import *; from vla.cli.build import build_policy; "
        f"build_policy(PolicyConfig(kind=PolicyKind.REMOTE, url={server.url!r})).close(); "
        "print(sorted({'torch', 'lerobot', 'hydra', 'mujoco'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


# ---- the command -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_says_where_it_listens_and_ends_cleanly_and_keeps_the_token_to_itself(
    tmp_path, number
):
    words = ["serve", "policy=hold", "port=0", "rest_port=0", f"output_root={tmp_path}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "vla.cli.main", *words],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "VLA_SERVE_TOKEN": TOKEN},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    printed = ""
    for line in process.stdout:
        printed += line
        if line.startswith("stop with"):
            break
    url = re.search(r"ws://127\.0\.0\.1:\d+", printed)
    assert url, printed
    assert "this machine only; Authorization: Api-Key TOKEN; no TLS" in printed
    server = Server(process, url[0], "")
    with server.connect(TOKEN) as connection:
        connection.recv(timeout=30)
        answer = ask(connection, wire.pack(libero(observation())))
        assert answer["actions"].shape == (1, 7)
        process.send_signal(number)
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv(timeout=30)
        assert closed.value.rcvd.code == 1001
    rest, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert "stopped; answered 1 over websocket" in rest
    summary = json.loads((tmp_path / "serve/latest/summary.json").read_text())
    assert summary["answers"] == {"websocket": 1}
    kept = [path.read_text() for path in (tmp_path / "serve/latest").iterdir()]
    assert TOKEN not in "".join([printed, rest, errors, *kept])


def serve_command(*words: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "vla.cli.main", "serve", "policy=hold", *words],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_an_address_that_is_taken_is_named(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = serve_command(f"port={port}", "rest_port=0", f"output_root={tmp_path}")
    assert result.returncode == 2
    assert f"cannot listen on 127.0.0.1, ports {port} and 0" in result.stderr


def test_other_machines_are_not_served_without_a_token(tmp_path):
    result = serve_command("host=0.0.0.0", f"output_root={tmp_path}", VLA_SERVE_TOKEN="")
    assert result.returncode == 2
    assert "so it needs a token: export VLA_SERVE_TOKEN=" in result.stderr


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
def test_with_a_certificate_both_ports_speak_tls(tmp_path):
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*make.split(), *subject, *files], check=True, capture_output=True)
    trust = ssl.create_default_context(cafile=str(certificate))
    with serving(f"tls_certificate={certificate}", f"tls_key={key}") as server:
        assert server.url.startswith("wss://")
        assert server.rest.startswith("https://")
        with connect(server.url, ssl=trust, compression=None) as connection:
            connection.recv(timeout=30)
            answer = ask(connection, MESSAGE)
        np.testing.assert_array_equal(answer["actions"], right_answer(observation()))
        body = numpy_json.dumps(openvla(observation())).encode()
        with urllib.request.urlopen(server.rest, body, context=trust, timeout=30) as response:
            assert response.status == 200


def test_a_short_attack_finds_nothing(tmp_path):
    result = subprocess.run(
        [
            sys.executable,
            "scripts/fuzz_server.py",
            "seconds=5",
            "policy=hold",
            "honest=2",
            "seed=1",
        ],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "VLA_OUTPUTS": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads(result.stdout)
    assert found["problems"] == []
    assert found["attacks"] > 20
    assert min(found["honest_answers"].values()) > 20
