"""Workers that Ray Train places on the machines of a Ray cluster, watches and starts again."""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tfsft.cli.remote_folder import RemoteFolder, is_url
from tfsft.cli.tensorflow_start import starting_tensorflow
from tfsft.errors import Stopped, UsageError, UserError, WorkerLost


def run_on_ray(
    words: Sequence[str],
    folder: str,
    workers: int,
    max_restarts: int,
    environment: Mapping[str, str],
    again: str,
) -> None:
    """Runs `tfsft WORDS` in several workers to its end.

    Args:
        words: The same for all workers, and after a failure again: with --run-dir and --go-on.
        folder: The run folder, a path that all machines see or a URL.
        workers: How many.
        max_restarts: How often all start again after a failure.
        environment: What the workers find in theirs besides.
        again: What a person types to go on.

    Raises:
        UserError: A worker failed once too often.
        UsageError: Ray is not installed, or its cluster too small.
        Stopped: Ctrl-C.
    """
    ray, train, tensorflow_trainer = _import_ray()
    ray.init(ignore_reinit_error=True)
    try:
        each = share([node["Resources"] for node in ray.nodes() if node["Alive"]], workers)
        with _notes_of_ray(folder) as place:
            trainer = tensorflow_trainer(
                _work,
                train_loop_config={
                    "words": list(words),
                    "folder": os.getcwd(),
                    "environment": dict(environment),
                },
                scaling_config=train.ScalingConfig(
                    num_workers=workers,
                    use_gpu="GPU" in each,
                    resources_per_worker=each,
                    placement_strategy="SPREAD",
                ),
                run_config=train.RunConfig(
                    **place, failure_config=train.FailureConfig(max_failures=max_restarts)
                ),
            )
            trainer.fit()
    except train.TrainingFailedError as error:
        failures = getattr(error, "worker_failures", {})
        raise UserError(
            _first_cause(failures) if failures else f"Ray Train: {error}",
            f"All were started {max_restarts + 1} times." if max_restarts else "",
            f"To go on from the last checkpoint: {again}",
        ) from error
    except SystemExit as error:  # how Ray answers to Ctrl-C
        raise Stopped(signal.SIGINT, again) from error
    finally:
        ray.shutdown()


def share(nodes: Sequence[Mapping[str, float]], workers: int) -> dict[str, int]:
    """Returns the most GPUs, or else CPUs, that each worker can have on one of the nodes.

    Args:
        nodes: What each node has, as in `{"CPU": 8.0, "GPU": 2.0}`.
        workers: How many share it.

    Raises:
        UsageError: There is not even a CPU for each.
    """
    gpus = _most([int(node.get("GPU", 0)) for node in nodes], workers)
    if gpus:
        used = [node for node in nodes if node.get("GPU", 0) >= gpus]
        cpus = min(node.get("CPU", 0) // (node["GPU"] // gpus) for node in used)
        return {"GPU": gpus, "CPU": max(1, int(cpus))}
    cpus = _most([int(node.get("CPU", 0)) for node in nodes], workers)
    if not cpus:
        total = int(sum(node.get("CPU", 0) for node in nodes))
        raise UsageError(
            f"The Ray cluster has {total} CPUs for {workers} workers.",
            "Each worker needs one at least.",
            "Use fewer --workers, or a larger cluster.",
        )
    return {"CPU": cpus}


def _most(have: Sequence[int], workers: int) -> int:
    """The largest portion that can be cut out of the nodes as often as there are workers."""
    portions = range(1, max(have, default=0) + 1)
    return max((n for n in portions if sum(h // n for h in have) >= workers), default=0)


def _import_ray() -> tuple[Any, Any, Any]:
    try:
        with starting_tensorflow():
            import ray
            from ray import train
            from ray.train.tensorflow import TensorflowTrainer
    except ImportError as error:
        raise UsageError(
            f"--engine ray: {error}.",
            "It needs Ray Train on this and on all machines of the cluster.",
            'pip install "tfsft[ray]"',
        ) from error
    return ray, train, TensorflowTrainer


@contextlib.contextmanager
def _notes_of_ray(folder: str) -> Iterator[dict[str, Any]]:
    """Gives Ray a place for what it writes down itself: beside the run folder, until the end."""
    parent, _, name = folder.rstrip("/").rpartition("/")
    name = f".ray-{name}"
    if not is_url(folder):
        beside = Path(parent or ".").absolute()
        try:
            yield {"storage_path": str(beside), "name": name}
        finally:
            shutil.rmtree(beside / name, ignore_errors=True)
        return
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    remote = RemoteFolder(parent)
    files = PyFileSystem(FSSpecHandler(remote.files))
    try:
        yield {"storage_path": remote.root, "storage_filesystem": files, "name": name}
    finally:
        with contextlib.suppress(FileNotFoundError):
            remote.files.rm(f"{remote.root}/{name}", recursive=True)


def _work(call: dict[str, Any]) -> None:
    """Runs the command in one worker, in a process of its own.

    For in the worker itself TensorFlow is imported already, with the legacy Keras that Ray asks
    for, and this function runs in a thread, which no signal reaches.
    """
    from ray import train

    context = train.get_context()
    rank, count = context.get_world_rank(), context.get_world_size()
    environment = {"TF_NUM_INTRAOP_THREADS": os.environ.get("OMP_NUM_THREADS", "0")}
    environment |= os.environ | call["environment"]
    environment.pop("TF_USE_LEGACY_KERAS", None)
    process = subprocess.Popen(
        [sys.executable, "-m", "tfsft", *call["words"]],
        cwd=call["folder"],
        env=environment,
        stdin=subprocess.DEVNULL,
        preexec_fn=_end_with_parent,
    )
    code = process.wait()
    if code == 0:
        return
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    where = f"process {process.pid} on {socket.gethostname()}"
    raise RuntimeError(f"Worker {rank} of {count} ({where}) {how}.")


def _end_with_parent() -> None:
    """Has the kernel kill this process when Ray kills its worker, which could not do it."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _first_cause(failures: Mapping[int, Exception]) -> str:
    """What became of the worker that the others did not just end because of."""
    lost = f"code {WorkerLost.exit_code}."
    rank = min(failures, key=lambda rank: (lost in str(failures[rank]), rank))
    message = str(failures[rank]).strip().partition("\n")[0]
    return message if isinstance(failures[rank], RuntimeError) else f"Worker {rank}: {message}"
