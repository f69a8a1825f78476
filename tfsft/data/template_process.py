"""A process of its own in which chat templates are rendered: a template comes with a model, is a
program, and could loop for ever or fill the memory.
"""

import atexit
import json
import os
import select
import subprocess
import sys
import threading
import time
from typing import Any

MOST_SECONDS = 10  # for one rendering; usual are milliseconds
MOST_MEMORY = 192 << 20  # of the process, in bytes
MOST_RENDERED = 1_000_000  # letters

# What the process runs: one request a line, one answer a line. A template cannot leave jinja2's
# sandbox; if it did, it could write no file.
_PROGRAM = """
import datetime, json, resource, sys
import jinja2, jinja2.ext, jinja2.sandbox

memory, letters = map(int, sys.argv[1:])
for kind, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, 0)):
    try:
        resource.setrlimit(kind, (most, most))
    except (OSError, ValueError):  # macOS has no such limit
        pass

def refuse(message):
    raise jinja2.TemplateError(message)

def to_json(value, indent=None):
    return json.dumps(value, ensure_ascii=False, indent=indent)

environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
)
environment.filters["tojson"] = to_json
environment.globals["raise_exception"] = refuse
environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
templates = {}

def answer(source, values):
    try:
        if source not in templates:
            templates.clear()
            templates[source] = environment.from_string(source)
    except Exception as error:
        return {"wrong": str(error) or type(error).__name__}
    try:
        text = "" if values is None else templates[source].render(**values)
    except Exception as error:
        return {"refused": str(error) or type(error).__name__}
    return {"text": text} if len(text) <= letters else {"long": len(text)}

for line in sys.stdin:
    try:
        said = json.dumps(answer(*json.loads(line)))
    except (MemoryError, RecursionError):
        said = json.dumps({"refused": "it takes too much memory"})
    print(said, flush=True)
"""


class TemplateFault(Exception):
    """A template that cannot be used.

    Args:
        kind: `wrong` if it is no template, `refused` if it does not take the conversation, `long`
            if it writes too much.
        reason: Why.
    """

    def __init__(self, kind: str, reason: str):
        self.kind = kind
        super().__init__(reason)


def render(source: str, values: dict[str, Any] | None) -> str:
    """Renders a Jinja template where it can do no harm.

    Args:
        source: The template.
        values: Its variables, as JSON has them; None to see whether it is a template at all.

    Raises:
        TemplateFault: It is none, fails, or takes too much time or memory.
    """
    found = _process.ask([source, values])
    (kind, said), *_ = found.items()
    if kind != "text":
        raise TemplateFault(kind, f"{said:,}" if isinstance(said, int) else said)
    return said


class _Process:
    """Starts when it is needed, and again when it had to be ended."""

    def __init__(self):
        self._lock = threading.Lock()
        self._running: subprocess.Popen | None = None
        self._owner = 0

    def ask(self, request: list) -> dict[str, Any]:
        with self._lock:
            if self._owner != os.getpid():  # after a fork the process belongs to the parent
                self._running, self._owner = None, os.getpid()
            if self._running is None or self._running.poll() is not None:
                self._running = self._start()
            try:
                self._running.stdin.write(json.dumps(request).encode() + b"\n")
                self._running.stdin.flush()
                line = self._read_line(time.monotonic() + MOST_SECONDS)
                return json.loads(line)
            except TimeoutError:
                self.end()
                return {"refused": f"it takes more than {MOST_SECONDS} seconds"}
            except (OSError, ValueError):
                self.end()
                return {"refused": "it takes too much memory"}

    def _start(self) -> subprocess.Popen:
        limits = [str(MOST_MEMORY), str(MOST_RENDERED)]
        # -P: no module of the folder where one happens to be.
        command = [sys.executable, "-P", "-c", _PROGRAM, *limits]
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def _read_line(self, until: float) -> bytes:
        pipe, data = self._running.stdout.fileno(), b""
        while not data.endswith(b"\n"):
            left = until - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                raise TimeoutError
            part = os.read(pipe, 1 << 16)
            if not part:
                raise ValueError("it has ended")
            data += part
        return data

    def end(self) -> None:
        if self._running is not None and self._owner == os.getpid():
            self._running.kill()
            self._running.wait()
        self._running = None


_process = _Process()
atexit.register(_process.end)
