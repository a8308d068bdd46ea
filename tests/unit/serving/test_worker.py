import asyncio
import threading
import time

import pytest

from vla.serving.worker import LateError, Worker


def run(scenario):
    """Runs `scenario(worker)` in an event loop of its own."""

    async def main():
        worker = Worker()
        try:
            return await scenario(worker)
        finally:
            worker.stop()

    return asyncio.run(main())


def test_jobs_run_one_at_a_time_in_one_other_thread_in_the_order_of_asking():
    seen = []

    def job(number: int):
        def work() -> int:
            seen.append((number, threading.current_thread().name))
            time.sleep(0.005)
            return number

        return work

    async def scenario(worker: Worker):
        return await asyncio.gather(*(worker.run(lambda i=i: job(i), 10) for i in range(8)))

    assert run(scenario) == list(range(8))
    assert seen == [(i, "policy") for i in range(8)]


@pytest.mark.parametrize("error", [ValueError("no"), TimeoutError("mine"), SystemExit(3)])
def test_what_a_job_raises_reaches_its_asker_and_the_next_job_runs(error):
    def fail():
        raise error

    async def scenario(worker: Worker):
        with pytest.raises(type(error)) as caught:
            await worker.run(lambda: fail, 10)
        return caught.value, await worker.run(lambda: lambda: "next", 10)

    assert run(scenario) == (error, "next")


def test_a_job_that_raises_stop_iteration_does_not_block_the_others():
    async def scenario(worker: Worker):
        with pytest.raises(RuntimeError):
            await worker.run(lambda: lambda: next(iter([])), 10)
        return await worker.run(lambda: lambda: "next", 10)

    assert run(scenario) == "next"


def test_who_waits_too_long_is_told_and_the_next_turn_comes_when_the_job_is_done():
    release = threading.Event()

    async def scenario(worker: Worker):
        with pytest.raises(LateError, match=r"no answer within 0\.05 s"):
            await worker.run(lambda: release.wait, 0.05)
        began = []
        with pytest.raises(LateError):  # its turn does not come: the first job still runs
            await worker.run(lambda: began.append, 0.05)
        assert worker.busy_for_s > 0.05
        release.set()
        assert await worker.run(lambda: lambda: "next", 10) == "next"
        assert worker.busy_for_s == 0
        return began

    assert run(scenario) == []


def test_what_to_do_is_decided_when_the_turn_comes():
    newest = ["old"]
    release = threading.Event()

    async def scenario(worker: Worker):
        first = asyncio.create_task(worker.run(lambda: release.wait, 10))
        await asyncio.sleep(0.01)

        def begin():
            taken = newest[0]
            return lambda: taken

        second = asyncio.create_task(worker.run(begin, 10))
        await asyncio.sleep(0.01)
        newest[0] = "new"
        release.set()
        await first
        return await second

    assert run(scenario) == "new"


def test_a_client_that_leaves_while_it_waits_gives_its_turn_away():
    release = threading.Event()

    async def scenario(worker: Worker):
        first = asyncio.create_task(worker.run(lambda: release.wait, 10))
        await asyncio.sleep(0.01)
        second = asyncio.create_task(worker.run(lambda: lambda: "left", 10))
        third = asyncio.create_task(worker.run(lambda: lambda: "stayed", 10))
        await asyncio.sleep(0.01)
        second.cancel()
        first.cancel()  # leaves in the middle of its job
        release.set()
        return await third

    assert run(scenario) == "stayed"
