"""What a server keeps of clients that have left."""

import asyncio
import gc
import http.client
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest
from serving_fakes import EchoPolicy
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from vla.serving import numpy_json, service, wire
from vla.serving.card import PolicyCard
from vla.serving.config import ServerConfig
from vla.serving.server import Listening, PolicyServer

TOKEN = "a token that only these tests know"
HEADERS = {"Authorization": f"Api-Key {TOKEN}"}
VISITS = 40  # of every kind, in every round


@contextmanager
def listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[PolicyServer, Listening]]:
    """A server in a thread of this process, so that what it holds can be counted."""
    monkeypatch.setenv("VLA_SERVE_TOKEN", TOKEN)
    policy = EchoPolicy()
    server = PolicyServer(policy, PolicyCard.of(policy, "echo"), ServerConfig(port=0, rest_port=0))
    where: Future[Listening] = Future()
    stopping: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        stop = asyncio.Event()
        stopping.set_result((asyncio.get_running_loop(), stop))
        await server.serve(stop, where.set_result)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    loop, stop = stopping.result(30)
    try:
        yield server, where.result(30)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
    assert not thread.is_alive()


def answered(at: Listening, number: int) -> None:
    images = {name: np.zeros((8, 8, 3), np.uint8) for name in EchoPolicy.camera_names}
    values = {"images": images, "state": np.zeros(7, np.float32), "instruction": f"cube {number}"}
    with connect(at.websocket, additional_headers=HEADERS, compression=None) as client:
        client.recv(timeout=30)
        client.send(wire.pack(values))
        assert "actions" in wire.unpack(client.recv(timeout=30))


def refused(at: Listening, number: int) -> None:
    with connect(at.websocket, additional_headers=HEADERS, compression=None) as client:
        client.recv(timeout=30)
        client.send(wire.pack({f"nonsense {number}": number}))
        assert isinstance(client.recv(timeout=30), str)


def turned_away(at: Listening, number: int) -> None:
    headers = {"Authorization": f"Api-Key {number}", "X-Number": str(number)}
    with pytest.raises(InvalidStatus), connect(at.websocket, additional_headers=headers):
        pass


def posted_nonsense(at: Listening, number: int) -> None:
    assert _status(at, "/act", number) == 400


def lost(at: Listening, number: int) -> None:
    assert _status(at, f"/{number}", number) == 404


@pytest.mark.parametrize("visit", [answered, refused, turned_away, posted_nonsense, lost])
def test_nothing_stays_of_clients_that_have_left(monkeypatch, visit):
    monkeypatch.setattr(service, "_KEPT_TIMES", 5)  # full before the counting begins
    kept = []
    with listening(monkeypatch) as (_, at):
        gc.unfreeze()  # or what the start has made would not be counted
        for number in range(4 * VISITS):
            visit(at, number)
            if (number + 1) % VISITS == 0:
                kept.append(_num_entries())
    # One entry for each client would be VISITS a round. The least counts: a connection may still be closing.
    assert min(later - earlier for earlier, later in pairwise(kept)) < VISITS / 2, kept


def test_what_the_start_has_made_is_out_of_garbage_collection_while_the_server_runs(monkeypatch):
    with listening(monkeypatch):
        assert gc.get_freeze_count() > 10_000
    assert gc.get_freeze_count() == 0


def _status(at: Listening, path: str, number: int) -> int:
    assert at.rest is not None
    client = http.client.HTTPConnection(at.rest.split("/")[2], timeout=30)
    client.request("POST", path, numpy_json.dumps({f"nonsense {number}": 1}), HEADERS)
    status = client.getresponse().status
    client.close()
    return status


def _num_entries() -> int:
    """Returns how many entries all lists, tables, sets and queues of this process have, without refuse."""
    time.sleep(0.1)  # the last connection closes
    gc.collect()
    kinds = (dict, list, set, deque)
    # By type: asking some objects for their class imports modules.
    return sum(len(one) for one in gc.get_objects() if issubclass(type(one), kinds))
