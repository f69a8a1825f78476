"""`tfsft distill`: trains a smaller model to answer as a finished run does."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click

from tfsft.cli.recipe_files import find_recipe, installed_recipes
from tfsft.cli.recipe_group import RecipeCommand, RecipeGroup
from tfsft.cli.run import RunOptions, run
from tfsft.config import RecipeInfo, read_recipe, read_settings
from tfsft.errors import UsageError

# What says which examples there are, taken over from the teacher.
OF_THE_DATA = (
    *("data", "image_column", "text_column", "text_pair_column", "label_column", "group_column"),
    *("multi_label", "regression", "validation_fraction", "test_fraction", "limit", "on_bad"),
    *("tfds_dir", "seed"),
)


@dataclass(frozen=True, kw_only=True)
class DistillOptions(RunOptions):
    """The student, and where to train it; as for `tfsft run`."""

    student: str | None = None


DistillOptions.__doc__ = f"""{RunOptions.__doc__.rstrip()}
        student: The backbone of the smaller model: a name or a folder, as for --backbone.
"""


class _DistillGroup(RecipeGroup):
    """A command whose first word is a run, and whose options are those of the run's recipe."""

    recipe_comes_first = False

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.subcommand_metavar = "RUN --student BACKBONE [OPTIONS]"

    def list_commands(self, ctx: click.Context) -> list[str]:
        """No run is known by name."""
        return []

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Returns the command with the options of the recipe of a run."""
        if cmd_name.startswith("-"):
            return None
        try:
            return RecipeCommand(self, recipe_of(Path(cmd_name)))
        except UsageError:
            if ctx.resilient_parsing:
                return None
            raise


def recipe_of(folder: Path) -> RecipeInfo:
    """Returns the recipe of a finished run, where a model can learn from it.

    Raises:
        UsageError: The folder is no finished run, or its recipe has no setting `teacher`.
    """
    from tfsft.evaluation.finished_run import read_task
    from tfsft.untrusted import read_json

    read_task(folder)
    name = read_json(folder / "config.json").get("recipe")
    copy = folder / "recipe.py"
    info = find_recipe(name) if name in installed_recipes() else read_recipe(copy)
    if not {"teacher", "backbone"} <= {field.name for field in info.fields}:
        raise UsageError(
            f"{folder} is a run of {name}, which cannot be distilled.",
            "Recipes with the settings `teacher` and `backbone` can: image_cls and text_cls.",
            "Train a smaller model of its own: tfsft run RECIPE --backbone ...",
        )
    return info


def distill(info: RecipeInfo, values: dict[str, Any], options: DistillOptions) -> None:
    """Runs the recipe on the teacher's data with the student's backbone."""
    teacher = click.get_current_context().info_name
    for name in ("teacher", "backbone"):
        if name in values:
            raise UsageError(
                f"`tfsft distill` was given --{name}.",
                "The teacher is the run, the backbone is --student.",
                f"Leave out --{name}.",
            )
    student = options.student
    if student is None:
        raise UsageError(
            "--student is missing.",
            "It is the backbone of the smaller model.",
            f"tfsft distill {teacher} --student mobilenetv2"
            if info.name == "image_cls"
            else f"tfsft distill {teacher} --student minilm",
        )
    settings = read_settings(Path(teacher, "config.json"))
    values = {
        **{name: settings[name] for name in OF_THE_DATA if name in settings},
        **values,
        "teacher": teacher,
        "backbone": student,
    }
    own = {field.name: getattr(options, field.name) for field in fields(RunOptions)}
    run(info, values, RunOptions(**own))


command = _DistillGroup(
    "distill",
    DistillOptions,
    distill,
    help="""Train a smaller model to answer as a finished run does.

    tfsft distill runs/image_cls-... --student mobilenetv2

    The data is the run's; all options of its recipe may be given.
    """,
)
