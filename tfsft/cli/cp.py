"""`tfsft cp`: a recipe of one's own begins as a copy."""

from pathlib import Path

import click
from click.shell_completion import CompletionItem

from tfsft.cli.recipe_files import installed_recipes
from tfsft.errors import UsageError, nearest


def _complete(ctx: click.Context, param: click.Parameter, typed: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in installed_recipes() if name.startswith(typed)]


@click.command("cp")
@click.argument("name", shell_complete=_complete)
@click.argument("file", type=click.Path(path_type=Path))
def command(name: str, file: Path) -> None:
    """Copy the recipe NAME to FILE, to edit it."""
    recipes = installed_recipes()
    if name not in recipes:
        known = f"The recipes are: {', '.join(recipes) or 'none installed'}."
        raise UsageError(f"There is no recipe '{name}'.", known, nearest(name, recipes).strip())
    if file.is_dir():
        file = file / name
    if file.suffix != ".py":
        file = file.with_name(f"{file.name}.py")
    if not file.parent.is_dir():
        raise UsageError(
            f"There is no folder {file.parent}.",
            "FILE lies in a folder that exists.",
            f"`mkdir -p {file.parent}` makes it.",
        )
    try:
        with file.open("xb") as copy:
            copy.write(recipes[name].read_bytes())
    except FileExistsError:
        raise UsageError(
            f"{file} exists.", "An existing file is never overwritten.", "Choose another name."
        ) from None
    click.echo(
        f"Wrote {file}, a copy of the recipe {name}. Edit it, then:\n\n    tfsft run {file}\n"
    )
