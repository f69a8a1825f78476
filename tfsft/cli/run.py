"""`tfsft run`: trains a recipe."""

import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import click

from tfsft.cli import earlier_run, remote_folder
from tfsft.cli.recipe_files import import_recipe, is_installed
from tfsft.cli.recipe_group import RecipeGroup
from tfsft.cli.tensorflow_start import starting_tensorflow
from tfsft.cluster import is_chief
from tfsft.config import RecipeInfo, make_config, to_dict
from tfsft.errors import UsageError

# Where `tfsft launch` puts what a person has typed, to print the command that goes on.
COMMAND = "TFSFT_COMMAND"


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How and where to train; the recipe's own settings say what.

    Args:
        run_dir: Folder for the results; by default a new one, runs/RECIPE-DATE-TIME. May lie on
            object storage: gs://bucket/folder.
        resume: Go on with the run in this folder from its last checkpoint, with its settings.
        go_on: Go on with the run in --run-dir if it has begun, so that the same command may be
            given again after a failure.
        from_: Train the model of this finished run further, with its settings, on the --data given
            here and a share of its own (--replay-share). That run stays as it is.
        max_forgetting: With --from, how much worse the model may get on the test data of that run:
            percentage points of a share such as accuracy, percent of a perplexity or an error; 2 if
            not given. A model that gets worse is refused, with exit code 3.
        config: Take settings from this file: a run's config.json, or a JSON object of names and
            values. Options typed here win over it.
        strategy: Devices to train on. `auto` takes a TPU where one is configured, else all local
            GPUs, else the CPU; `one` a single device; `mirrored` splits each batch among several;
            `multiworker` among several processes, which TF_CONFIG or Slurm names; `tfsft launch`
            starts them on one machine.
        tpu: Name or address of the TPU, with --strategy tpu.
        devices: Train on these devices only, such as `gpu:0,gpu:1`.
        precision: Number format of the computation; weights stay float32. `auto` is mixed_bfloat16
            on devices that are fast in it, else float32.
        jit: Compile what lies between matrix products by XLA. `auto` does so on processors, for
            trainings long enough to make up for the time that compiling takes.
        deterministic: Use only operations that give the same bits every time. Without the option
            they are used on a CPU, and as before where a run goes on.
        checkpoint_minutes: Save the state each time so many minutes have passed.
        checkpoint_steps: Save the state after every so many steps, too.
        keep_checkpoints: How many of the newest states are kept.
        allow_changed: Go on with a run even if its recipe, settings, data or devices have changed.
        debug: Show tracebacks and TensorFlow's own messages.
    """

    run_dir: str | None = None
    resume: str | None = None
    go_on: bool = False
    from_: str | None = None
    max_forgetting: Annotated[float, "0.."] | None = None
    config: str | None = None
    strategy: Literal["auto", "one", "mirrored", "multiworker", "tpu"] = "auto"
    tpu: str | None = None
    devices: str | None = None
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"
    jit: Literal["auto", "on", "off"] = "auto"
    deterministic: bool | None = None
    checkpoint_minutes: Annotated[float, ">0.."] = 1.0
    checkpoint_steps: Annotated[int, "1.."] | None = None
    keep_checkpoints: Annotated[int, "2.."] = 2
    allow_changed: bool = False
    debug: bool = False


def run(info: RecipeInfo, values: dict[str, Any], options: RunOptions) -> None:
    """Checks everything that can be checked at once, then imports TensorFlow and trains.

    Args:
        info: The recipe.
        values: The recipe's settings as typed.
        options: The command's own options.
    """
    options = going_on(options)
    chief = is_chief(options.strategy)
    if chief:  # the other workers' chief may be there already
        check_folders(options)
    url = options.resume or options.run_dir
    if not remote_folder.is_url(url):
        _train(info, values, options)
        return
    with remote_folder.local_copy(url, keep=chief) as folder:
        local = {"resume" if options.resume else "run_dir": str(folder)}
        _train(info, values, replace(options, **local), url)


def _train(
    info: RecipeInfo, values: dict[str, Any], options: RunOptions, url: str | None = None
) -> None:
    call = click.get_current_context().obj
    files = [Path(options.resume, "config.json")] if options.resume else []
    files += [options.config] if options.config else []
    earlier = earlier_run.find(options, values)
    defaults = earlier_run.settings(earlier.run, info, values) if earlier else {}
    config = make_config(info, values, files=files, defaults=defaults)

    with starting_tensorflow(call.debug):
        from tfsft.export import EarlierRun
        from tfsft.training import Run

        module = import_recipe(info)

    # From here on a recipe sees its own class, not the one made out of the parsed file.
    config = module.Config(**to_dict(config))
    call.settings = config
    call.recipe = None if is_installed(info) else info.path.absolute()
    with Run(
        recipe=info.name,
        recipe_file=info.path,
        settings=config,
        run_dir=options.run_dir,
        resume=options.resume,
        url=url,
        strategy=options.strategy,
        tpu=options.tpu,
        devices=options.devices,
        precision=options.precision,
        jit=options.jit,
        deterministic=options.deterministic,
        checkpoint_minutes=options.checkpoint_minutes,
        checkpoint_steps=options.checkpoint_steps,
        keep_checkpoints=options.keep_checkpoints,
        allow_changed=options.allow_changed,
        debug=call.debug,
        earlier=EarlierRun(earlier.run, earlier.max_forgetting) if earlier else None,
        command=["tfsft", *_typed(call.words)],
    ) as started:
        module.main(config, started)


def going_on(options: RunOptions) -> RunOptions:
    """Resumes what is in --run-dir, if --go-on is given and a run is there."""
    if not options.go_on or options.resume:
        return options
    if not options.run_dir:
        raise UsageError(
            "--go-on was given without --run-dir.",
            "It goes on with the run in that folder, or begins it.",
        )
    if is_run(options.run_dir):
        return replace(options, resume=options.run_dir, run_dir=None)
    return options


def check_folders(options: RunOptions) -> None:
    """Refuses a folder that holds something already, or a run to resume that is none."""
    folder = options.run_dir
    if options.resume:
        if folder and Path(folder).resolve() != Path(options.resume).resolve():
            raise UsageError(
                f"--run-dir is {folder} and --resume is {options.resume}.",
                "A run goes on in its own folder.",
                "Leave out --run-dir.",
            )
        if not is_run(options.resume):
            raise UsageError(
                f"{options.resume} is not a run folder.",
                "A run folder has a config.json written by `tfsft run`.",
            )
    elif folder:
        if not remote_folder.is_url(folder) and Path(folder).is_file():
            raise UsageError(f"--run-dir {folder} is a file.", "It must be a new or empty folder.")
        if not _is_empty(folder):
            fix = f"--resume {folder} goes on with it." if is_run(folder) else ""
            raise UsageError(
                f"The folder {folder} is not empty.", "--run-dir must be new or empty.", fix
            )


def _typed(words: Sequence[str]) -> Sequence[str]:
    """Returns what a person has typed, where `tfsft launch` has started this process."""
    launched = os.environ.get(COMMAND)
    return shlex.split(launched) if launched else words


def _is_empty(folder: str) -> bool:
    if remote_folder.is_url(folder):
        return remote_folder.RemoteFolder(folder).is_empty()
    return not Path(folder).exists() or not any(Path(folder).iterdir())


def is_run(folder: str) -> bool:
    """Whether a folder is that of a run."""
    try:
        if remote_folder.is_url(folder):
            content = json.loads(remote_folder.RemoteFolder(folder).read("config.json") or "null")
        else:
            content = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "format" in content and "settings" in content


command = RecipeGroup(
    "run", RunOptions, run, help="Train a recipe: a name of `tfsft ls`, or a file."
)
