"""Runs the command `tfsft` and kills it with SIGKILL at one moment.

    python killed.py MOMENT COUNT FRACTION run image_cls ...

MOMENT is one of `MOMENTS`; the process is killed the COUNTth time it comes, FRACTION of the way
through it, or after that many seconds of a step.
"""

import os
import signal
import subprocess
import sys
import threading

MOMENTS = ("step", "write", "rename", "validation", "phase", "evaluation", "judgement")


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def prepare(moment, count, fraction):
    """Makes the `count`th `moment` the last one of this process."""
    from tfsft.training import checkpoints, run, tensor_files
    from tfsft.training.callbacks.checkpointer import Checkpointer

    left = [count]

    def is_last():
        left[0] -= 1
        return left[0] == 0

    def before(owner, name):
        original = getattr(owner, name)

        def method(*args, **kwargs):
            if is_last():
                kill()
            return original(*args, **kwargs)

        setattr(owner, name, method)

    if moment == "step":

        def begin(self, batch, logs=None):
            if is_last():
                threading.Timer(fraction, kill).start()

        Checkpointer.on_train_batch_begin = begin
    elif moment == "write":
        write = tensor_files.write_synced

        def partly(path, pieces):
            pieces = list(pieces)
            if is_last():
                with open(path, "wb") as file:
                    content = b"".join(map(bytes, pieces))
                    file.write(content[: int(len(content) * fraction)])
                kill()
            return write(path, pieces)

        tensor_files.write_synced = checkpoints.write_synced = partly
    elif moment == "rename":
        replace = os.replace

        def renamed(source, target):
            if ".writing-" in str(source) and is_last():
                if fraction > 0.5:
                    replace(source, target)
                kill()
            replace(source, target)

        os.replace = renamed
    elif moment == "validation":
        Checkpointer.on_test_batch_end = lambda self, batch, logs=None: (
            kill() if is_last() else None
        )
    elif moment == "phase":
        finish = run.Phase.finish

        def finished(self):
            finish(self)
            if is_last():
                kill()

        if fraction > 0.5:
            run.Phase.finish = finished
        else:
            before(run.Phase, "finish")
    elif moment == "evaluation":
        before(run.Run, "save" if fraction > 0.5 else "evaluate")
    elif moment == "judgement":  # of a model that was trained further
        from tfsft.export import EarlierRun

        before(EarlierRun, "judge")
    else:
        raise ValueError(moment)


def run(folder, recipe, *words, moment=None):
    """Runs the command; returns it when it has ended or was killed."""
    begin = [__file__, *map(str, moment)] if moment else ["-m", "tfsft"]
    return subprocess.run(
        [sys.executable, *begin, "run", recipe, *map(str, words)],
        cwd=folder, env=os.environ | {"TFSFT_CACHE": str(folder / "cache")}, capture_output=True,
        text=True, timeout=600,
    )  # fmt: skip


def kill_and_compare(folder, recipe, options, moments, compare=None):
    """Kills a run at one moment after the other; asserts that its end is that of a whole one.

    Args:
        folder: Where it runs.
        recipe, options: What is run.
        moments: The arguments of this script, for each process.
        compare: Names what differs between two runs; by default every bit.

    Returns:
        What each process said.
    """
    from run_folders import differences

    whole = run(folder, recipe, *options, "--run-dir", "whole")
    assert whole.returncode == 0, whole.stderr
    said = []
    for moment in moments:
        there = (folder / "killed" / "config.json").exists()
        words = ["--resume" if there else "--run-dir", "killed", "--checkpoint-steps", "2"]
        done = run(folder, recipe, *options, *words, moment=moment)
        assert done.returncode == -9, (moment, done.stdout, done.stderr)
        said.append(done.stdout)
    done = run(folder, recipe, *options, "--resume", "killed")
    assert done.returncode == 0, (moments, done.stderr)
    found = (compare or differences)(folder / "whole", folder / "killed")
    assert not found, (found, moments, said)
    assert not list((folder / "killed" / "checkpoints").glob(".writing-*"))
    return [*said, done.stdout]


if __name__ == "__main__":
    from tfsft.cli import main
    from tfsft.cli.tensorflow_start import starting_tensorflow

    moment, count, fraction, *words = sys.argv[1:]
    with starting_tensorflow():
        prepare(moment, int(count), float(fraction))
    sys.exit(main(words))
