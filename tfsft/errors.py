"""What a user did wrong, said in three parts: what came, what was expected, how to fix it."""

import difflib
import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

# How messages begin about what went wrong by the settings of one run, and not by its data.
OUT_OF_MEMORY = "Out of memory"
LOSS_BROKE = "The loss became"


class UserError(Exception):
    """A mistake that a person can mend; the command line shows it as one message, without a
    traceback.

    Args:
        came: What was found, with its name or value.
        expected: What would have worked.
        fix: What to do now; a command or an option where there is one.
    """

    exit_code = 1  # data, weights or training

    def __init__(self, came: str, expected: str = "", fix: str = ""):
        self.came, self.expected, self.fix = came, expected, fix
        super().__init__("\n".join(part for part in (came, expected, fix) if part))


class UsageError(UserError):
    """A wrong option, value or run folder, found before any data or weights are read."""

    exit_code = 2


class WorkerLost(UserError):
    """Another process that trains with this one has ended or no longer answers."""

    exit_code = 75  # "try again": nothing is wrong with this process


class Forgotten(UserError):
    """A model that goes on from another one does worse on what that one had learned."""

    exit_code = 3


class Stopped(BaseException):
    """Training was stopped from outside (Ctrl-C, SIGTERM, a file STOP) after its state was saved.

    Args:
        signal_number: The signal that arrived; the exit code is 128 plus it, as shells expect. None
            for the file, and the exit code 0.
        resume_command: What a person types to go on, or None when nothing was saved yet.
    """

    def __init__(self, signal_number: int | None, resume_command: str | None = None):
        self.exit_code = 128 + signal_number if signal_number else 0
        self.resume_command = resume_command
        super().__init__(
            f"stopped by signal {signal_number}" if signal_number else "stopped by the file STOP"
        )


def nearest(word: str, choices: Iterable[str]) -> str:
    """Returns ` Did you mean 'x'?` for the choice most like `word`, or an empty string."""
    matches = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f" Did you mean '{matches[0]}'?" if matches else ""


def disk_is_full(error: BaseException | None) -> bool:
    """Returns whether an error says that there is no space left."""
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return True
    # TensorFlow and HDF5 keep the system's words but not its number.
    return any(text in str(error) for text in ("No space left on device", "Disk quota exceeded"))


@contextmanager
def going_on_with_a_full_disk() -> Iterator[None]:
    """Leaves out what has no space, where the rest can do without it."""
    try:
        yield
    except Exception as error:
        if not disk_is_full(error):
            raise
