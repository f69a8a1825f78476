"""`tfsft run`: what is refused before anything heavy is imported, and what reaches the training."""

import json
import sys
import types
from dataclasses import asdict

import pytest

from tfsft.cli import main


@pytest.fixture
def refused(tfsft):
    """Expects exit code 2 with nothing heavy imported, and returns the message."""

    def run(*words):
        done = tfsft(*words, python=("-X", "importtime"))
        lines = done.stderr.splitlines()
        imported = {line.rsplit("|")[-1].strip() for line in lines if "import time:" in line}
        assert not {"numpy", "tensorflow"} & imported
        assert done.returncode == 2
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        return "\n".join(line for line in lines if "import time:" not in line)

    return run


@pytest.fixture
def folders(tmp_path):
    """A folder with a run, one with something else, one that is empty, and a file."""
    for name in ("run", "other", "empty"):
        (tmp_path / name).mkdir()
    settings = {"epochs": 7, "limit": 50, "seed": 3}
    content = {"format": 1, "recipe": "toy_recipe", "settings": settings}
    (tmp_path / "run" / "config.json").write_text(json.dumps(content))
    (tmp_path / "other" / "config.json").write_text("{}")
    (tmp_path / "file").write_text("x")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--epoch 3", "Error: There is no option --epoch.\nDid you mean '--epochs'?"),
        ("--learning_rate 1", "Did you mean '--learning-rate'?"),
        ("--no-early-stoping", "Did you mean '--no-early-stopping'?"),
        ("--epochs 0", "Error: --epochs is 0.\nIt must be a whole number, 1 or more.\nThe default"),
        ("--epochs=many", "Error: --epochs is many."),
        ("--epochs", "Error: Option '--epochs' requires an argument."),
        ("--schedule cosin", "Did you mean 'cosine'?"),
        ("--strategy mirored", "Did you mean 'mirrored'?"),
        ("--precision float16", "one of auto, float32, mixed_bfloat16, mixed_float16."),
        ("3", "Error: Got unexpected extra argument (3)."),
        ("--config no.json", "Error: no.json cannot be read: No such file or directory."),
        ("--config other/config.json --dropout 1", "Error: --dropout is 1."),
        ("--run-dir other", "Error: The folder other is not empty."),
        ("--run-dir run", "--resume run goes on with it."),
        ("--run-dir file", "Error: --run-dir file is a file."),
        ("--resume other", "Error: other is not a run folder."),
        ("--resume empty", "Error: empty is not a run folder."),
        ("--resume nowhere", "Error: nowhere is not a run folder."),
        ("--resume run --run-dir empty", "Error: --run-dir is empty and --resume is run."),
        ("--resume run --epochs 0", "Error: --epochs is 0."),
    ],
)
def test_mistakes_in_the_options(refused, folders, toy_recipe, words, expected):
    assert expected in refused("run", toy_recipe, *words.split())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("run image_clss", "Error: There is no recipe image_clss."),
        ("run image_clss", "Did you mean 'image_cls'?"),
        ("run image_clss.py", "Error: There is no file image_clss.py."),
        ("run toy", "Did you mean 'toyz.py'?"),
        ("run folder", "Error: The recipe folder cannot be read: Is a directory."),
        ("run toyz.py", "Error: toyz.py, line 1: "),
        ("run --epochs 3 toyz.py", "The recipe comes before its options: `tfsft run RECIPE ...`."),
        ("run", "Usage: tfsft run RECIPE [OPTIONS]"),
    ],
)
def test_mistakes_in_the_recipe(refused, tmp_path, words, expected):
    (tmp_path / "folder").mkdir()
    (tmp_path / "toyz.py").write_text("def:\n")
    assert expected in refused(*words.split())


def test_a_setting_called_like_an_option_of_run(refused, tmp_path, toy_recipe):
    recipe = tmp_path / "twin.py"
    recipe.write_text(toy_recipe.read_text().replace("limit:", "devices:"))
    assert "two settings share the option --devices" in refused("run", recipe)


def test_another_backend(tfsft, toy_recipe):
    done = tfsft("run", toy_recipe, KERAS_BACKEND="jax")
    assert done.returncode == 2
    assert "Error: KERAS_BACKEND is jax." in done.stderr


@pytest.fixture
def training(monkeypatch):
    """Stands in for tfsft.training, which takes seconds to import: keeps what Run was given."""

    class Run:
        given = None

        def __init__(self, **given):
            Run.given = types.SimpleNamespace(**given)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    module = types.ModuleType("tfsft.training")
    module.Run = Run
    monkeypatch.setitem(sys.modules, "tfsft.training", module)
    return Run


def started(training, *words):
    assert main(["run", *map(str, words)]) == 0
    return training.given


class TestWhatReachesTheTraining:
    def test_settings_from_options(self, training, toy_recipe, capsys):
        words = ["--epochs", "5", "--learning-rate", "1e-4", "--no-early-stopping", "--limit=9"]
        given = started(training, toy_recipe, *words, "--schedule", "linear", "--run-dir", "new")
        expected = {
            "data": "digits",
            "epochs": 5,
            "learning_rate": 1e-4,
            "dropout": 0.2,
            "schedule": "linear",
            "limit": 9,
            "early_stopping": False,
            "batch_size": 32,
            "seed": 0,
        }
        assert asdict(given.settings) == expected
        assert json.loads(capsys.readouterr().out) == expected  # main got them too
        assert (given.recipe, given.recipe_file) == ("toy_recipe", toy_recipe)
        assert (given.run_dir, given.resume) == ("new", None)
        assert (given.strategy, given.devices, given.precision) == ("auto", None, "auto")
        assert given.debug is False
        assert given.command[:4] == ["tfsft", "run", str(toy_recipe), "--epochs"]

    def test_the_settings_are_of_the_recipes_own_class(self, training, toy_recipe):
        given = started(training, toy_recipe)
        assert type(given.settings) is sys.modules["_tfsft_recipe_toy_recipe"].Config

    def test_options_of_run(self, training, toy_recipe):
        words = ["--strategy", "mirrored", "--devices", "cpu:0,cpu:1", "--precision", "float32"]
        given = started(training, toy_recipe, *words)
        assert (given.strategy, given.devices) == ("mirrored", "cpu:0,cpu:1")
        assert given.precision == "float32"

    def test_an_empty_run_folder_will_do(self, training, toy_recipe, folders):
        assert started(training, toy_recipe, "--run-dir", folders / "empty")

    def test_a_resumed_run_has_its_own_settings_and_options_win(
        self, training, toy_recipe, folders
    ):
        run = folders / "run"
        given = started(training, toy_recipe, "--resume", run, "--epochs", "9")
        settings = given.settings
        assert (settings.epochs, settings.limit, settings.seed) == (9, 50, 3)
        assert (given.resume, given.run_dir) == (str(run), None)

    def test_a_settings_file(self, training, toy_recipe, folders):
        file = folders / "settings.json"
        file.write_text('{"epochs": 4, "dropout": 0.5}')
        given = started(training, toy_recipe, "--config", file, "--dropout", "0.1")
        assert (given.settings.epochs, given.settings.dropout) == (4, 0.1)

    @pytest.mark.parametrize("before", [True, False])
    def test_debug_before_and_after_the_command(self, training, toy_recipe, before):
        words = ["run", str(toy_recipe)]
        assert main(["--debug", *words] if before else [*words, "--debug"]) == 0
        assert training.given.debug is True

    def test_a_recipe_by_its_name_is_the_installed_one(self, training, monkeypatch):
        recipe = types.ModuleType("tfsft.recipes.image_cls")
        seen = []
        recipe.Config = lambda **settings: settings
        recipe.main = lambda config, run: seen.append(config)
        monkeypatch.setitem(sys.modules, "tfsft.recipes.image_cls", recipe)
        assert started(training, "image_cls", "--epochs", "2").recipe == "image_cls"
        assert seen[0]["epochs"] == 2


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("import a_module_that_is_nowhere", "ModuleNotFoundError: No module named 'a_module_that"),
        ("from json import nothing", "ImportError: cannot import name 'nothing'"),
        ("undefined", "NameError: name 'undefined' is not defined"),
    ],
)
def test_a_recipe_that_cannot_be_imported(training, tmp_path, toy_recipe, capsys, line, expected):
    recipe = tmp_path / "broken.py"
    recipe.write_text(f"{toy_recipe.read_text()}\n\n{line}\n")
    number = recipe.read_text().splitlines().index(line) + 1
    assert main(["run", str(recipe)]) == 1
    said = capsys.readouterr().err
    assert f"Error: {recipe}, line {number}: {expected}" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("statement", "code", "expected"),
    [
        ("raise KeyboardInterrupt", 130, "Stopped."),
        ("raise Stopped(15, 'tfsft run x --resume y')", 143, "\n    tfsft run x --resume y\n"),
        ("raise UserError('flowers/ is empty.')", 1, "Error: flowers/ is empty."),
        ("raise UsageError('--unfreeze is x.')", 2, "Error: --unfreeze is x."),
        ("raise MemoryError", 1, "Error: Out of memory with --batch-size 16.\nTry --batch-size 8."),
        ("config.epoch", 1, "mine.py, line 5: AttributeError: 'Config' object has no attribute"),
        ("run.strategy.scope()", 1, "mine.py, line 5: AttributeError: 'Run' object has no"),
    ],
)
def test_how_a_training_may_end(training, tmp_path, toy_recipe, capsys, statement, code, expected):
    head = (
        "from tfsft.errors import *\nfrom tfsft.errors import Stopped\n\ndef main(config, run):\n"
    )
    recipe = tmp_path / "mine.py"
    text = toy_recipe.read_text().replace("def main", "def unused")
    recipe.write_text(f"{head}    {statement}\n\n{text}")
    assert main(["run", str(recipe), "--batch-size", "16"]) == code
    said = capsys.readouterr().err
    assert expected in said
    assert "Traceback" not in said
