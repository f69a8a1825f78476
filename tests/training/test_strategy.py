"""Several processes as the environment names them; nothing is started here."""

import keras
import pytest
import tensorflow as tf

from tfsft import training
from tfsft.errors import UsageError
from tfsft.training import strategy as strategies
from tfsft.training.trial import Measurement


@pytest.fixture
def slurm(monkeypatch):
    """Sets Slurm's variables of one task: 12 hosts, the first of them with two tasks."""
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", "")  # no nvidia-smi

    def set_variables(rank, host, nodes="n[1-10],gpu[07-08]", tasks="2,1(x11)"):
        variables = {
            "SLURM_PROCID": rank,
            "SLURM_STEP_NUM_TASKS": 13,
            "SLURM_STEP_NODELIST": nodes,
            "SLURM_STEP_TASKS_PER_NODE": tasks,
            "SLURM_JOB_ID": 1234,
            "SLURMD_NODENAME": host,
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))

    return set_variables


def test_slurms_tasks_in_slurms_order_without_gpus(slurm):
    """TensorFlow's own cluster sorts n10 before n2, and fails where there is no GPU."""
    slurm(2, "n2")
    found = strategies._find_cluster()
    port = 20000 + 1234 * 64 % 20000
    hosts = ["n1", "n1", *(f"n{i}" for i in range(2, 11)), "gpu07", "gpu08"]
    assert list(found.workers) == [f"{host}:{port + (i == 1)}" for i, host in enumerate(hosts)]
    assert found.index == 2
    with pytest.raises((ValueError, FileNotFoundError)):
        tf.distribute.cluster_resolver.SlurmClusterResolver().cluster_spec()


def test_slurms_tasks_dealt_out_among_hosts_are_refused(slurm):
    slurm(1, "n2")  # round robin: by its place, task 1 is on n1
    with pytest.raises(UsageError, match="distribution=block"):
        strategies._find_cluster()


@pytest.mark.parametrize("nodes", ["n[1-2", "n[1-12]-ib"])
def test_what_tensorflow_cannot_read_of_slurm(slurm, nodes):
    slurm(0, "n1", nodes=nodes)
    with pytest.raises(UsageError, match="do not say who trains together"):
        strategies._find_cluster()


def test_nobody_to_train_with(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.delenv("SLURM_PROCID", raising=False)
    with pytest.raises(UsageError, match="tfsft launch --workers 2 -- run RECIPE"):
        training.make_strategy("multiworker")


def test_a_worker_does_not_choose_devices(monkeypatch):
    config = '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}'
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(UsageError, match="--devices cpu:0"):
        training.make_strategy("multiworker", "cpu:0")


def test_one_worker_is_one_process(monkeypatch):
    config = '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}'
    monkeypatch.setenv("TF_CONFIG", config)
    assert not strategies.is_multiworker(training.make_strategy("multiworker"))


@pytest.mark.parametrize("fixed", [True, False])
def test_a_workers_part_is_cut_for_its_replicas(fixed):
    """As tf.distribute wants it: the batches of the replicas one after another."""
    rows = tf.data.Dataset.range(16).map(
        lambda i: ({"x": tf.stack([i, -i])}, tf.cast(i, "float32"))
    )
    batches = rows.batch(8, drop_remainder=fixed)
    if not fixed:  # as where they go by tokens
        batches = rows.take(12).batch(8).concatenate(rows.skip(12).batch(4))
    found = list(strategies._for_replicas(batches, 2))
    sizes = [4, 4, 4, 4] if fixed else [4, 4, 2, 2, 2, 2]
    assert [len(weights) for _, weights in found] == sizes
    assert [int(i) for _, weights in found for i in weights] == list(range(16))
    assert [int(i) for inputs, _ in found for i in inputs["x"][:, 1]] == [-i for i in range(16)]
    spec = strategies._for_replicas(batches, 2).element_spec
    assert spec[0]["x"].shape == ((4, 2) if fixed else (None, 2))


def test_a_tpu_that_is_not_there(monkeypatch):
    asked = []

    def connect(name=None):
        asked.append(name)
        raise ValueError("nothing answers")

    resolver = tf.distribute.cluster_resolver.TPUClusterResolver
    monkeypatch.setattr(resolver, "connect", staticmethod(connect))
    with pytest.raises(UsageError, match="No TPU mine could be reached: nothing answers"):
        training.make_strategy("tpu", tpu="mine")
    assert asked == ["mine"]
    with pytest.raises(UsageError, match="--tpu mine was given with --strategy mirrored"):
        training.make_strategy("mirrored", tpu="mine")


@pytest.mark.parametrize(
    ("gain", "expected"), [(1.4, ("float32", False)), (4.0, ("mixed_bfloat16", True))]
)
def test_half_precision_where_the_processor_is_fast_in_it(gain, expected, monkeypatch):
    monkeypatch.delenv("TFSFT_PRECISION")
    monkeypatch.setattr(strategies, "bfloat16_gain", lambda: gain)
    try:
        precision, reason = strategies.set_precision("auto", tf.distribute.get_strategy())
        assert (precision, "4.0 times" in reason) == expected
        assert keras.config.dtype_policy().name == precision
        assert strategies.set_precision("float32", tf.distribute.get_strategy()) == ("float32", "")
    finally:
        keras.config.set_dtype_policy("float32")


def test_the_gain_is_measured():
    assert 0.01 < strategies.bfloat16_gain() < 100


def test_memory_is_that_of_the_machine_or_less():
    with open("/proc/meminfo") as file:
        total = int(file.readline().split()[1]) * 1024
    assert 0.05 * total < strategies.usable_memory() <= 1.1 * total


def test_the_largest_batch_leaves_a_tenth_free():
    measured = Measurement("all", batch=8, memory=(1 << 30, 3 << 30))  # 256 MiB an example
    assert measured.largest_batch(20 << 30) == (18 - 1) * 4
    assert Measurement("all", batch=8, memory=(1 << 30, 1 << 30)).largest_batch(20 << 30) == 0
