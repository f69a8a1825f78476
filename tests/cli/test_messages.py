"""Every way to end a command has its message and its exit code."""

import errno
import subprocess
import sys
import types

import click
import numpy as np
import pytest

from tfsft.cli import main, messages
from tfsft.cli.messages import Invocation, explain
from tfsft.errors import Stopped, UsageError, UserError

CALL = Invocation(("run", "x"), settings=types.SimpleNamespace(batch_size=32))


def test_mistakes_of_a_person():
    error = UserError("flowers/ is empty.", "One folder per class.", "See --data.")
    expected = "Error: flowers/ is empty.\nOne folder per class.\nSee --data."
    assert explain(error, CALL) == (expected, 1)
    assert explain(UsageError("--x is 1."), CALL) == ("Error: --x is 1.", 2)


@pytest.mark.parametrize(("number", "code"), [(2, 130), (15, 143)])
def test_a_stopped_training_names_the_command_that_goes_on(number, code):
    message, exit_code = explain(Stopped(number, "tfsft run x --resume runs/a"), CALL)
    assert exit_code == code
    assert "the state is saved" in message
    assert "\n    tfsft run x --resume runs/a\n" in message
    assert "nothing" not in message
    message, exit_code = explain(Stopped(number), CALL)
    assert (exit_code, "before there was anything to save" in message) == (code, True)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_ctrl_c(error):
    assert explain(error, CALL) == ("Stopped.", 130)


def resource_exhausted(text):
    """An exception that looks like TensorFlow's, without importing it."""
    return type("ResourceExhaustedError", (Exception,), {})(text)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError("[Errno 28] Can't write data (error message = 'No space left on device')"),
        resource_exhausted("runs/a/events; No space left on device"),
    ],
)
def test_a_full_disk(error):
    message, code = explain(error, CALL)
    assert code == 1
    assert message.startswith("Error: No space is left on the disk.")
    assert "--run-dir" in message


def test_a_full_disk_names_the_file():
    error = OSError(errno.ENOSPC, "No space left on device", "runs/a/model.keras")
    assert "on the disk for runs/a/model.keras." in explain(error, CALL)[0]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        np._core._exceptions._ArrayMemoryError((9**9,), np.dtype("f8")),
        resource_exhausted("OOM when allocating tensor with shape[32,224,224,64]"),
    ],
)
def test_out_of_memory_names_a_smaller_batch(error):
    expected = "Error: Out of memory with --batch-size 32.\nTry --batch-size 16."
    assert explain(error, CALL) == (expected, 1)


def test_out_of_memory_without_a_smaller_batch():
    one = Invocation((), settings=types.SimpleNamespace(batch_size=1))
    assert "That is the smallest batch" in explain(MemoryError(), one)[0]
    assert explain(MemoryError(), Invocation(()))[0].startswith("Error: Out of memory.\n")


def raised(function):
    try:
        function()
    except Exception as error:
        return error


def test_anything_else_is_a_fault_of_tfsft_in_one_line():
    error = raised(lambda: {}["missing"])
    message, code = explain(error, CALL)
    assert code == 1
    assert message == (
        "Error: this is a fault of tfsft, not yours: KeyError: 'missing'. "
        "Run again with --debug for the traceback."
    )
    assert "--debug" not in explain(error, Invocation((), debug=True))[0]
    assert "no message" in explain(ValueError(), CALL)[0]


def test_a_fault_in_a_persons_own_recipe_names_its_line(tmp_path):
    recipe = tmp_path / "mine.py"
    recipe.write_text("def main():\n    import json\n    json.loads(3)\n")
    namespace = {}
    exec(compile(recipe.read_text(), str(recipe), "exec"), namespace)
    error = raised(namespace["main"])
    mine = Invocation((), recipe=recipe)
    assert explain(error, mine)[0].startswith(
        f"Error: {recipe}, line 3: TypeError: the JSON object"
    )


def test_a_fault_below_a_recipe_is_of_tfsft(tmp_path):
    recipe = tmp_path / "mine.py"
    recipe.write_text("from tfsft.config import read_args\n\ndef main():\n    read_args(3)\n")
    namespace = {}
    exec(compile(recipe.read_text(), str(recipe), "exec"), namespace)
    error = raised(namespace["main"])
    assert "a fault of tfsft" in explain(error, Invocation((), recipe=recipe))[0]


def test_debug_shows_the_traceback(capsys):
    assert main(["--debug", "cp", "nothing", "x"]) == 2
    said = capsys.readouterr().err
    assert "Traceback (most recent call last)" in said
    assert said.rstrip().splitlines()[-1].startswith("The recipes are: ")
    assert main(["cp", "nothing", "x"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_closed_pipe_is_no_fault():
    line = f"{sys.executable} -m tfsft run --help | true"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert done.stderr == ""


def test_messages_are_wrapped_on_a_terminal_only(monkeypatch, capsys):
    long = "Error: " + "word " * 40 + "\n\n    tfsft run " + "x" * 90
    messages.show(long)
    assert capsys.readouterr().err == long + "\n"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    messages.show(long)
    *text, empty, command = capsys.readouterr().err.splitlines()
    assert all(len(line) <= 60 for line in text)
    assert len(text) > 2
    assert (empty, command) == ("", "    tfsft run " + "x" * 90)
