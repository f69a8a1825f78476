"""Importing TensorFlow: with the right Keras backend, and without its start-up noise."""

import gc
import logging
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tfsft.errors import UsageError

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
def starting_tensorflow(debug: bool = False) -> Iterator[None]:
    """Makes ready for a block that imports TensorFlow and Keras, without their start-up noise.

    Args:
        debug: Leaves the noise on the screen.

    Raises:
        UsageError: KERAS_BACKEND names another backend.
    """
    backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        raise UsageError(
            f"KERAS_BACKEND is {backend}.",
            "tfsft trains with Keras on TensorFlow.",
            "Unset KERAS_BACKEND, or set it to tensorflow.",
        )
    with _without_collecting():
        if debug:
            yield
            return
        with _without_noise():
            yield
    for name in ("tensorflow", "absl"):  # advice about retracing and the like
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def _without_collecting() -> Iterator[None]:
    """Looks for no free objects while modules are imported, and never again among what they made:
    a quarter of the time of these imports.
    """
    if "tensorflow" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def _without_noise() -> Iterator[None]:
    """Keeps the noise off the screen.

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
