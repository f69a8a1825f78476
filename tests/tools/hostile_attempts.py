"""Runs many commands of tfsft in one process, and says of each how it ended and what it took.

    python attempts.py < attempts.json > results.json

An attempt is {"name": ..., "words": [...]}: what is typed after `tfsft`; or {"name": ..., "python":
"..."}: a line that shows that the harm can be done where nothing prevents it.
"""

import contextlib
import io
import json
import sys
import traceback
from pathlib import Path


def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) >> 10


def attempt(words=None, python=None, **_):
    from tfsft.cli import main

    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = memory("VmRSS")
    out, err, code = io.StringIO(), io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            if words:
                code = main(words)
            else:
                print(eval(python, {"__builtins__": __builtins__}))
        except BaseException:
            traceback.print_exc()
    grown = memory("VmHWM") - before
    return {"code": code, "out": out.getvalue(), "err": err.getvalue(), "megabytes": grown}


if __name__ == "__main__":
    print(json.dumps({one["name"]: attempt(**one) for one in json.load(sys.stdin)}))
