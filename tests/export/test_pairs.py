"""Which recipe is exported to which format is what the documentation says."""

import json
import re
from pathlib import Path

import pytest

from tfsft.errors import UsageError
from tfsft.export import (
    certifying,
    certifying_logits,
    export_language_model,
    export_portable,
    export_saved_model,
)
from tfsft.export.pairs import FOLDERS, FORMATS, GRAPHS, QUANTIZE, check_pair
from tfsft.export.replaying import Replay

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


def said(task, format):
    """What the documentation should say of a pair."""
    return ", ".join(["float32", *QUANTIZE.get(format, ())]) if accepted(task, format) else "-"


def table():
    """What the documentation says: of each recipe and format what can be chosen."""
    text = (ROOT / "docs" / "export.md").read_text()
    head, _, *rows = [
        [cell.strip() for cell in line.strip("| \n").split("|")]
        for line in text.split("\n| recipe |")[1].split("\n\n")[0].splitlines()
    ]
    return {
        (recipe, format): cell
        for recipe, *cells in rows
        for format, cell in zip(head, cells, strict=True)
    }


def test_the_table_of_the_documentation():
    assert set(tasks().values()) == set(FORMATS)
    assert table() == {
        (recipe, format): said(task, format)
        for recipe, task in tasks().items()
        for format in (*GRAPHS, *FOLDERS)
    }


RUNS = {
    "image_cls": "pictures",
    "text_cls": "texts",
    "token_cls": "tags",
    "extractive_qa": "questions",
    "chat_sft": "llama",
    "seq2seq": "bart",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "format", "method"),
    [
        (*pair, method)
        for pair, cell in table().items()
        if cell != "-"
        for method in cell.split(", ")
    ],
)
def test_what_the_table_says_is_proved(
    held_out_run, writing_run, tmp_path, monkeypatch, recipe, format, method
):
    """Of random weights any answer may tip, so all of the figure may go when it is rounded."""
    for module in (certifying, certifying_logits):
        monkeypatch.setattr(module, "replay_keras", lambda *_: Replay([], 0.1, 0.1, 1))
    run = (held_out_run if format in GRAPHS else writing_run)(RUNS[recipe])
    out = tmp_path / "out"
    if method != "float32":
        export_portable(run, out, format, quantize=method, tolerance=1)
    elif format in QUANTIZE:
        export_portable(run, out, format)
    elif format in GRAPHS:
        export_saved_model(run, out, certified=True)
    else:
        export_language_model(run, out, format, certified=True)
    found = json.loads((out / "certificate.json").read_text())
    assert (found["target"], found["quantize"] or "float32") == (format, method)
    assert (out / "certificate.html").exists()
    if method == "float32":
        assert 0 <= found["difference"] < 1e-4
        assert found["agreement"] == 1.0
    else:
        assert 0 < found["difference"] < (10 if recipe == "extractive_qa" else 0.6)
        assert found["loss"] == found["keras"]["score"] - found["exported"]["score"]
        assert method in (out / "certificate.html").read_text()


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
    assert "--format onnx, litert" in done.stderr
