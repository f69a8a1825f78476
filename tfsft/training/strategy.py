"""Which devices train, and in which number format."""

import contextlib
import os
import re
import resource
import sys

import keras
import tensorflow as tf

from tfsft.errors import UsageError

STRATEGIES = ("auto", "one", "mirrored", "tpu")
PRECISIONS = ("auto", "float32", "mixed_bfloat16", "mixed_float16")


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


def make_strategy(kind: str = "auto", devices: str | None = None) -> tf.distribute.Strategy:
    """Returns the tf.distribute strategy for the devices of this machine.

    Args:
        kind: `one` device; `mirrored`: a copy of the model on each device; `tpu`; `auto`: a TPU
            where one is configured, every local GPU, else the CPU.
        devices: Which of them, as in `gpu:0,gpu:2`. `cpu:0,cpu:1` splits the CPU into logical
            devices, for tests.

    Raises:
        UsageError: When a device is not there.
    """
    names = [name.strip().upper() for name in devices.split(",")] if devices else []
    for name in names:
        if not re.fullmatch(r"(CPU|GPU):\d+", name):
            raise UsageError(
                f"--devices names '{name.lower()}'.",
                "A device is written as cpu:0 or gpu:1, several with commas between them.",
            )
    if kind == "tpu" or (kind == "auto" and not names and os.environ.get("TPU_NAME")):
        return _tpu_strategy()
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


def _tpu_strategy() -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect()
    except Exception as error:
        raise UsageError(
            f"No TPU could be reached: {error}",
            "--strategy tpu needs a TPU of this machine, or TPU_NAME set to one.",
            "Use --strategy auto to train on what is there.",
        ) from error
    return tf.distribute.TPUStrategy(resolver)


def set_precision(precision: str, strategy: tf.distribute.Strategy) -> str:
    """Sets Keras's global number format and returns its name.

    `auto` is mixed_bfloat16 on TPUs and on GPUs that have it (compute capability 8 and later), else
    float32.
    """
    if precision == "auto":
        precision = "mixed_bfloat16" if _has_bfloat16(strategy) else "float32"
    keras.config.set_dtype_policy(precision)
    return precision


def set_determinism(wanted: bool | None = None) -> bool:
    """Makes TensorFlow use only operations that give the same bits every time; returns whether.

    Args:
        wanted: None does so on machines without GPU or TPU, where it costs next to nothing. It
            stays on for the whole process.
    """
    if wanted is None:
        wanted = not (
            tf.config.list_physical_devices("GPU") + tf.config.list_logical_devices("TPU")
        )
    if wanted:
        tf.config.experimental.enable_op_determinism()
    return wanted


def _has_bfloat16(strategy: tf.distribute.Strategy) -> bool:
    if isinstance(strategy, tf.distribute.TPUStrategy):
        return True
    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    return bool(gpus) and all(d.get("compute_capability", (0, 0)) >= (8, 0) for d in details)


def peak_memory() -> tuple[str, int]:
    """Returns where memory was measured and the most bytes that were in use there so far."""
    if tf.config.list_physical_devices("GPU"):
        return "GPU 0", int(tf.config.experimental.get_memory_info("GPU:0")["peak"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return "this process", peak * (1 if sys.platform == "darwin" else 1024)
