"""`tfsft launch`: trains a recipe in several processes together."""

import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

import click

from tfsft.cli.local_workers import LocalWorkers
from tfsft.cli.ray_workers import run_on_ray
from tfsft.cli.run import COMMAND, RunOptions, check_folders, going_on
from tfsft.cli.run import command as run_command
from tfsft.config import without_options
from tfsft.errors import UsageError


@click.command(
    "launch",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    options_metavar="[OPTIONS] --",
    help="""Train a recipe in several processes that share each batch.

    \b
    tfsft launch --workers 2 -- run image_cls --data flowers/
    tfsft launch --engine ray --workers 8 -- run image_cls --data /shared/flowers

    When one of them dies, the others are ended, and all start again from the last checkpoint as
    often as --max-restarts allows.
    """,
)
@click.option(
    "--workers", type=click.IntRange(1), default=2, show_default=True, help="How many processes."
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where they are: on this machine, or placed by Ray Train on those of a Ray cluster.",
)
@click.option(
    "--max-restarts",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="How often to start again after a worker has died.",
)
@click.option("--debug", is_flag=True, help="Show tracebacks and TensorFlow's own messages.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="run RECIPE ...")
def command(
    workers: int, engine: str, max_restarts: int, debug: bool, words: tuple[str, ...]
) -> int:
    """Starts the workers, and starts them again while that is allowed."""
    options = run_options(words)
    started = time.strftime(f"runs/{Path(words[1]).stem}-%Y%m%d-%H%M%S")
    folder = options.resume or options.run_dir or started
    typed = ["launch", "--workers", str(workers), "--max-restarts", str(max_restarts)]
    typed += [] if engine == "local" else ["--engine", engine]
    environment = {COMMAND: shlex.join([*typed, "--", *words])}
    words = words_for([*words, *(["--debug"] if debug and "--debug" not in words else [])], folder)
    if engine == "ray":
        again = shlex.join(["tfsft", *typed, "--", *words])
        run_on_ray(words, folder, workers, max_restarts, environment, again)
        return 0
    os.environ |= environment
    group = LocalWorkers(workers, Path(folder))
    for restarts_left in range(max_restarts, -1, -1):
        code = group.run(words)
        if code == 0 or group.may_not_restart or not restarts_left:
            break
        click.echo(f"Starting again ({restarts_left - 1} more times at most) ...", err=True)
    return code


def run_options(words: Sequence[str]) -> RunOptions:
    """Checks the words of `tfsft run RECIPE ...`, and returns what they say about the run folder.

    Raises:
        UsageError: They are another command, or choose devices in another way.
    """
    if list(words[:1]) != ["run"] or len(words) < 2:
        raise UsageError(
            f"`tfsft launch` was given the command '{shlex.join(words[:2])}'.",
            "It starts `run RECIPE ...` in several processes.",
            "For example: tfsft launch --workers 2 -- run image_cls --data flowers/",
        )
    # Wrong options are told here, once and before anything starts.
    context = click.Context(run_command, info_name="run", obj=click.get_current_context().obj)
    recipe = run_command.get_command(context, words[1])
    if recipe is None:
        raise UsageError(
            f"'{words[1]}' is no recipe.", "The recipe comes before its options: run RECIPE ..."
        )
    given = recipe.make_context(words[1], list(words[2:]), parent=context).params
    if given["strategy"] not in (None, "auto", "multiworker"):
        raise UsageError(
            f"`tfsft launch` was given --strategy {given['strategy']}.",
            "Its processes train together by --strategy multiworker.",
            "Leave --strategy out, or use `tfsft run`.",
        )
    folders = {name: given[name] for name in ("run_dir", "resume")}
    options = going_on(RunOptions(**folders, go_on=bool(given["go_on"])))
    check_folders(options)
    return options


def words_for(words: Sequence[str], folder: str) -> list[str]:
    """Returns the words that every worker is started with, whether to begin or to go on."""
    kept = without_options(words, ("--resume", "--run-dir", "--strategy"))
    kept = [word for word in kept if word not in ("--go-on", "--no-go-on")]
    return [*kept, "--strategy", "multiworker", "--run-dir", folder, "--go-on"]
