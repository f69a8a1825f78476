"""Who trains together, as TF_CONFIG says it."""

import json

import pytest

from tfsft import cluster
from tfsft.errors import UsageError


def set_config(monkeypatch, config):
    text = config if isinstance(config, str) else json.dumps(config)
    monkeypatch.setenv("TF_CONFIG", text)


def task(kind, index):
    return {"type": kind, "index": index}


@pytest.mark.parametrize(
    ("jobs", "task", "workers", "index"),
    [
        ({"worker": ["a:1", "b:2"]}, task("worker", 1), "a:1 b:2", 1),
        # Vertex AI and Kubeflow: a chief besides the workers, indices as text
        ({"worker": ["b:2", "c:3"], "chief": ["a:1"]}, task("worker", "1"), "a:1 b:2 c:3", 2),
        ({"worker": ["b:2"], "chief": ["a:1"]}, task("chief", 0), "a:1 b:2", 0),
        ({"master": ["a:1"], "worker": ["b:2"]}, task("worker", 0), "a:1 b:2", 1),
        ({"worker": ["[::1]:1"]}, task("worker", 0), "[::1]:1", 0),
    ],
)
def test_workers_and_their_order(monkeypatch, jobs, task, workers, index):
    set_config(monkeypatch, {"cluster": jobs, "task": task, "environment": "cloud"})
    found = cluster.read_tf_config()
    assert found == cluster.Cluster(tuple(workers.split()), index)
    assert found.is_chief == (index == 0)
    assert cluster.is_chief("multiworker") == (index == 0)
    assert cluster.is_chief("auto")


@pytest.mark.parametrize("text", ["", " ", "{}", '{"task": {"type": "worker", "index": 0}}'])
def test_no_cluster(monkeypatch, text):
    set_config(monkeypatch, text)
    assert cluster.read_tf_config() is None
    assert cluster.is_chief("multiworker")


ONE = {"worker": ["a:1"]}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("{worker: 1}", "cannot be read"),
        ("[1]", "cannot be read"),
        ({"cluster": ONE}, "its task is 'None', its cluster has worker"),
        ({"cluster": ONE, "task": task("worker", "x")}, "cannot be read"),
        ({"cluster": ONE, "task": task("worker", 1)}, "its task is worker 1, and there are 1"),
        ({"cluster": {"worker": ["a"]}, "task": task("worker", 0)}, "'a' is no host:port"),
        ({"cluster": {"worker": ["a:1", "a:1"]}, "task": task("worker", 0)}, "same address"),
        ({"cluster": ONE | {"ps": ["b:1"]}, "task": task("worker", 0)}, "of the type 'ps'"),
        ({"cluster": ONE | {"evaluator": ["b:1"]}, "task": task("evaluator", 0)}, "'evaluator'"),
    ],
)
def test_what_cannot_be_understood(monkeypatch, config, said):
    set_config(monkeypatch, config)
    with pytest.raises(UsageError, match="TF_CONFIG") as caught:
        cluster.read_tf_config()
    assert said in str(caught.value)


def test_slurms_chief(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    for rank, tasks, chief in (("0", "2", True), ("1", "2", False), ("1", "1", True)):
        monkeypatch.setenv("SLURM_PROCID", rank)
        monkeypatch.setenv("SLURM_STEP_NUM_TASKS", tasks)
        assert cluster.is_chief("multiworker") == chief
        assert cluster.is_chief("auto")
