"""Examples of several requests go through the model together, in one thread."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from tfsft.export.serving.problems import Busy


@dataclass
class _Entry:
    row: Any
    size: int
    answer: asyncio.Future


class Batcher:
    """Collects examples for a short time, and never more than there is room for.

    Args:
        run: From some rows to as many answers; called in `worker`.
        worker: A single thread.
        batch: Most rows at once.
        size: Most that the sizes of the rows of one batch may add up to, unless it is one row.
        wait: Seconds for which a row may wait for others.
        queue: Most rows that wait.
        observe: Called with the rows and the seconds of each batch.
    """

    def __init__(
        self,
        run: Callable[[list], list],
        worker: Executor,
        *,
        batch: int,
        size: int,
        wait: float,
        queue: int,
        observe: Callable[[int, float], None] = lambda rows, seconds: None,
    ):
        self._run, self._worker, self._observe = run, worker, observe
        self._batch, self._size, self._wait, self._queue = batch, size, wait, queue
        self._waiting: deque[_Entry] = deque()
        self._more = asyncio.Event()
        self._seconds = 0.0  # of a batch, a moving average
        self._open = True
        self._task = asyncio.get_running_loop().create_task(self._work())

    def __len__(self) -> int:
        return len(self._waiting)

    async def __call__(self, rows: Sequence[Any], sizes: Sequence[int]) -> list:
        """Returns an answer for each row of one request.

        Args:
            rows: Examples, ready for the model.
            sizes: How large each is.

        Raises:
            Busy: They find no room.
        """
        if not self._open or len(self._waiting) + len(rows) > self._queue:
            batches = 1 + len(self._waiting) / self._batch
            raise Busy(
                f"{len(self._waiting)} examples are waiting, and {self._queue} may."
                if self._open
                else "The server is stopping.",
                batches * self._seconds,
            )
        loop = asyncio.get_running_loop()
        entries = [
            _Entry(row, size, loop.create_future()) for row, size in zip(rows, sizes, strict=True)
        ]
        self._waiting.extend(entries)
        self._more.set()
        try:
            return await asyncio.gather(*(entry.answer for entry in entries))
        finally:
            for entry in entries:  # nobody asks any longer where one has failed or was given up
                entry.answer.cancel()

    async def close(self) -> None:
        """Answers what is waiting, and takes nothing more."""
        self._open = False
        self._more.set()
        await self._task

    async def _work(self) -> None:
        while self._waiting or self._open:
            if not self._waiting:
                self._more.clear()
                await self._more.wait()
                continue
            await self._gather()
            if entries := self._next():
                await self._answer(entries)

    async def _gather(self) -> None:
        """Waits for more rows as long as rows may wait."""
        until = time.monotonic() + self._wait
        while len(self._waiting) < self._batch and self._open:
            self._more.clear()
            try:
                await asyncio.wait_for(self._more.wait(), until - time.monotonic())
            except TimeoutError:
                return

    def _next(self) -> list[_Entry]:
        entries: list[_Entry] = []
        size = 0
        while self._waiting and len(entries) < self._batch:
            entry = self._waiting[0]
            if entry.answer.done():  # given up
                self._waiting.popleft()
                continue
            if entries and size + entry.size > self._size:
                break
            entries.append(self._waiting.popleft())
            size += entry.size
        return entries

    async def _answer(self, entries: list[_Entry]) -> None:
        start = time.monotonic()
        try:
            loop = asyncio.get_running_loop()
            rows = [entry.row for entry in entries]
            answers = await loop.run_in_executor(self._worker, self._run, rows)
        except Exception as error:
            if len(entries) > 1:  # one of them may have spoiled it for the others
                for entry in entries:
                    await self._answer([entry])
            elif not entries[0].answer.done():
                entries[0].answer.set_exception(error)
            return
        seconds = time.monotonic() - start
        self._observe(len(entries), seconds)
        self._seconds += (seconds - self._seconds) / (8 if self._seconds else 1)
        for entry, answer in zip(entries, answers, strict=True):
            if not entry.answer.done():
                entry.answer.set_result(answer)
