"""What a person reads when something went wrong, and the exit code that goes with it."""

import shutil
import sys
import textwrap
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from tfsft.errors import OUT_OF_MEMORY, Stopped, UserError, disk_is_full, nearest

_PACKAGE = Path(__file__).parents[1]
_INTERRUPTED = 130  # 128 + SIGINT, as shells expect


@dataclass
class Invocation:
    """What `main` knows about the command being run.

    Args:
        words: The words typed after `tfsft`.
        debug: Show tracebacks and TensorFlow's own messages.
        recipe: The recipe that is running, where it is a file of the person's own.
        settings: The recipe's Config, once it is known.
    """

    words: tuple[str, ...]
    debug: bool = False
    recipe: Path | None = None
    settings: Any = None


def show(message: str) -> None:
    """Writes a message to stderr, wrapped where that is a terminal; lines of their own stay so."""
    if sys.stderr.isatty():
        width = min(shutil.get_terminal_size().columns, 100)
        lines = [
            textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)
            if line[:1].strip()
            else line
            for line in message.splitlines()
        ]
        message = "\n".join(lines)
    print(message, file=sys.stderr, flush=True)


def explain(error: BaseException, call: Invocation) -> tuple[str, int]:
    """Returns the message for an exception that ended a command, and the exit code."""
    match error:
        case UserError():
            return _parts(error.came, error.expected, error.fix), error.exit_code
        case Stopped(resume_command=None):
            return "Stopped before there was anything to save.", error.exit_code
        case Stopped():
            return (
                f"Stopped; the state is saved. To go on:\n\n    {error.resume_command}\n",
                error.exit_code,
            )
        case click.Abort() | KeyboardInterrupt():
            return "Stopped.", _INTERRUPTED
        case click.exceptions.NoArgsIsHelpError():
            return error.format_message(), error.exit_code
        case click.ClickException():
            return _explain_click(error), error.exit_code
    if disk_is_full(error):
        return _explain_full_disk(error), 1
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return _explain_memory(call), 1
    return _explain_fault(error, call), 1


def _parts(came: str, expected: str = "", fix: str = "") -> str:
    return "\n".join(filter(None, (f"Error: {came}", expected, fix)))


def _explain_click(error: click.ClickException) -> str:
    """Says what click found wrong, with the nearest right option."""
    context = getattr(error, "ctx", None)
    if context is None:
        return _parts(f"{error.format_message().rstrip('.')}.")
    help_command = f"See `{context.command_path} --help`."
    if isinstance(error, click.NoSuchOption):
        params = context.command.get_params(context)
        options = [name for param in params for name in (*param.opts, *param.secondary_opts)]
        came = f"There is no option {error.option_name}."
        if getattr(context.command, "recipe_comes_first", False):
            expected = f"The recipe comes before its options: `{context.command_path} RECIPE ...`."
            return _parts(came, expected, help_command)
        return _parts(came, nearest(error.option_name, options).strip(), help_command)
    return _parts(f"{error.format_message().rstrip('.')}.", "", help_command)


def _explain_full_disk(error: BaseException) -> str:
    where = getattr(error, "filename", None)
    came = f"No space is left on the disk{f' for {where}' if where else ''}."
    fix = "Free some and go on with --resume, or choose another disk with --run-dir."
    return _parts(came, "", fix)


def _explain_memory(call: Invocation) -> str:
    batch_size = getattr(call.settings, "batch_size", None)
    if not isinstance(batch_size, int):
        return _parts(f"{OUT_OF_MEMORY}.", "", "Try smaller batches or smaller inputs.")
    came = f"{OUT_OF_MEMORY} with --batch-size {batch_size}."
    if batch_size == 1:
        return _parts(
            came, "", "That is the smallest batch; try smaller inputs or a smaller model."
        )
    return _parts(came, "", f"Try --batch-size {batch_size // 2}.")


def _explain_fault(error: BaseException, call: Invocation) -> str:
    """One line for what should not have happened, naming the recipe's line where it is in there."""
    first_line = (str(error).strip() or "no message").splitlines()[0].rstrip(".")
    text = f"{type(error).__name__}: {first_line}"
    again = "" if call.debug else " Run again with --debug for the traceback."
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        if file == call.recipe:
            return f"Error: {file}, line {frame.lineno}: {text}.{again}"
        if file.is_relative_to(_PACKAGE):
            break
    return f"Error: this is a fault of tfsft, not yours: {text}.{again}"
