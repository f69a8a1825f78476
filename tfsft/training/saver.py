"""Writes checkpoints beside the training: steps go on while one is written."""

import threading
from collections.abc import Callable
from typing import Any

from tfsft.errors import UserError, disk_is_full


class Saver:
    """One write at a time, in a thread of its own.

    There is no queue: while one is written, the next is not due yet. So memory holds one copy of
    the state at the most, and a slow disk makes checkpoints rarer instead of holding up training.
    What must be on the disk is waited for.

    Args:
        write: Writes a checkpoint: `Checkpoints.save`.
        say: Called with a sentence when the disk is full.
        saved: Called once a checkpoint is whole, in the thread that writes.
    """

    def __init__(
        self, write: Callable[..., Any], say: Callable[[str], None], saved: Callable[[], None]
    ):
        self._write = write
        self._say = say
        self._saved = saved
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._full = False  # and has been said

    @property
    def ready(self) -> bool:
        """Whether no write is going on."""
        return self._thread is None or not self._thread.is_alive()

    def start(self, *args: Any) -> None:
        """Begins to write, after the write before has ended.

        Args:
            *args: For `write`; nobody may change them any more.
        """
        self.wait()
        self._thread = threading.Thread(target=self._run, args=args, name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Returns when all is on the disk, or the disk is known to be full.

        Raises:
            UserError: The checkpoint could not be written for another reason.
        """
        if self._thread is None:
            return
        self._thread.join()
        self._thread, error, self._error = None, self._error, None
        was_full, self._full = self._full, disk_is_full(error)
        if error is None or (was_full and self._full):
            return
        if self._full:
            self._say(
                "No space is left to write a checkpoint. Earlier ones are untouched and training "
                "goes on; free some space and the next one will be written."
            )
            return
        if isinstance(error, OSError):
            raise UserError(
                f"A checkpoint could not be written: {error}.",
                "The run folder must stay writable; earlier checkpoints are untouched.",
                "Mend the disk or the folder, and go on with --resume.",
            ) from error
        raise error

    def _run(self, *args: Any) -> None:
        try:
            self._write(*args)
            self._saved()
        except BaseException as error:  # raised again where somebody waits
            self._error = error
