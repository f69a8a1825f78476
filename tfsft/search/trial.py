"""One trial: a `tfsft run` in a process of its own, watched through the files that it leaves."""

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tfsft.errors import LOSS_BROKE, OUT_OF_MEMORY
from tfsft.evaluation.metrics import falls

TFSFT = (sys.executable, "-m", "tfsft")
LAST_LINES = 6


class TrialProcess:
    """Trains with the settings of one trial; begins, or goes on with what is in its folder.

    A process of its own gives back all memory, and can run out of it without ending the search.

    Args:
        folder: Of the run.
        words: Of the command `tfsft`, without those that name the folder.
        again: The words with which a run that has begun goes on.
        lock: A file descriptor that stays open as long as the process lives.
        program: What is run.
    """

    def __init__(
        self,
        folder: Path,
        words: Sequence[str],
        again: Sequence[str],
        lock: int,
        program: Sequence[str] = TFSFT,
    ):
        self.folder = folder
        if (folder / "config.json").is_file():
            words = [*again, "--resume", str(folder)]
        else:
            shutil.rmtree(folder, ignore_errors=True)  # of a process that died at its start
            words = [*words, "--run-dir", str(folder)]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  as long as the process
        self._process = subprocess.Popen(
            [*program, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            pass_fds=[lock],
            start_new_session=True,  # Ctrl-C reaches it through the search alone
        )

    @property
    def code(self) -> int | None:
        """The exit code, once it has ended."""
        return self._process.poll()

    @property
    def finished(self) -> bool:
        """Whether it was trained, saved and reported to its end."""
        return self.code == 0 and (self.folder / "report.html").is_file()

    def stop(self, at_once: bool = False) -> None:
        """Ends it: after a step with its state saved, or at once."""
        if self.code is None:
            self._process.send_signal(signal.SIGKILL if at_once else signal.SIGTERM)

    def wait(self) -> None:
        """Waits until it has ended."""
        self._process.wait()

    def rows(self) -> list[dict[str, str]]:
        """Returns the epochs up to now."""
        try:
            with open(self.folder / "history.csv", encoding="utf-8", newline="") as file:
                return list(csv.DictReader(file))
        except OSError:
            return []

    def monitored(self) -> str:
        """Returns the figure by which the run keeps its best epoch."""
        config = json.loads((self.folder / "config.json").read_text("utf-8"))
        return config["monitor"]

    def message(self) -> str:
        """Returns why it has failed: what it said on standard error, or what has ended it."""
        if self.code < 0:
            name = signal.Signals(-self.code).name
            memory = " (if nobody did, memory may have run out)" if name == "SIGKILL" else ""
            return f"It was killed by {name}{memory}."
        self._errors.seek(0)
        said = self._errors.read().decode("utf-8", "replace")
        said = said.rpartition("Error: ")[2].strip().splitlines()[:LAST_LINES]
        return "\n".join(said) or f"It ended with exit code {self.code}."

    @property
    def would_always_fail(self) -> bool:
        """Whether others would fail as it did: not by its own settings, but by data or weights."""
        return self.code > 0 and not self.message().startswith((OUT_OF_MEMORY, LOSS_BROKE))

    @staticmethod
    def drop_checkpoints(folder: Path) -> None:
        """Removes what is large and needed only to go on with a run."""
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def kept_row(rows: Sequence[Mapping[str, str]], monitor: str) -> Mapping[str, str]:
    """Returns the epoch whose weights a finished run has kept: the best of its last phase."""
    last = [row for row in rows if row["phase"] == rows[-1]["phase"]]
    judged = [row for row in last if math.isfinite(float(row.get(monitor) or "nan"))]
    if not judged:
        return last[-1]
    best = min if falls(monitor) else max
    return best(judged, key=lambda row: float(row[monitor]))


def hold(path: Path) -> int | None:
    """Opens a file that one search may hold at a time; returns its descriptor, None if another one
    has it.

    Processes that inherit the descriptor hold it as well: also a trial that has outlived its
    search.
    """
    import fcntl

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
