"""Several processes of one machine that train together: started, watched and ended as one."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import click

from tfsft.errors import UsageError, WorkerLost

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LAST_LINES = 15
GRACE = 10.0  # seconds in which the others may say what they have to say


class LocalWorkers:
    """Starts the same command in several processes, and ends all when one of them dies.

    The first worker has the screen; what the others say goes to worker-N.log in the run folder.

    Args:
        count: How many.
        folder: Of the run.
        program: What each of them runs.
    """

    def __init__(
        self, count: int, folder: Path, program: Sequence[str] = (sys.executable, "-m", "tfsft")
    ):
        self.count = count
        self.folder = folder
        self.program = program
        self.may_not_restart = False  # it was stopped, or the mistake would come again
        self._gpus = _share(_gpus(), count)
        self._processes: list[subprocess.Popen] = []
        self._stopped_by: int | None = None

    def run(self, words: Sequence[str]) -> int:
        """Runs the program with these words in every worker, and returns the exit code."""
        before = {number: signal.signal(number, self._pass_on) for number in PASSED_ON}
        with tempfile.TemporaryDirectory(prefix="tfsft-workers-") as logs:
            try:
                self._start(words, Path(logs))
                return self._conclude(self._watch(), Path(logs))
            finally:
                self._end()
                self._keep(Path(logs))
                for number, handler in before.items():
                    signal.signal(number, handler)

    def _start(self, words: Sequence[str], logs: Path) -> None:
        addresses = [f"localhost:{port}" for port in _free_ports(self.count)]
        threads = str(max(1, len(os.sched_getaffinity(0)) // self.count))
        self._processes = []
        for index in range(self.count):
            task = {"type": "worker", "index": index}
            config = json.dumps({"cluster": {"worker": addresses}, "task": task})
            environment = {"OMP_NUM_THREADS": threads, "TF_NUM_INTRAOP_THREADS": threads}
            environment |= os.environ | {"TF_CONFIG": config}
            if self._gpus:
                environment["CUDA_VISIBLE_DEVICES"] = ",".join(self._gpus[index])
            with open(_log(logs, index), "wb") if index else contextlib.nullcontext() as log:
                process = subprocess.Popen(
                    [*self.program, *words],
                    env=environment,
                    stdin=subprocess.DEVNULL if index else None,
                    stdout=log,
                    stderr=subprocess.STDOUT if index else None,
                    start_new_session=True,  # Ctrl-C reaches them once: through this process
                )
            self._processes.append(process)

    def _watch(self) -> bool:
        """Waits until all have ended well, or one has not; returns whether all have."""
        while any(code is None for code in self._codes()):
            if any(self._codes()):
                return False
            time.sleep(0.1)
        return not any(self._codes())

    def _codes(self) -> list[int | None]:
        return [process.poll() for process in self._processes]

    def _conclude(self, well: bool, logs: Path) -> int:
        if well:
            return 0
        if self._stopped_by is not None:
            self._wait(float("inf"))
            self.may_not_restart = True
            return _as_shells_do(self._codes()[0])
        if min(code or 0 for code in self._codes()) >= 0:
            self._wait(GRACE)  # one has said why; others may be about to say the same
        codes = self._codes()
        # What a signal ended comes first, what ended because of another comes last.
        ended = [index for index, code in enumerate(codes) if code]
        failed = min(ended, key=lambda index: (codes[index] == WorkerLost.exit_code, codes[index]))
        code = codes[failed]
        chief_said = codes[0] if codes[0] not in (None, WorkerLost.exit_code) else None
        stopped = [128 + number for number in PASSED_ON]  # by a signal to one of them
        self.may_not_restart = code in (UsageError.exit_code, *stopped)
        self._end()
        if code < 0 or not (chief_said or failed == 0):
            click.echo(f"Error: {self._describe(failed, code)}", err=True)
            lines = _last_lines(_log(logs, failed)) if failed else []
            if lines:
                click.echo("The last it said:\n" + "\n".join(f"    {x}" for x in lines), err=True)
        return _as_shells_do(code)

    def _describe(self, index: int, code: int) -> str:
        role = "The chief" if index == 0 else f"Worker {index}"
        pid = self._processes[index].pid
        if code < 0:
            name = signal.Signals(-code).name
            memory = " (if nobody did, memory may have run out)" if -code == signal.SIGKILL else ""
            how = f"was killed by {name}{memory}"
        else:
            how = f"ended with exit code {code}"
        return f"{role} of {self.count} (process {pid}) {how}, so all were ended."

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self._stopped_by = number
        number = signal.SIGTERM if number == signal.SIGHUP else number
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(number)

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and any(p.poll() is None for p in self._processes):
            time.sleep(0.1)

    def _end(self) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()

    def _keep(self, logs: Path) -> None:
        """Puts what workers said into the run folder, if there is one by now."""
        for index in range(1, self.count):
            log = _log(logs, index)
            if self.folder.is_dir() and log.exists() and log.stat().st_size:
                with open(log, "rb") as said, open(_log(self.folder, index), "ab") as kept:
                    shutil.copyfileobj(said, kept)


def _as_shells_do(code: int) -> int:
    return code if code >= 0 else 128 - code


def _log(folder: Path, index: int) -> Path:
    return folder / f"worker-{index}.log"


def _last_lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()[-LAST_LINES:]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as open_sockets:
        sockets = [open_sockets.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("localhost", 0))
        return [each.getsockname()[1] for each in sockets]


def _gpus() -> list[str]:
    """Returns the names of the GPUs that this process may use."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name for name in chosen.split(",") if name.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    found = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True)
    return [str(i) for i, line in enumerate(found.stdout.splitlines()) if line.startswith("GPU ")]


def _share(gpus: list[str], count: int) -> list[list[str]]:
    """Gives each worker as many GPUs, of its own; none where there is none."""
    if not gpus:
        return []
    if len(gpus) % count:
        raise UsageError(
            f"--workers {count} cannot share {len(gpus)} GPUs equally.",
            "Each worker trains on GPUs of its own, all on as many.",
            "Use another --workers, or choose GPUs by CUDA_VISIBLE_DEVICES (empty: the CPU).",
        )
    each = len(gpus) // count
    return [gpus[i * each : (i + 1) * each] for i in range(count)]
