"""Who may import whom, and what must stay quick to import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Imports go from right to left only; parts that share a place do not know each other, but for
# the first ones.
ORDER = [
    {"__init__", "errors", "config", "cache", "cluster", "untrusted"},
    {"data", "models"},
    {"evaluation"},
    {"training", "search"},
    {"export"},
    {"cli"},
    {"__main__"},
]
PLACE = {part: place for place, parts in enumerate(ORDER) for part in parts}


def imported_names(path, package):
    """Yields the dotted names a file imports from tfsft, also inside functions."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: -node.level + 1 or None] if node.level else []
            module = ".".join([*parents, *filter(None, [node.module])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "tfsft")


def part_of(dotted):
    """`tfsft.data.splits` -> `data`; a name of the package itself (`__version__`) -> `__init__`."""
    second = (*dotted.split("."), "__init__")[1]
    return second if second in PLACE or second == "recipes" else "__init__"


def wrong_imports(path, package):
    """Returns the imports of a file of tfsft that go the wrong way."""
    own = part_of(f"{package}.{path.stem}")
    allowed = {own, *(part for part in PLACE if PLACE[part] < (PLACE[own] or 1))}
    allowed |= {"recipes"} if own == "cli" else set()
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for name in imported_names(path, package)
        if part_of(name) not in allowed
    ]


def library_files():
    return [
        pytest.param(
            path,
            ".".join(path.parent.relative_to(ROOT).parts),
            id="/".join(path.relative_to(ROOT / "tfsft").parts),
        )
        for path in sorted((ROOT / "tfsft").rglob("*.py"))
    ]


@pytest.mark.parametrize(("path", "package"), library_files())
def test_imports_go_one_way(path, package):
    assert wrong_imports(path, package) == []


def test_every_part_has_its_place():
    parts = {path.stem for path in (ROOT / "tfsft").iterdir() if not path.name.startswith(".")}
    assert parts - {"__pycache__"} == set(PLACE)


def test_the_server_is_imported_by_its_command_alone():
    own = {ROOT / "tfsft" / "cli" / "serve.py", *(ROOT / "tfsft" / "export" / "serving").iterdir()}
    importers = [
        path
        for path in (ROOT / "tfsft").rglob("*.py")
        if any(
            name.startswith("tfsft.export.serving")
            for name in imported_names(path, ".".join(path.parent.relative_to(ROOT).parts))
        )
    ]
    assert set(importers) <= own
    assert ROOT / "tfsft" / "cli" / "serve.py" in importers


@pytest.mark.parametrize(
    ("file", "line", "wrong"),
    [
        ("data/x.py", "from tfsft.models import resolve", True),
        ("data/x.py", "from tfsft import models", True),
        ("data/x.py", "from ..models import resolve", True),
        ("data/x.py", "from .splits import Splits", False),
        ("data/x.py", "from tfsft import errors, __version__", False),
        ("models/x.py", "import tfsft.data.splits", True),
        ("training/x.py", "def f():\n    from tfsft.cli import main", True),
        ("training/x.py", "from tfsft.evaluation import write_report", False),
        ("training/x.py", "from tfsft.recipes import image_cls", True),
        ("training/callbacks/x.py", "from ...export import predict", True),
        ("cli/x.py", "from tfsft.recipes import image_cls", False),
        ("config.py", "from tfsft.errors import UsageError", False),
        ("config.py", "from tfsft.data import load_images", True),
    ],
)
def test_the_check_itself(tmp_path, monkeypatch, file, line, wrong):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "tfsft" / file
    path.parent.mkdir(parents=True)
    path.write_text(line)
    package = ".".join(path.parent.relative_to(tmp_path).parts)
    assert bool(wrong_imports(path, package)) == wrong


@pytest.mark.parametrize(
    "path", sorted((ROOT / "recipes").glob("*.py")), ids=lambda path: path.stem
)
def test_recipes_use_the_library_and_never_the_command_line(path):
    assert {part_of(name) for name in imported_names(path, "tfsft.recipes")} <= set(PLACE) - {"cli"}


def test_the_command_line_starts_without_the_heavy_packages():
    code = (
        "import sys, tfsft.cli, tfsft.config, tfsft.errors\n"
        "heavy = {'tensorflow', 'keras', 'numpy', 'matplotlib', 'rich', 'sklearn'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
