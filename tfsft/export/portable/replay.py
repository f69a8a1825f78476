"""python replay.py FOLDER BLOCKED...: answers examples in a process of its own.

FOLDER has `runtime.py` and `reading.py`; BLOCKED are packages that are not to be imported. Each
line of the standard input is an example, in JSON. An array follows for each on the standard output,
and at the end one whose bytes are JSON: what there is to know of the process.
"""

import io
import json
import os
import resource
import statistics
import sys
import time
from pathlib import Path

folder, *blocked = sys.argv[1:]
results = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)  # libraries may print what they like


class Blocked:
    """Lets nobody import what is not there on the machines that an export is for."""

    def find_spec(self, name, path=None, target=None):
        """Raises for these packages, and finds no other one."""
        if name.split(".")[0] in blocked:
            raise ImportError(f"{name} is not to be imported here")


sys.meta_path.insert(0, Blocked())
sys.path.insert(0, folder)

import numpy as np  # noqa: E402

before = time.perf_counter()
import runtime  # noqa: E402

loaded = time.perf_counter() - before
import reading  # noqa: E402

seconds = []


def run(inputs):
    """Runs the model and takes the time."""
    before = time.perf_counter()
    output = runtime.run(inputs)
    seconds.append(time.perf_counter() - before)
    return output


def send(array):
    """Writes an array, behind the number of its bytes."""
    file = io.BytesIO()
    np.save(file, array)
    results.write(file.tell().to_bytes(8, "little"))
    results.write(file.getbuffer())
    results.flush()


def most_memory():
    """Returns the most bytes that this process had."""
    status = Path("/proc/self/status")
    if status.exists():  # where the other figure begins with what the parent has
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1 if sys.platform == "darwin" else 1024)


for line in sys.stdin:
    send(reading.outputs(run, *json.loads(line), **reading.task))
about = {
    "seconds": statistics.median(seconds or [0.0]),
    "loaded": loaded,
    "memory": most_memory(),
    "runtime": runtime.name,
} | getattr(reading, "found", {})
send(np.frombuffer(json.dumps(about).encode(), np.uint8))
