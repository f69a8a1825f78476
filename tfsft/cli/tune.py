"""`tfsft tune`: looks for good settings of a recipe."""

import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import click

from tfsft.cli.recipe_files import is_installed
from tfsft.cli.recipe_group import RecipeGroup
from tfsft.config import RecipeInfo, make_config, to_dict, to_options, without_options
from tfsft.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """What to try, and how; the recipe's own settings say what all trials have in common.

    Args:
        space: What to try of a setting: `learning_rate=1e-5..1e-3:log`, `dropout=0..0.5` or
            `batch_size=16,32,64`.
        trials: How many runs in all; 20, or as many as before where a search goes on.
        metric: The figure that decides, a column of history.csv such as val_accuracy; by default
            the one that a run keeps its best epoch by.
        prune: End a trial when it is worse than the median of the others at the same epoch.
        run_dir: Folder for the search; by default a new one, runs/RECIPE-tune-DATE-TIME.
        resume: Go on with the search in this folder.
        config: Take settings from this file, as for `tfsft run`.
        strategy: As for `tfsft run`.
        devices: As for `tfsft run`.
        precision: As for `tfsft run`.
        debug: Show tracebacks.
    """

    space: tuple[str, ...] = ()
    trials: Annotated[int, "1.."] | None = None
    metric: str | None = None
    prune: bool = True
    run_dir: str | None = None
    resume: str | None = None
    config: str | None = None
    strategy: Literal["auto", "one", "mirrored", "tpu"] = "auto"
    devices: str | None = None
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"
    debug: bool = False


def tune(info: RecipeInfo, values: dict[str, Any], options: TuneOptions) -> None:
    """Checks everything that can be checked at once, then runs the trials."""
    folder = _folder(info, options)
    files = [options.config] if options.config else []
    config = to_dict(make_config(info, values, files=files))

    from tfsft.search import Search, read_space

    space = read_space(info.fields, options.space, typed=values)
    fixed = [field for field in info.fields if field.name not in {d.name for d in space}]
    how = [f"--{name}={getattr(options, name)}" for name in ("strategy", "devices", "precision")
           if getattr(options, name) not in (None, "auto")]  # fmt: skip
    command = ["run", info.name if is_installed(info) else str(info.path)]
    typed = without_options(click.get_current_context().obj.words, ("--resume", "--run-dir"))
    with Search(
        folder,
        recipe=info.name,
        command=[*command, *to_options(fixed, config), *how],
        again=[*command, *how],
        settings={field.name: config[field.name] for field in fixed},
        space=space,
        trials=options.trials,
        metric=options.metric,
        prune=options.prune,
        resume_command=shlex.join(["tfsft", *typed, "--resume", str(folder)]),
    ) as search:
        search.run()
        click.echo(f"\nReport: {folder / 'report.html'}")
        if search.best_folder is None:
            raise UsageError(
                "No trial was finished.",
                "Each was pruned or has failed; the report says why.",
                "Try smaller learning rates or batches.",
            )
        click.echo(f"Best run: {search.best_folder}\nTrain it again: {search.best_command}")


def _folder(info: RecipeInfo, options: TuneOptions) -> Path:
    """Returns the folder of a new search, or of the one to go on with."""
    if options.resume:
        folder = Path(options.resume)
        if not (folder / "search.json").is_file():
            raise UsageError(
                f"{folder} is not the folder of a search.",
                "It has a search.json written by `tfsft tune`.",
                "Check the path, or leave out --resume.",
            )
        return folder
    folder = Path(options.run_dir or time.strftime(f"runs/{info.name}-tune-%Y%m%d-%H%M%S"))
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UsageError(
            f"The folder {folder} is not empty." if folder.is_dir() else f"{folder} is a file.",
            "--run-dir must be new or empty.",
            f"--resume {folder} goes on with it." if (folder / "search.json").is_file() else "",
        )
    return folder


command = RecipeGroup(
    "tune", TuneOptions, tune, help="Look for good settings of a recipe, by many runs of it."
)
