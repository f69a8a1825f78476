"""Real processes, started and ended together; what they run here imports nothing heavy."""

import json
import os
import signal
import sys
import threading
import time

import pytest

from tfsft.cli.local_workers import LocalWorkers
from tfsft.errors import UsageError

WORKER = """
import json, os, signal, sys, time
task = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
print(f"worker {task} says hello", flush=True)
open(f"{sys.argv[1]}.{task}", "w").write(json.dumps(dict(os.environ)))
"""


@pytest.fixture
def workers(tmp_path):
    """Returns a function that runs two processes of a program; `task` is the number of each."""

    def make(code, count=2):
        program = tmp_path / "program.py"
        program.write_text(WORKER + code)
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        group = LocalWorkers(count, folder, [sys.executable, str(program), str(tmp_path / "env")])
        return group

    return make


def environment(tmp_path, index):
    return json.loads((tmp_path / f"env.{index}").read_text())


def test_each_knows_the_others_and_gets_its_share(workers, tmp_path, capfd):
    assert workers("").run(["word"]) == 0
    clusters = []
    for index in range(2):
        found = environment(tmp_path, index)
        config = json.loads(found["TF_CONFIG"])
        assert config["task"] == {"type": "worker", "index": index}
        clusters.append(config["cluster"]["worker"])
        share = str(max(1, len(os.sched_getaffinity(0)) // 2))
        assert found["TF_NUM_INTRAOP_THREADS"] == os.environ.get("TF_NUM_INTRAOP_THREADS", share)
    assert clusters[0] == clusters[1]
    assert len(set(clusters[0])) == 2
    assert capfd.readouterr().out == "worker 0 says hello\n"  # the chief's alone
    assert (tmp_path / "run" / "worker-1.log").read_text() == "worker 1 says hello\n"


def test_gpus_are_shared_out(workers, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1,0,2")
    assert workers("").run([]) == 0
    assert [environment(tmp_path, i)["CUDA_VISIBLE_DEVICES"] for i in range(2)] == ["3,1", "0,2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    with pytest.raises(UsageError, match="cannot share 3 GPUs equally"):
        workers("")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'GPU 0: A'\necho 'GPU 1: B'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert workers("").run([]) == 0
    assert [environment(tmp_path, i)["CUDA_VISIBLE_DEVICES"] for i in range(2)] == ["0", "1"]


@pytest.mark.parametrize(
    ("code", "exit_code", "said", "again"),
    [
        # The chief waits for ever, as in a sum that never comes.
        ("if task: os.kill(os.getpid(), 9)\ntime.sleep(60)", 137, "Worker 1 of 2 (process", True),
        ("if not task: os.kill(os.getpid(), 9)\ntime.sleep(60)", 137, "The chief of 2 (pro", True),
        ("print('bad picture')\nsys.exit(1 if task else 75)", 1, "    bad picture", True),
        ("sys.exit(1)", 1, None, True),  # the chief has said it
        ("sys.exit(2)", 2, None, False),
        ("sys.exit(143)", 143, None, False),  # a signal to one of them has stopped all
    ],
)
def test_one_ends_badly(workers, capfd, monkeypatch, code, exit_code, said, again):
    start = time.monotonic()
    group = workers(code)
    assert group.run([]) == exit_code
    assert time.monotonic() - start < 9
    error = capfd.readouterr().err
    assert (said is None and not error) or said in error
    if exit_code == 137:
        assert "was killed by SIGKILL" in error
    assert group.may_not_restart != again


def test_a_paused_worker_is_ended_with_the_others(workers, capfd, monkeypatch):
    monkeypatch.setattr("tfsft.cli.local_workers.GRACE", 1.0)
    group = workers("if task: os.kill(os.getpid(), signal.SIGSTOP)\nsys.exit(75)")
    assert group.run([]) == 75


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_passed_on_once(workers, tmp_path, number, exit_code):
    code = """
got = []
def stop(number, frame):
    got.append(number)
    time.sleep(1)
    open(f"{sys.argv[1]}.signals.{task}", "w").write(str(len(got)))
    sys.exit(128 + number)
signal.signal(signal.SIGINT, stop); signal.signal(signal.SIGTERM, stop)
time.sleep(60)
"""
    group = workers(code)
    threading.Timer(1.5, os.kill, (os.getpid(), number)).start()
    assert group.run([]) == exit_code
    assert group.may_not_restart
    assert [(tmp_path / f"env.signals.{i}").read_text() for i in range(2)] == ["1", "1"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--workers", "2"], "was given the command ''"),
        (["--", "check", "image_cls"], "was given the command 'check image_cls'"),
        (["--", "run", "image_cls", "--bach-size", "8"], "Did you mean '--batch-size'"),
        (["--", "run", "image_cls", "--strategy", "mirrored"], "was given --strategy mirrored"),
        (["--", "run", "image_cls", "--resume", "nowhere"], "nowhere is not a run folder"),
        (["--workers", "0", "--", "run", "image_cls"], "0 is not in the range x>=1"),
    ],
)
def test_wrong_words(tfsft, words, said):
    done = tfsft("launch", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) < 6
