"""Finding recipes by name or path, and importing one."""

import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from tfsft.config import RecipeInfo, read_recipe
from tfsft.errors import UsageError, UserError, nearest

_PACKAGE = "tfsft.recipes"


def installed_recipes() -> dict[str, Path]:
    """Returns name -> file of the recipes that came with tfsft."""
    spec = importlib.util.find_spec(_PACKAGE)
    files = (
        file for folder in spec.submodule_search_locations for file in Path(folder).glob("*.py")
    )
    return {file.stem: file for file in sorted(files) if not file.stem.startswith("_")}


def find_recipe(word: str) -> RecipeInfo:
    """Reads the recipe that a person named, by a path or by a name from `tfsft ls`.

    Raises:
        UsageError: There is none, or it does not keep the recipe contract.
    """
    installed = installed_recipes()
    if word in installed:
        return read_recipe(installed[word])
    path = Path(word)
    if path.exists():
        return read_recipe(path)
    kind = "file" if path.suffix == ".py" else "recipe"
    raise UsageError(f"There is no {kind} {word}.", _listing(installed), _guess(path, installed))


def _listing(installed: dict[str, Path]) -> str:
    return (
        f"A recipe is a path ending in .py, or one of: {', '.join(installed) or 'none installed'}."
    )


def _guess(path: Path, installed: dict[str, Path]) -> str:
    """Names the file beside a missing `path`, or the installed recipe, that is most like it."""
    neighbours = {file.name: file for file in path.parent.glob("*.py")}
    guess = nearest(path.name, neighbours).strip()
    return guess or nearest(path.stem, installed).strip()


def is_installed(info: RecipeInfo) -> bool:
    """Whether a recipe is the very file that came with tfsft, by whichever path it was named."""
    installed = installed_recipes().get(info.name)
    return installed is not None and installed.resolve() == info.path.resolve()


def import_recipe(info: RecipeInfo) -> ModuleType:
    """Imports a recipe: an installed one as `tfsft.recipes.NAME`, any other by its path.

    Raises:
        UserError: The recipe fails to import; the message names the file and line.
    """
    try:
        if is_installed(info):
            return importlib.import_module(f"{_PACKAGE}.{info.name}")
        # A private name, so that a recipe called like a library never hides it.
        name = f"_tfsft_recipe_{info.name}"
        spec = importlib.util.spec_from_file_location(name, info.path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # where dataclasses and pickle look a class's module up
        spec.loader.exec_module(module)
        return module
    except UserError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        path = info.path.absolute()
        lines = [frame.lineno for frame in frames if Path(frame.filename) == path]
        at = f"{info.path}, line {lines[-1]}" if lines else str(info.path)
        fix = ""
        if isinstance(error, ModuleNotFoundError):
            fix = f"Is it installed? `{sys.executable} -m pip install ...`"
        raise UserError(f"{at}: {type(error).__name__}: {error}.", "", fix) from error
