"""Silences what TensorFlow prints while it starts, and nothing else."""

import logging
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",  # the C++ log, once it has been set up
    "GRPC_VERBOSITY": "ERROR",
}

# The loaders of TensorFlow's libraries log before the level above is read: their information and
# warning lines, and the CUDA factories that are registered twice.
_NOISE = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog"
    rb"|[IW]\d{4} \d\d:\d\d:|E\d{4} .*(Unable to register cu|failed call to cuInit)"
    rb"|To enable the following instructions:"
)


@contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Keeps TensorFlow's start-up noise off the screen while the block imports it.

    The noise is written to file descriptor 2 by static initialisers in C++, which no setting
    reaches. So descriptor 2 is a pipe meanwhile, read by a forked process, which passes on every
    line that is not noise: also the last words of an import that kills this process.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if "tensorflow" in sys.modules or not hasattr(os, "fork"):
        yield
        return

    sys.stderr.flush()
    stderr = os.dup(2)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        _pass_on(reading, stderr)
    os.close(reading)
    os.dup2(writing, 2)
    os.close(writing)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(stderr, 2)  # closes the pipe, so that the other process ends
        os.close(stderr)
        os.waitpid(child, 0)
        for name in ("tensorflow", "absl"):  # advice about retracing and the like
            logging.getLogger(name).setLevel(logging.ERROR)


def _pass_on(reading: int, stderr: int) -> None:
    """Copies the lines that are not noise, until the pipe is closed; never returns."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to both processes
        with open(reading, "rb", buffering=0) as lines:
            for line in lines:
                if not _NOISE.match(line):
                    os.write(stderr, line)
    finally:
        os._exit(0)
