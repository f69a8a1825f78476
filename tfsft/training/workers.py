"""The processes that train one model together: what they agree on, and when one is lost."""

import contextlib
import json
import os
import re
import shutil
import socket
import tempfile
import threading
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfsft.errors import UserError, WorkerLost
from tfsft.training.strategy import is_multiworker

TASK = re.compile(r"/job:worker/replica:\d+/task:(\d+)")


class Workers:
    """All processes of a run, of which this is one; mostly the only one.

    Args:
        strategy: Of the run.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        self.strategy = strategy
        self.addresses: Sequence[str] = ("",)
        self.index = 0
        if is_multiworker(strategy):
            resolver = strategy.cluster_resolver
            self.addresses = resolver.cluster_spec().job_tasks("worker")
            self.index = resolver.task_id
            self._watch = _Watch(self)
            self._watch.start()

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.addresses)

    @property
    def is_chief(self) -> bool:
        """Whether this one writes what the run leaves."""
        return self.index == 0

    def tell(self, value: int) -> list[int]:
        """Returns what each worker says, once all have said it: at the same place of the program.

        Args:
            value: From 0 to 2**24.

        Raises:
            WorkerLost: One of them cannot say it any more.
        """
        if self.count == 1:
            return [value]
        mine = tf.one_hot(self.index, self.count, float(value))
        try:
            return [int(said) for said in self._sum(mine).numpy()]
        except tf.errors.OpError as error:
            lost = self.explain_lost(error)
            if lost is None:
                raise
            raise lost from error

    def agree(self, value: int) -> int:
        """Returns the largest of what the workers say."""
        return max(self.tell(value))

    def check_same(self, facts: Mapping[str, Any], what: str) -> None:
        """Waits for all workers, and refuses to go on where plain data differs among them.

        Args:
            facts: Of this worker.
            what: What they are about, for the message.
        """
        if len(set(self.tell(zlib.crc32(json.dumps(facts).encode()) >> 8))) > 1:
            raise UserError(
                f"The {self.count} workers do not see the same {what}.",
                "All of them need the same options, data and run folder.",
                "Start them with the same command, on a disk that all machines share.",
            )

    def leave(self) -> None:
        """Waits until all are done; from here on, one that has gone is not missed."""
        if self.count > 1:
            self.agree(0)
            self._watch.over.set()
            with contextlib.suppress(WorkerLost):  # leaves time for the first to arrive
                self.agree(0)

    def lost(self, tasks: Sequence[int]) -> WorkerLost:
        """Returns what a person should read when some workers cannot be reached any more."""
        names = [f"Worker {task} ({self.addresses[task]})" for task in tasks]
        return WorkerLost(
            f"{' and '.join(names) or 'Another worker'} has ended or no longer answers, so worker "
            f"{self.index} of {self.count} ends too.",
            "What became of it is in its own output; training is possible only with all of them.",
            "Start all workers again with --resume RUN: they go on from the last checkpoint.",
        )

    def explain_lost(self, error: BaseException) -> WorkerLost | None:
        """Returns `lost` for the error of a sum that others can no longer take part in."""
        if self.count == 1 or not isinstance(error, tf.errors.OpError):
            return None
        if not re.search("Collective ops is aborted|heartbeat|Connection re", str(error)):
            return None
        return self.lost(sorted({int(t) for t in TASK.findall(str(error))} - {self.index}))

    @tf.function
    def _sum(self, values: tf.Tensor) -> tf.Tensor:
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)


class _Watch(threading.Thread):
    """Ends this process when another has gone while this one has no sum to wait for.

    In a sum TensorFlow notices by itself, and in a way that leaves time to say so.
    """

    EVERY = 10.0  # seconds
    PATIENCE = 15.0  # for the process to end by itself

    def __init__(self, workers: Workers):
        super().__init__(name="watch", daemon=True)
        self.workers = workers
        self.over = threading.Event()

    def run(self) -> None:
        missed = [0] * self.workers.count
        while not self.over.wait(self.EVERY):
            for task, address in enumerate(self.workers.addresses):
                if task != self.workers.index:
                    missed[task] = 0 if _listens(address, self.EVERY) else missed[task] + 1
            lost = [task for task, times in enumerate(missed) if times > 1]
            if lost and not self.over.wait(self.PATIENCE):
                message = f"Error: {self.workers.lost(lost)}\n"
                os.write(2, message.encode())
                os._exit(WorkerLost.exit_code)


def _listens(address: str, seconds: float) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), seconds).close()
    except OSError:
        return False
    return True


def private_folder(run_dir: Path, resuming: bool) -> tempfile.TemporaryDirectory:
    """Returns a folder for a worker that is not the chief, whose files nobody wants.

    Args:
        run_dir: The chief's.
        resuming: Puts there what is read of a run that goes on.
    """
    folder = tempfile.TemporaryDirectory(prefix="tfsft-worker-")
    if resuming:
        for name in ("config.json", "task.json", "recipe.py"):
            if (run_dir / name).is_file():
                shutil.copyfile(run_dir / name, Path(folder.name, name))
        Path(folder.name, "checkpoints").symlink_to((run_dir / "checkpoints").absolute())
    return folder
