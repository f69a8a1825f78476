"""Requests share batches, and none waits for ever."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tfsft.export.serving.batching import Batcher
from tfsft.export.serving.problems import Busy

OPTIONS = {"batch": 4, "size": 100, "wait": 0.05, "queue": 6}


class Model:
    """Doubles numbers, and remembers what it was given together."""

    def __init__(self, gate=None):
        self.batches, self.threads = [], set()
        self.gate = gate

    def __call__(self, rows):
        self.batches.append(rows)
        self.threads.add(threading.get_ident())
        if self.gate is not None:
            assert self.gate.wait(10)
        if "spoiled" in rows:
            raise ValueError("no number")
        return [2 * row for row in rows]


def run(test, model, **options):
    async def body():
        with ThreadPoolExecutor(1) as worker:
            batcher = Batcher(model, worker, **(OPTIONS | options))
            try:
                return await asyncio.wait_for(test(batcher), 20)
            finally:
                await batcher.close()

    return asyncio.run(body())


def ask(batcher, *rows, sizes=None):
    return asyncio.ensure_future(batcher(rows, sizes or [1] * len(rows)))


def test_requests_share_batches_and_get_their_own_answers():
    model = Model()

    async def test(batcher):
        return await asyncio.gather(ask(batcher, 1), ask(batcher, 2, 3), ask(batcher, 4, 5))

    assert run(test, model) == [[2], [4, 6], [8, 10]]
    assert model.batches == [[1, 2, 3, 4], [5]]  # four at once, and no request is kept whole
    assert len(model.threads) == 1


def test_a_lone_request_waits_no_longer_than_allowed_and_a_full_batch_not_at_all():
    async def seconds(batcher, *rows):
        start = time.monotonic()
        await ask(batcher, *rows)
        return time.monotonic() - start

    assert 0.3 <= run(lambda b: seconds(b, 1), Model(), wait=0.3) < 1
    assert run(lambda b: seconds(b, 1, 2, 3, 4), Model(), wait=10) < 1


def test_large_examples_go_in_smaller_batches():
    model = Model()

    async def test(batcher):
        return await ask(batcher, 1, 2, 3, 4, sizes=[60, 40, 1, 500])

    assert run(test, model) == [2, 4, 6, 8]
    assert model.batches == [[1, 2], [3], [4]]


def test_beyond_the_queue_clients_are_told_when_to_come_again():
    gate = threading.Event()

    async def test(batcher):
        batcher._seconds = 4.2  # of earlier batches
        first = ask(batcher, 1, 2, 3, 4)
        await asyncio.sleep(0.1)  # is under way
        second = ask(batcher, 5, 6, 7, 8, 9)
        await asyncio.sleep(0)
        with pytest.raises(Busy) as caught:
            await ask(batcher, 10, 11)
        third = ask(batcher, 10)
        gate.set()
        assert await asyncio.gather(first, second, third)
        return caught.value

    busy = run(test, Model(gate))
    assert busy.status == 503
    assert busy.headers == {"Retry-After": "10"}  # 5 of 4 are a batch and a quarter, and one more


def test_one_bad_example_spoils_no_other():
    async def test(batcher):
        asked = ask(batcher, 1), ask(batcher, "spoiled"), ask(batcher, 3)
        return await asyncio.gather(*asked, return_exceptions=True)

    first, second, third = run(test, Model())
    assert (first, third) == ([2], [6])
    assert isinstance(second, ValueError)


def test_what_was_given_up_is_not_computed():
    gate, model = threading.Event(), Model()
    model.gate = gate

    async def test(batcher):
        first = ask(batcher, 1, 2, 3, 4)
        await asyncio.sleep(0.1)
        left, kept = ask(batcher, 5), ask(batcher, 6)
        await asyncio.sleep(0)
        left.cancel()
        gate.set()
        return await asyncio.gather(first, kept)

    assert run(test, model) == [[2, 4, 6, 8], [12]]
    assert model.batches == [[1, 2, 3, 4], [6]]


def test_closing_finishes_what_waits_and_refuses_the_rest():
    async def test(batcher):
        asked = ask(batcher, 1)
        await asyncio.sleep(0)
        await batcher.close()
        with pytest.raises(Busy, match="stopping"):
            await ask(batcher, 2)
        return await asked

    assert run(test, Model(), wait=10) == [2]
