"""The examples for clusters: every word that they type, and what they tell the workers."""

import json
import os
import shlex
import stat
import subprocess
from pathlib import Path

import click
import pytest
import yaml

from tfsft import cluster
from tfsft.cli.run import RunOptions
from tfsft.cli.run import command as run_command
from tfsft.config import check_values, make_config, read_fields

EXAMPLES = Path(__file__).parents[1] / "docs" / "cluster"


def options_of(words):
    """Checks the words of a command as `tfsft run` does, and returns its own options."""
    assert words[:2] == ["tfsft", "run"]
    context = click.Context(run_command, info_name="run")
    recipe = run_command.get_command(context, words[2])
    given = recipe.make_context(words[2], words[3:], parent=context).params
    typed = {name: value for name, value in given.items() if value is not None}
    own = {field.name for field in read_fields(RunOptions)}
    make_config(recipe.info, {name: typed[name] for name in typed.keys() - own})
    checked = check_values(read_fields(RunOptions), {n: typed[n] for n in typed.keys() & own})
    return RunOptions(**checked)


def kubernetes():
    service, job = yaml.safe_load_all((EXAMPLES / "kubernetes.yaml").read_text())
    return service, job, job["spec"]["template"]["spec"]


@pytest.fixture
def stub(tmp_path):
    """Puts commands into PATH that write down how they were called."""

    def run(script, codes, **environment):
        called = tmp_path / "called"
        called.unlink(missing_ok=True)
        for name, code in codes.items():
            path = tmp_path / name
            path.write_text(
                f'#!/bin/sh\necho "$TF_CONFIG" > {tmp_path}/tf_config\n'
                f"printf '%s\\n' {shlex.quote(name)} \"$@\" -- >> {called}\nexit {code}\n"
            )
            path.chmod(path.stat().st_mode | stat.S_IEXEC)
        (tmp_path / ".venv" / "bin").mkdir(parents=True, exist_ok=True)
        (tmp_path / ".venv" / "bin" / "activate").touch()
        path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            script, cwd=tmp_path, env=os.environ | environment | {"PATH": path}, text=True,
            capture_output=True, timeout=30,
        )  # fmt: skip
        assert done.stderr == ""
        calls = [call.split("\n") for call in called.read_text().split("\n--\n")[:-1]]
        return done.returncode, calls, (tmp_path / "tf_config").read_text()

    return run


@pytest.mark.parametrize("index", range(4))
def test_kubernetes_tells_each_worker_who_it_is(stub, monkeypatch, index):
    _, job, pod = kubernetes()
    [container] = pod["containers"]
    script = [*container["command"], *container["args"]]
    given = {each["name"]: each["value"] for each in container["env"]}
    code, [words], tf_config = stub(script, {"tfsft": 0}, JOB_COMPLETION_INDEX=str(index), **given)
    assert code == 0
    options = options_of(words)
    assert options.strategy == "multiworker"
    assert options.go_on

    content = json.loads(tf_config)
    assert content["task"] == {"type": "worker", "index": index}
    port = container["ports"][0]["containerPort"]
    # A pod of an indexed Job is called JOB-INDEX, and found as JOB-INDEX.SERVICE.
    name, subdomain = job["metadata"]["name"], pod["subdomain"]
    hosts = [f"{name}-{i}.{subdomain}:{port}" for i in range(job["spec"]["completions"])]
    assert content["cluster"] == {"worker": hosts}
    monkeypatch.setenv("TF_CONFIG", tf_config)
    assert cluster.read_tf_config() == cluster.Cluster(tuple(hosts), index)


def test_kubernetes_agrees_with_itself():
    service, job, pod = kubernetes()
    spec = job["spec"]
    [container] = pod["containers"]
    assert spec["completions"] == spec["parallelism"] == int(container["env"][0]["value"])
    assert spec["completionMode"] == "Indexed"
    assert service["spec"]["clusterIP"] == "None"
    assert service["metadata"]["name"] == pod["subdomain"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert service["spec"]["ports"][0]["port"] == container["ports"][0]["containerPort"]
    # What backoffLimitPerIndex and podFailurePolicy ask for.
    assert pod["restartPolicy"] == "Never"
    [rule] = spec["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["containerName"] == container["name"]
    assert {v["name"] for v in pod["volumes"]} == {v["name"] for v in container["volumeMounts"]}
    paths = [word for word in container["args"][0].split() if word.startswith("/")]
    assert paths
    assert all(path.startswith(container["volumeMounts"][0]["mountPath"]) for path in paths)


def test_slurm(stub):
    script = str(EXAMPLES / "slurm.sh")
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    lines = [x.split()[1] for x in Path(script).read_text().splitlines() if "#SBATCH" in x]
    given = dict(line.lstrip("-").partition("=")[::2] for line in lines)
    assert given["nodes"] == "4"
    assert given["ntasks-per-node"] == "1"

    code, [words], _ = stub(["bash", script], {"srun": 0, "scontrol": 0}, SLURM_JOB_ID="7")
    assert code == 0
    assert words[:2] == ["srun", "--kill-on-bad-exit=1"]
    options = options_of(words[2:])
    assert options.strategy == "multiworker"
    assert options.go_on


@pytest.mark.parametrize(
    ("code", "before", "again"),
    [(143, "0", True), (1, "4", True), (143, "5", False), (2, "0", False)],
)
def test_slurm_starts_again(stub, code, before, again):
    ended, calls, _ = stub(
        ["bash", str(EXAMPLES / "slurm.sh")],
        {"srun": code, "scontrol": 0},
        SLURM_JOB_ID="7",
        SLURM_RESTART_COUNT=before,
    )
    assert ended == code
    assert calls[1:] == ([["scontrol", "requeue", "7"]] if again else [])


def test_vertex():
    job = yaml.safe_load((EXAMPLES / "vertex.yaml").read_text())
    chief, workers = job["workerPoolSpecs"]
    assert chief.pop("replicaCount") == 1  # what Vertex calls the chief is one
    assert workers.pop("replicaCount") == 3
    assert chief == workers
    container = chief["containerSpec"]
    options = options_of([*container["command"], *container["args"]])
    assert options.strategy == "multiworker"
    assert options.go_on
    assert job["scheduling"] == {"restartJobOnWorkerRestart": True}


def test_vertex_names_a_chief(monkeypatch):
    """TF_CONFIG as Vertex AI sets it in the second of three workers."""
    hosts = {"chief": ["a-0:2222"], "worker": ["b-0:2222", "b-1:2222"]}
    content = {
        "cluster": hosts,
        "task": {"type": "worker", "index": 1, "trial": "x"},
        "environment": "cloud",
        "job": "{}",
    }
    monkeypatch.setenv("TF_CONFIG", json.dumps(content))
    assert cluster.read_tf_config() == cluster.Cluster(("a-0:2222", "b-0:2222", "b-1:2222"), 2)
