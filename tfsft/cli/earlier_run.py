"""`tfsft run --from RUN`: what of a finished run goes for one that trains its model further."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfsft.cli.recipe_files import installed_recipes, is_installed
from tfsft.config import RecipeInfo, check_values, option_name, read_settings, show_value
from tfsft.errors import UsageError

MAX_FORGETTING = 2.0
# What a run does not hand on, and columns: they are about the old data, or about who taught it.
ITS_OWN = {"data", "tfds_dir", "limit", "on_bad", "teacher"}
OF_MODEL = ("backbone", "image_size", "hidden_units", "pooling", "multi_label", "regression",
            "template")  # fmt: skip


@dataclass(frozen=True)
class Earlier:
    """The run that another one goes on from.

    Args:
        run: Its folder.
        max_forgetting: As the option of that name.
    """

    run: Path
    max_forgetting: float


def find(options: Any, values: Mapping[str, Any]) -> Earlier | None:
    """Returns the run that is named, or the one that a resumed run was begun from.

    Args:
        options: Those of `tfsft run`.
        values: The recipe's settings as typed.

    Raises:
        UsageError: They do not go together.
    """
    known = _stored(Path(options.resume)) if options.resume else {}
    given = Path(options.from_).absolute() if options.from_ else None
    if options.resume and given is not None and str(given) != known.get("run"):
        raise UsageError(
            f"--from {options.from_} was given with --resume {options.resume}.",
            "A resumed run goes on from where it began; --from begins a new one.",
            "Leave out one of them.",
        )
    if known and not Path(known["run"]).is_dir():
        raise UsageError(
            f"{known['run']} is not there, and {options.resume} trains its model further.",
            "Its weights and its data are needed to the end.",
            "Bring it back to where it was.",
        )
    if given is None and not known:
        if options.max_forgetting is not None:
            raise UsageError("--max-forgetting was given without --from.", fix="Leave it out.")
        return None
    if not known and "data" not in values and not options.config:
        raise UsageError(
            f"--from {options.from_} was given without --data.",
            "New data to train its model on; its own is mixed in.",
            f"Go on with the same data by --resume {options.from_} --epochs N.",
        )
    most = options.max_forgetting
    most = known.get("max_forgetting", MAX_FORGETTING) if most is None else most
    return Earlier(given or Path(known["run"]), most)


def settings(run: Path, info: RecipeInfo, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of a finished run that go for another one.

    Args:
        run: Its folder.
        info: The recipe.
        values: Settings as typed.

    Raises:
        UsageError: It is no finished run of such a recipe, or what was typed does not fit its
            model.
    """
    from tfsft.evaluation.finished_run import read_task
    from tfsft.untrusted import read_json

    task, file = read_task(run), run / "config.json"
    recipe = read_json(file).get("recipe")
    if recipe != info.name and recipe in installed_recipes() and is_installed(info):
        raise UsageError(
            f"{run} is a run of {recipe}, and the recipe given is {info.name}.",
            "A model is trained further by the recipe that made it.",
            f"tfsft run {recipe} --from {run}",
        )
    found = check_values(info.fields, read_settings(file), file=file)
    size = task.get("image_size")
    if "image_size" in found and isinstance(size, int):
        found["image_size"] = size
    typed = check_values(info.fields, values)
    for name in OF_MODEL:
        if name in typed and typed[name] != found.get(name, typed[name]):
            raise UsageError(
                f"{option_name(name)} {show_value(typed[name])} was given with --from, and the "
                f"model of {run} has {show_value(found[name])}.",
                "A model that is trained further stays what it is.",
                "Leave it out, or train a new model without --from.",
            )
    return {
        name: value
        for name, value in found.items()
        if name not in ITS_OWN and not name.endswith("_column")
    }


def _stored(run: Path) -> dict[str, Any]:
    try:
        return json.loads((run / "config.json").read_text(encoding="utf-8")).get("from") or {}
    except (OSError, ValueError):  # object storage is not looked into
        return {}
