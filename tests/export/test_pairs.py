"""Which recipe is exported to which format is what the documentation says."""

import re
from pathlib import Path

import pytest

from tfsft.errors import UsageError
from tfsft.export.pairs import FOLDERS, FORMATS, GRAPHS, check_pair

ROOT = Path(__file__).parents[2]
TASK = re.compile(r'"task": "(\w+)"')


def tasks():
    """The task of each recipe, as its source says it."""
    found = {}
    for path in sorted((ROOT / "recipes").glob("[a-z]*.py")):
        if match := TASK.search(path.read_text()):
            found[path.stem] = match[1]
    return found


def accepted(task, format):
    try:
        check_pair(Path("RUN"), {"task": task}, format)
    except UsageError:
        return False
    return True


def test_the_table_of_the_documentation():
    assert set(tasks().values()) == set(FORMATS)
    formats = [*GRAPHS, *FOLDERS]
    rows = {
        recipe: [("-", "yes")[accepted(task, format)] for format in formats]
        for recipe, task in tasks().items()
    }
    text = (ROOT / "docs" / "export.md").read_text()
    table = [
        [cell.strip() for cell in line.strip("| \n").split("|")]
        for line in text.split("\n| recipe |")[1].split("\n\n")[0].splitlines()
    ]
    assert table[0] == formats
    assert {name: cells for name, *cells in table[2:]} == rows


@pytest.mark.parametrize("task", FORMATS)
def test_a_refusal_names_what_can_be(task):
    for format in (*GRAPHS, *FOLDERS):
        if not accepted(task, format) and FORMATS[task]:
            with pytest.raises(UsageError) as error:
                check_pair(Path("RUN"), {"task": task}, format)
            assert "RUN" in error.value.came
            nearest = error.value.fix.split()[-1]
            assert accepted(task, nearest)


def test_options_that_a_format_has_not(tfsft):
    done = tfsft("export", "RUN", "--quantize", "int8")
    assert done.returncode == 2
    assert "--quantize was given with --format saved_model" in done.stderr
    done = tfsft("export", "RUN", "--format", "hf", "--tolerance", "1")
    assert done.returncode == 2
    assert "--format onnx, litert, saved_model" in done.stderr
