"""Ctrl-C, SIGTERM and a file named STOP end a run at the next step, with its state saved; a second
signal ends it at once.
"""

import os
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import NoReturn

from tfsft.errors import Stopped

HANDLED = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """Catches what ends a run while it is entered.

    `wait_for_step` is set while steps are trained: a signal is then only remembered, and whoever
    trains looks at `asked`, saves and calls `stop`. At any other time `Stopped` is raised where the
    program stands.

    Args:
        stop_file: Ends the training once it is there; it is removed then.
    """

    def __init__(self, stop_file: Path | None = None):
        self.received: int | None = None
        self.stop_file = stop_file
        self.wait_for_step = False
        self.resume_command: str | None = None
        self._before: dict = {}

    @property
    def asked(self) -> bool:
        """Whether somebody wants the training to stop."""
        return self.received is not None or (self.stop_file is not None and self.stop_file.exists())

    def stop(self, number: int | None) -> NoReturn:
        """Ends the run.

        Args:
            number: The signal; of several workers it may have come to another one. None is for the
                stop file.
        """
        if number is None:
            self.stop_file.unlink(missing_ok=True)
        raise Stopped(number, self.resume_command)

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in HANDLED}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os.write(2, b"\nStopped at once; the last checkpoint is whole.\n")
            os._exit(128 + number)
        self.received = number
        if not self.wait_for_step:
            raise Stopped(number, self.resume_command)
        os.write(2, b"\nStopping after this step (once more to stop at once) ...\n")
