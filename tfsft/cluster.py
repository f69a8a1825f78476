"""The processes that train one model together, as the environment of each of them names them."""

import json
import os
from dataclasses import dataclass

from tfsft.errors import UsageError

EXAMPLE = (
    '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'
)
# Kubeflow calls the first worker "chief" or "master".
_FIRST = ("chief", "master")


@dataclass(frozen=True)
class Cluster:
    """Who trains together.

    Args:
        workers: Address (host:port) of each worker; the first is the chief, who alone writes.
        index: Which of them this process is.
    """

    workers: tuple[str, ...]
    index: int

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that writes."""
        return self.index == 0


def read_tf_config() -> Cluster | None:
    """Returns the workers that TF_CONFIG names; None where it is not set or names none.

    Raises:
        UsageError: It cannot be understood, or has tasks that Keras 3 has no use for.
    """
    text = os.environ.get("TF_CONFIG", "").strip()
    if not text:
        return None
    try:
        content = json.loads(text)
        jobs, task = content.get("cluster") or {}, content.get("task") or {}
        jobs = {job: list(addresses) for job, addresses in jobs.items()}
        if not jobs:
            return None
        kind, index = task.get("type"), int(task.get("index", -1))
    except (ValueError, TypeError, AttributeError) as error:
        raise _malformed(f"it cannot be read: {error}") from error
    others = jobs.keys() - {"worker", *_FIRST}
    if kind in others or "ps" in jobs:
        raise UsageError(
            f"TF_CONFIG has tasks of the type '{kind if kind in others else 'ps'}'.",
            "Every process of tfsft is a worker: Keras 3 has no parameter servers, and workers "
            "evaluate together.",
            "Start workers only.",
        )
    first = [job for job in _FIRST if job in jobs]
    if kind not in jobs:
        raise _malformed(f"its task is '{kind}', its cluster has {', '.join(jobs)}")
    if not 0 <= index < len(jobs[kind]):
        raise _malformed(f"its task is {kind} {index}, and there are {len(jobs[kind])} of them")
    workers = [address for job in (*first, "worker") for address in jobs.get(job, ())]
    before = 0 if kind in first else sum(len(jobs[job]) for job in first)
    return Cluster(_checked(workers), before + index)


def _checked(workers: list) -> tuple[str, ...]:
    for address in workers:
        if not isinstance(address, str) or not address.rpartition(":")[2].isdigit():
            raise _malformed(f"'{address}' is no host:port")
    if len(set(workers)) < len(workers):
        raise _malformed("two workers have the same address")
    return tuple(workers)


def _malformed(what: str) -> UsageError:
    return UsageError(f"TF_CONFIG: {what}.", f"It looks like {EXAMPLE}")


def in_slurm_step() -> bool:
    """Whether this process is one of several that `srun` has started."""
    return int(os.environ.get("SLURM_STEP_NUM_TASKS") or 1) > 1 and "SLURM_PROCID" in os.environ


def is_chief(strategy: str) -> bool:
    """Whether this process writes; known before TensorFlow is imported.

    Args:
        strategy: The option `--strategy`.
    """
    if strategy != "multiworker":
        return True
    cluster = read_tf_config()
    if cluster is not None:
        return cluster.is_chief
    return not in_slurm_step() or int(os.environ["SLURM_PROCID"]) == 0
