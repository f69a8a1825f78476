"""Ctrl-C and SIGTERM end a run at the next step, with its state saved; a second one ends it at
once.
"""

import os
import signal
import threading
from types import FrameType

from tfsft.errors import Stopped

HANDLED = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """Catches the signals that end a run while it is entered.

    `wait_for_step` is set while steps are trained: the signal is then only remembered in
    `received`, and whoever trains saves and raises `Stopped`. At any other time `Stopped` is raised
    where the program stands.
    """

    def __init__(self):
        self.received: int | None = None
        self.wait_for_step = False
        self.resume_command: str | None = None
        self._before: dict = {}

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
