"""One model behind all protocols: it loads, warms up, and answers examples in batches."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tfsft.export.serving.batching import Batcher
from tfsft.export.serving.monitoring import Counts
from tfsft.export.serving.problems import Busy, NotFound, TooLarge
from tfsft.export.serving.settings import Settings

DONE = object()
EXPLANATIONS = 8  # that wait; each takes seconds
EXPLAINED = {
    "image_classification",
    "text_classification",
    "token_classification",
    "question_answering",
    "chat",
}


class Service:
    """Answers what the protocols ask.

    The model is called in one thread alone, and examples are made ready in others.

    Args:
        run: Folder of a finished run.
        task: Its task.json.
        settings: Names and limits.
        counts: What is counted.

    `model` is there once it is `ready`; `failed` is why it never will be.
    """

    version = "1"

    def __init__(self, run: Path, task: Mapping[str, Any], settings: Settings, counts: Counts):
        self.run, self.task, self.settings, self.counts = run, task, settings, counts
        self.model: Any = None
        self.ready = False
        self.failed: BaseException | None = None
        self._worker = ThreadPoolExecutor(1, "model")
        self._explainer = ThreadPoolExecutor(1, "explainer")  # others do not wait for it
        self._explanations: Batcher | None = None
        self._readers = ThreadPoolExecutor(os.cpu_count() or 1, "reader")
        self._streams = 0

    async def start(self) -> None:
        """Loads the model and answers once, so that no client waits for that."""
        loop = asyncio.get_running_loop()
        try:
            self.model = await loop.run_in_executor(self._worker, self._load)
        except Exception as error:
            self.failed = error
            return
        limits = self.settings
        self._batcher = Batcher(
            self.model.run,
            self._worker,
            batch=limits.batch,
            size=4 * limits.max_text,
            wait=limits.wait,
            queue=limits.queue,
            observe=self.counts.batch,
        )
        self.counts.waiting.set_function(lambda: len(self._batcher))
        self.counts.ready.set(1)
        self.ready = True

    async def stop(self) -> None:
        """Finishes what is under way."""
        if self.ready:
            self.ready = False
            self.counts.ready.set(0)
            await self._batcher.close()
            if self._explanations is not None:
                await self._explanations.close()
        for pool in (self._readers, self._explainer, self._worker):
            await asyncio.to_thread(pool.shutdown)

    def known(self, name: str, version: str = version) -> None:
        """Raises a Problem unless this is the model."""
        if name != self.settings.name or version != self.version:
            raise NotFound(
                f"There is no model {name[:100]!r} of version {version[:20]}; this server has "
                f"{self.settings.name!r}, version {self.version}.",
                "model_not_found",
            )

    def check_ready(self) -> None:
        """Raises Busy while the model loads, and when the server stops."""
        if not self.ready:
            raise Busy("The model is not ready.", 2)

    async def predict(self, examples: Sequence[Mapping[str, Any]]) -> tuple[list, list[dict]]:
        """Returns examples as the model takes them, and what it says of each.

        Args:
            examples: A value for each input of the model.
        """
        self.check_ready()
        if len(examples) > self.settings.queue:
            raise TooLarge(f"{len(examples):,} examples; at most {self.settings.queue} at once.")
        rows = await self.prepared(lambda: [self.model.prepare(example) for example in examples])
        return rows, await self.answered(rows)

    async def prepared(self, prepare: Any, *given: Any) -> Any:
        """Makes something ready in a thread that may be busy for a while."""
        self.check_ready()
        return await asyncio.get_running_loop().run_in_executor(self._readers, prepare, *given)

    async def answered(self, rows: Sequence[Any]) -> list[dict]:
        """Returns what the model says of examples that are ready."""
        self.check_ready()
        try:
            async with asyncio.timeout(self.settings.timeout):
                return await self._batcher(rows, [self.model.size(row) for row in rows])
        except TimeoutError:
            raise Busy(f"There was no answer in {self.settings.timeout:g} seconds.", 5) from None

    async def explain(self, run: Callable[[Sequence[Any]], list], row: Any) -> Any:
        """Returns why the model answers an example as it does; one is explained at a time.

        Args:
            run: From examples to explanations; always the same.
            row: The example.
        """
        self.check_ready()
        if self._explanations is None:
            self._explanations = Batcher(
                run, self._explainer, batch=1, size=0, wait=0.0, queue=EXPLANATIONS
            )
        try:
            async with asyncio.timeout(self.settings.timeout):
                (found,) = await self._explanations([row], [0])
        except TimeoutError:
            raise Busy(
                f"There was no explanation in {self.settings.timeout:g} seconds.", 5
            ) from None
        return found

    async def stream(self, talk: Any) -> AsyncIterator[str]:
        """Yields an answer piece by piece; several take turns in the model's thread.

        It ends when its time is over.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + self.settings.timeout
        try:
            while loop.time() < until:
                piece = await loop.run_in_executor(self._worker, next, talk.pieces, DONE)
                if piece is DONE:
                    return
                if piece:
                    yield piece
        finally:
            self.counts.tokens.inc(len(talk.ids))
            # Behind a piece that may still be computed for a client who has gone.
            self._worker.submit(talk.pieces.close)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Holds one of the places of those who are answered piece by piece."""
        self.check_ready()
        if self._streams >= self.settings.streams:
            raise Busy(f"{self._streams} chats are being answered already.", 5)
        self._streams += 1
        self.counts.streams.set(self._streams)
        try:
            yield
        finally:
            self._streams -= 1
            self.counts.streams.set(self._streams)

    @property
    def explains(self) -> bool:
        """Whether its answers can be explained."""
        return self.task["task"] in EXPLAINED

    @property
    def talks(self) -> bool:
        """Whether it is an assistant, which answers conversations."""
        return self.task["task"] == "chat"

    def card(self) -> dict[str, Any]:
        """Returns the model as OpenAI's API describes one."""
        made = int((self.run / "task.json").stat().st_mtime)
        card = {"id": self.settings.name, "object": "model", "created": made}
        return card | {"owned_by": "tfsft"}

    def _load(self) -> Any:
        from tfsft.export.predictor import load_predictor
        from tfsft.export.serving.served_model import served_model

        model = served_model(load_predictor(self.run), self.settings)
        model.warm_up()
        return model
