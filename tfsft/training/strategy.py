"""Which devices train, and in which number format."""

import contextlib
import os
import re
import resource
import sys
import time
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfsft import cluster
from tfsft.cluster import Cluster
from tfsft.data.length_plan import LengthPlan
from tfsft.data.pipeline import Pipeline
from tfsft.data.plan import BatchPlan
from tfsft.errors import UsageError

STRATEGIES = ("auto", "one", "mirrored", "multiworker", "tpu")
PRECISIONS = ("auto", "float32", "mixed_bfloat16", "mixed_float16")
WORTH_HALF = 1.5  # how much faster products are for half precision to be chosen


def require_tensorflow() -> None:
    """Refuses what tfsft does not run on: another Keras backend, or channels-first pictures."""
    if keras.backend.backend() != "tensorflow":
        raise UsageError(
            f"Keras runs on the backend '{keras.backend.backend()}'.",
            "tfsft trains with tf.distribute and tf.data and needs the backend 'tensorflow'.",
            "Unset KERAS_BACKEND, or set it to tensorflow (also in ~/.keras/keras.json).",
        )
    if keras.config.image_data_format() != "channels_last":
        raise UsageError(
            "Keras is set to the picture format 'channels_first'.",
            "tfsft's pictures are 'channels_last': height, width, channels.",
            'Set "image_data_format": "channels_last" in ~/.keras/keras.json.',
        )


def make_strategy(
    kind: str = "auto", devices: str | None = None, tpu: str | None = None
) -> tf.distribute.Strategy:
    """Returns the tf.distribute strategy for the devices of this machine, or of several processes.

    Args:
        kind: `one` device; `mirrored`: a copy of the model on each device; `multiworker`: copies
            in several processes, which TF_CONFIG or Slurm names; `tpu`; `auto`: a TPU where one is
            configured, every local GPU, else the CPU.
        devices: Which of them, as in `gpu:0,gpu:2`. `cpu:0,cpu:1` splits the CPU into logical
            devices, for tests.
        tpu: Name of a TPU, or its address; None takes that of this machine or of TPU_NAME.

    Raises:
        UsageError: When a device is not there.
    """
    if tpu and kind not in ("auto", "tpu"):
        raise UsageError(
            f"--tpu {tpu} was given with --strategy {kind}.",
            "It names a TPU to train on.",
            "Use --strategy tpu, or leave --tpu out.",
        )
    if kind == "multiworker":
        workers = _find_cluster()
        if len(workers.workers) > 1:
            return _multiworker_strategy(workers, devices)
        kind = "auto"
    names = [name.strip().upper() for name in devices.split(",")] if devices else []
    for name in names:
        if not re.fullmatch(r"(CPU|GPU):\d+", name):
            raise UsageError(
                f"--devices names '{name.lower()}'.",
                "A device is written as cpu:0 or gpu:1, several with commas between them.",
            )
    if kind == "tpu" or (kind == "auto" and not names and (tpu or os.environ.get("TPU_NAME"))):
        return _tpu_strategy(tpu)
    _split_cpu(names)
    present = [device.name.split("/device:")[-1] for device in tf.config.list_logical_devices()]
    for name in names:
        if name not in present:
            raise UsageError(
                f"There is no device '{name.lower()}'.",
                f"TensorFlow sees: {', '.join(present).lower()}.",
                "Choose among these, or leave --devices out.",
            )
    gpus = [name for name in present if name.startswith("GPU")]
    if kind == "mirrored":
        chosen = names or gpus or ["CPU:0"]
        return tf.distribute.MirroredStrategy([f"/{name}" for name in chosen])
    if kind == "auto" and len(names or gpus) > 1:
        return tf.distribute.MirroredStrategy([f"/{name}" for name in names or gpus])
    if len(names) > 1:
        raise UsageError(
            f"--strategy one was given {len(names)} devices.",
            "It takes one.",
            "Use --strategy mirrored for several.",
        )
    if names and names != ["CPU:0"]:
        return tf.distribute.OneDeviceStrategy(f"/{names[0]}")
    if names == ["CPU:0"] and gpus:
        return tf.distribute.OneDeviceStrategy("/CPU:0")
    return tf.distribute.get_strategy()


def _split_cpu(names: list[str]) -> None:
    wanted = 1 + max((int(name[4:]) for name in names if name.startswith("CPU")), default=0)
    if wanted == 1:
        return
    cpu = tf.config.list_physical_devices("CPU")[0]
    # TensorFlow has started; what is missing is said by the caller
    with contextlib.suppress(RuntimeError):
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * wanted
        )


def _find_cluster() -> Cluster:
    """Returns the processes that train together."""
    found = cluster.read_tf_config()
    if found is not None:
        return found
    if cluster.in_slurm_step():
        return _slurm_cluster()
    raise UsageError(
        "--strategy multiworker does not know who trains together.",
        "Each process needs TF_CONFIG, or to be a task of Slurm's srun. TF_CONFIG looks like\n"
        f"    {cluster.EXAMPLE}",
        "On one machine, `tfsft launch --workers 2 -- run RECIPE ...` sets it.",
    )


def _slurm_cluster() -> Cluster:
    """Returns the tasks of a Slurm step.

    TensorFlow's resolver reads Slurm's lists. Its own cluster is not taken: it sorts hosts by name,
    so that n10 stands before n2 and ranks get addresses of other hosts, has no tasks where there is
    no GPU, and gives two jobs on one host the same ports.
    """
    job = int(os.environ.get("SLURM_JOB_ID") or 0)
    try:
        # Slurm itself shares out the GPUs.
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            gpus_per_node=1, gpus_per_task=0, auto_set_gpu=False
        )
        tasks = resolver._resolve_task_configuration()
        index = resolver._resolve_own_rank()
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"Slurm's variables do not say who trains together: {error}",
            "They are set for each task of `srun`.",
            "Start with `srun`, or set TF_CONFIG.",
        ) from error
    first_port = 20000 + job * 64 % 20000
    workers = [f"{host}:{first_port + i}" for host, count in tasks.items() for i in range(count)]
    here = os.environ.get("SLURMD_NODENAME")
    host = workers[index].partition(":")[0]
    if here not in (None, host):
        raise UsageError(
            f"Slurm's task {index} runs on {here}, and by its place in the list on {host}.",
            "Tasks have to fill one host after the other.",
            "Use `srun --distribution=block`, or set TF_CONFIG.",
        )
    return Cluster(tuple(workers), index)


def _multiworker_strategy(workers: Cluster, devices: str | None) -> tf.distribute.Strategy:
    if devices:
        raise UsageError(
            f"--devices {devices} was given to one of {len(workers.workers)} workers.",
            "A worker trains on all GPUs it sees, else on its CPU.",
            "Leave --devices out; CUDA_VISIBLE_DEVICES chooses among GPUs.",
        )
    gpus = len(tf.config.list_physical_devices("GPU"))
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(workers.workers)}),
        task_type="worker",
        task_id=workers.index,
        rpc_layer="grpc",
        num_accelerators={"GPU": gpus},
    )
    implementations = tf.distribute.experimental.CommunicationImplementation
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=implementations.NCCL if gpus else implementations.RING
    )
    strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver, options)
    # Every worker has the same number of batches: none has to ask the others at each step.
    strategy.extended.experimental_enable_get_next_as_optional = False
    return strategy


def is_multiworker(strategy: tf.distribute.Strategy) -> bool:
    """Whether other processes compute as well."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def distribute(
    strategy: tf.distribute.Strategy,
    pipeline: Pipeline,
    epoch: int = 0,
    start: int = 0,
    parts: int = 1,
    *,
    filler: bool = False,
) -> tf.distribute.DistributedDataset:
    """Returns the batches of an epoch, for each replica its share of them.

    Replica r of R takes the r-th of R equal parts of a global batch, whichever process it is in. A
    worker fetches only its own part.

    Args:
        strategy: Whose replicas they are for.
        pipeline: Where they come from.
        epoch, start: As for `Pipeline.epoch`.
        parts: What a replica's share is cut into, and so a multiple of.
        filler: Keeps filler that could be left out, as it is part of what a layer computes.
    """
    if not is_multiworker(strategy):
        batches = pipeline.epoch(epoch, start)
        if strategy.num_replicas_in_sync == 1 and not filler and not _accelerators():
            batches = _without_filler(batches, pipeline.plan, start, parts)
        return strategy.experimental_distribute_dataset(batches)

    def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        part = context.input_pipeline_id, context.num_input_pipelines
        batches = pipeline.epoch(epoch, start, part)
        replicas = context.num_replicas_in_sync // context.num_input_pipelines
        return batches if replicas == 1 else _for_replicas(batches, replicas)

    return strategy.distribute_datasets_from_function(of_worker)


def _without_filler(
    batches: tf.data.Dataset, plan: BatchPlan | LengthPlan, start: int, multiple: int
) -> tf.data.Dataset:
    """Leaves out what the last batch is filled up with: a processor takes as long as there are
    examples, where others are compiled for one size of batch.
    """
    if not isinstance(plan, BatchPlan) or plan.batch_size % multiple:
        return batches  # those of LengthPlan are filled up with the shortest texts
    last = plan.steps - 1
    filled = -((last * plan.batch_size - plan.size) // multiple) * multiple

    @tf.autograph.experimental.do_not_convert
    def cut(step: tf.Tensor, batch: Any) -> Any:
        size = tf.where(step == last, filled, plan.batch_size)
        return tf.nest.map_structure(
            lambda rows: tf.ensure_shape(rows[:size], [None, *rows.shape[1:]]), batch
        )

    return batches.enumerate(start).map(cut)


def _for_replicas(batches: tf.data.Dataset, replicas: int) -> tf.data.Dataset:
    """Cuts each batch into as many, one for each local replica."""

    def cut(tensor: tf.Tensor) -> tf.Tensor:
        size, *rest = tf.unstack(tf.shape(tensor))
        part = None if tensor.shape[0] is None else tensor.shape[0] // replicas
        parts = tf.reshape(tensor, [replicas, size // replicas, *rest])
        return tf.ensure_shape(parts, [replicas, part, *tensor.shape[1:]])

    return batches.flat_map(
        lambda *batch: tf.data.Dataset.from_tensor_slices(tf.nest.map_structure(cut, batch))
    )


def whole(strategy: tf.distribute.Strategy, value: object) -> tf.Tensor:
    """Returns the rows of all replicas one after another, the same in every process; in graph."""
    rows = tf.concat(strategy.experimental_local_results(value), 0)
    return strategy.gather(rows, 0) if is_multiworker(strategy) else rows


def _tpu_strategy(name: str | None) -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(name)
    except Exception as error:
        raise UsageError(
            f"No TPU{f' {name}' if name else ''} could be reached: {error}",
            "--strategy tpu needs a TPU of this machine, or --tpu (or TPU_NAME) with the name of "
            "one.",
            "Use --strategy auto to train on what is there.",
        ) from error
    return tf.distribute.TPUStrategy(resolver)


def set_precision(precision: str, strategy: tf.distribute.Strategy) -> tuple[str, str]:
    """Sets Keras's global number format.

    Args:
        precision: One of `PRECISIONS`. `auto` is what the variable TFSFT_PRECISION of the
            environment says; without it mixed_bfloat16 on TPUs, on GPUs that have it (compute
            capability 8 and later), and on processors that are measured to multiply matrices 1.5
            times as fast in it; else float32.
        strategy: Whose devices count.

    Returns:
        Its name, and why it was chosen, if there is something to say.
    """
    reason = ""
    if precision == "auto":
        precision = os.environ.get("TFSFT_PRECISION", "")
        if precision not in PRECISIONS[1:]:
            precision, reason = _fitting_precision(strategy)
    keras.config.set_dtype_policy(precision)
    return precision, reason


def _fitting_precision(strategy: tf.distribute.Strategy) -> tuple[str, str]:
    if isinstance(strategy, tf.distribute.TPUStrategy):
        return "mixed_bfloat16", ""
    if gpus := tf.config.list_physical_devices("GPU"):
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        able = all(d.get("compute_capability", (0, 0)) >= (8, 0) for d in details)
        return "mixed_bfloat16" if able else "float32", ""
    gain = 0.0 if is_multiworker(strategy) else bfloat16_gain()  # workers could differ
    if gain < WORTH_HALF:
        return "float32", ""
    return "mixed_bfloat16", (
        f"Computes in mixed_bfloat16, in which this processor multiplies matrices {gain:.1f} times "
        "as fast; --precision float32 does not."
    )


def bfloat16_gain() -> float:
    """Measures how many times as fast this processor multiplies matrices in bfloat16: 0.1 s."""
    with tf.device("CPU:0"):
        matrices = [tf.ones([1024, 1024], dtype) for dtype in (tf.float32, tf.bfloat16)]
        times: list[list[float]] = [[], []]
        for _ in range(8):  # in turn, as other work comes and goes; the first ones set things up
            for matrix, seconds in zip(matrices, times, strict=True):
                start = time.perf_counter()
                tf.linalg.matmul(matrix, matrix)[0, 0].numpy()
                seconds.append(time.perf_counter() - start)
    return min(times[0]) / min(times[1])


def set_determinism(wanted: bool | None = None) -> bool:
    """Makes TensorFlow use only operations that give the same bits every time; returns whether.

    Args:
        wanted: None does so on machines without GPU or TPU, where it costs next to nothing. It
            stays on for the whole process.
    """
    if wanted is None:
        wanted = not _accelerators()
    if wanted:
        tf.config.experimental.enable_op_determinism()
    return wanted


def _accelerators() -> list:
    return tf.config.list_physical_devices("GPU") + tf.config.list_logical_devices("TPU")


def peak_memory() -> tuple[str, int]:
    """Returns where memory was measured and the most bytes that were in use there so far."""
    if tf.config.list_physical_devices("GPU"):
        return "GPU 0", int(tf.config.experimental.get_memory_info("GPU:0")["peak"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return "this process", peak * (1 if sys.platform == "darwin" else 1024)


def usable_memory() -> int:
    """Returns how many bytes this machine or container has; 0 with GPUs, which do not tell."""
    if tf.config.list_physical_devices("GPU"):
        return 0
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # of cgroups 2 and 1
        with contextlib.suppress(OSError, ValueError):
            limits.append(int(Path("/sys/fs/cgroup", name).read_text()))
    return min(limits)
