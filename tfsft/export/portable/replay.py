"""python replay.py JOB: answers examples in a process of its own, without what is blocked."""

import json
import resource
import sys
import time
from pathlib import Path

job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))


class Blocked:
    """Lets nobody import what is not there on the machines that an export is for."""

    def find_spec(self, name, path=None, target=None):
        """Raises for these packages, and finds no other one."""
        if name.split(".")[0] in job["blocked"]:
            raise ImportError(f"{name} is not to be imported here")


sys.meta_path.insert(0, Blocked())
sys.path.insert(0, job["folder"])

import numpy as np  # noqa: E402

before = time.perf_counter()
import runtime  # noqa: E402

loaded = time.perf_counter() - before
from reading import outputs, task  # noqa: E402

seconds = []


def run(inputs):
    """Runs the model and takes the time."""
    before = time.perf_counter()
    output = runtime.run(inputs)
    seconds.append(time.perf_counter() - before)
    return output


found = [outputs(run, *example, **task) for example in job["examples"]]


def most_memory():
    """Returns the most bytes that this process had."""
    status = Path("/proc/self/status")
    if status.exists():  # where the other figure begins with what the parent has
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1 if sys.platform == "darwin" else 1024)


np.savez(
    job["out"],
    seconds=np.array(seconds),
    loaded=loaded,
    memory=most_memory(),
    **{f"output{place}": output for place, output in enumerate(found)},
)
