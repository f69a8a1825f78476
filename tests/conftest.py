"""What every test has: no GPU, no network, a quiet TensorFlow, two logical CPUs, the command."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

os.environ |= {
    "CUDA_VISIBLE_DEVICES": "-1",
    "HF_HUB_OFFLINE": "1",
    "KERAS_BACKEND": "tensorflow",
    "MPLBACKEND": "Agg",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TFSFT_PRECISION": "float32",  # on every machine the same
}
if "PYTEST_XDIST_WORKER" in os.environ:  # one process for each core, so one thread in each
    os.environ |= {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1"}

IMPORTS_TENSORFLOW = re.compile(
    r"^(import|from) (tensorflow|keras|tfsft\.(data|models|training|export|recipes)|tfsft import"
    r"|\w+_causes)",
    re.MULTILINE,
)
_split = []


def pytest_pycollect_makemodule(module_path, parent):
    """Splits the CPU before a test file imports TensorFlow: after its first use it is too late."""
    if not _split and IMPORTS_TENSORFLOW.search(module_path.read_text()):
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * 2
        )
        _split.append(True)


@pytest.fixture
def mixed_bfloat16():
    """The mixed policy, for one test."""
    import keras

    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture(scope="session")
def two_cpus():
    """The names of two logical CPU devices, for tests of several replicas on any machine."""
    import tensorflow as tf

    names = [device.name for device in tf.config.list_logical_devices("CPU")]
    if len(names) != 2:
        pytest.fail(f"two logical CPUs are needed and there are {names}: see tests/conftest.py")
    return names


@pytest.fixture(scope="session")
def mirrored(two_cpus):
    """The one strategy of two replicas: two in a process would mix up their collective sums."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(two_cpus)


@pytest.fixture
def tfsft(tmp_path):
    """Runs the command `tfsft` in a process and a folder of its own."""

    def run(*words, cwd=tmp_path, python=(), stdin=None, **environment):
        return subprocess.run(
            [sys.executable, *python, "-m", "tfsft", *map(str, words)],
            cwd=cwd,
            env=os.environ | environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture
def toy_recipe():
    """A recipe that prints its settings and imports nothing heavy."""
    return Path(__file__).parent / "cli" / "data" / "toy_recipe.py"
