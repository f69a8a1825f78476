"""What a person sees while a run works: sentences, progress bars, and the same in log.txt."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tfsft.evaluation.wording import duration

LINE_SECONDS = 60.0  # between two lines about the same work, where no bar can be drawn


class Console:
    """Says things on screen and in a log; draws bars on a terminal and plain lines elsewhere.

    Args:
        log: File that gets every sentence with its time; None keeps no log.
        stream: Where sentences go, by default standard output.
        quiet: Says nothing on screen.
    """

    def __init__(
        self, log: Path | None = None, stream: TextIO | None = None, *, quiet: bool = False
    ):
        self.log = log
        self._rich = RichConsole(
            file=stream or sys.stdout, highlight=False, soft_wrap=True, quiet=quiet
        )

    @property
    def is_terminal(self) -> bool:
        """Whether someone watches, so that lines may be redrawn."""
        return self._rich.is_terminal and not self._rich.quiet

    def say(self, message: str) -> None:
        """Prints a sentence and logs it."""
        self._rich.print(message, markup=False)
        self.note(message)

    def note(self, message: str) -> None:
        """Writes a sentence to the log alone; a log that cannot be written ends no training."""
        if self.log is not None:
            with suppress(OSError), open(self.log, "a", encoding="utf-8") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {message}\n")

    @contextmanager
    def bar(self, title: str, unit: str = "") -> Iterator[Callable[..., None]]:
        """Yields `update(done, total, text="")`: a bar with time left on a terminal, a line each
        minute elsewhere. `text` may be a function, called when it is shown.
        """
        if not self.is_terminal:
            yield self._lines(title, unit)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn(f"{unit} {{task.fields[text]}}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        )
        with Progress(*columns, console=self._rich, transient=True) as progress:
            task = progress.add_task(title, total=None, text="")

            def update(done: int, total: int, text: str | Callable[[], str] = "") -> None:
                text = text() if callable(text) else text
                progress.update(task, completed=done, total=total, text=text)

            yield update

    def _lines(self, title: str, unit: str) -> Callable[..., None]:
        start, first, said = time.monotonic(), None, time.monotonic()

        def update(done: int, total: int, text: str | Callable[[], str] = "") -> None:
            nonlocal first, said
            now = time.monotonic()
            if first is None:  # what was done before this work began does not count for its speed
                first = max(done - 1, 0)
            if now - said < LINE_SECONDS or done >= total:
                return
            said = now
            text = text() if callable(text) else text
            left = duration((now - start) / (done - first) * (total - done))
            self.say(f"{title}: {done} of {total} {unit} {text or '·'} {left} left")

        return update

    def reporter(self, title: str, unit: str = "") -> Callable[[int, int], None]:
        """Returns `progress(done, total)` that opens a bar at the first call and closes it at the
        last.

        Elsewhere than on a terminal it says a line at the start, each minute, and at the end.
        """
        return self._reporter(title, unit, lines=True)

    def quiet_reporter(self, title: str, unit: str = "") -> Callable[[int, int], None]:
        """Returns `progress(done, total)` that draws a bar on a terminal, and elsewhere says a line
        when it takes minutes.
        """
        return self._reporter(title, unit, lines=False)

    def _reporter(self, title: str, unit: str, lines: bool) -> Callable[[int, int], None]:
        state = {}

        def progress(done: int, total: int) -> None:
            if "update" not in state:
                state["context"] = self.bar(title, unit)
                state["update"] = state["context"].__enter__()
                state["start"] = time.monotonic()
                if lines and not self.is_terminal:
                    self.say(f"{title} ({total} {unit}) ...")
            state["update"](done, total)
            if done >= total:
                state["context"].__exit__(None, None, None)
                if lines:
                    took = duration(time.monotonic() - state["start"])
                    self.say(f"{title}: {total} {unit} in {took}")
                state.clear()

        return progress
