"""Settings: what a recipe file may say, what a value may be, and what a mistake is answered."""

import json
from dataclasses import asdict, dataclass
from typing import Annotated, Literal, Optional

import pytest

from tfsft.config import (
    Range,
    make_config,
    read_args,
    read_fields,
    read_recipe,
    read_settings,
    to_dict,
    without_options,
)
from tfsft.errors import UsageError

RECIPE = '''"""Title line.

More.
"""
from __future__ import annotations
import a_module_that_is_nowhere
raise SystemExit("a recipe is never executed to read its settings")

@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings.

    Args:
        data: Where the
            data lies: a folder.
        rate: Step size.
    """
    data: str
    rate: Annotated[float, ">0..1"] = 1e-3
    schedule: Literal["linear", "cosine"] | None = None
    seed: int = 0

def main(config, run): ...
'''


@pytest.fixture
def recipe(tmp_path):
    def write(text):
        path = tmp_path / "recipe.py"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def toy(toy_recipe):
    return read_recipe(toy_recipe)


def message(call, *arguments, **named):
    with pytest.raises(UsageError) as caught:
        call(*arguments, **named)
    return str(caught.value)


class TestReadRecipe:
    def test_reads_settings_without_executing_the_recipe(self, recipe):
        info = read_recipe(recipe(RECIPE))
        assert (info.name, info.doc) == ("recipe", "Title line.\n\nMore.")
        data, rate, schedule, seed = info.fields
        assert data.required
        assert data.help == "Where the data lies: a folder."
        assert (rate.option, rate.default, rate.help) == ("--rate", 1e-3, "Step size.")
        assert (schedule.choices, schedule.optional, schedule.default) == (
            ("linear", "cosine"),
            True,
            None,
        )
        assert (seed.kind, seed.default, seed.help) == (int, 0, "")

    @pytest.mark.parametrize(
        ("old", "new", "expected"),
        [
            ("class Config", "class Settings", "has no class `Config`"),
            ("def main", "def train", "has no function `main(config, run)`"),
            ("frozen=True, ", "", "line 10: Config is not a frozen, keyword-only dataclass"),
            ("@dataclass(frozen=True, kw_only=True)\n", "", "not a frozen, keyword-only"),
            ("class Config:", "class Config(Base):", "line 10: Config has a base class"),
            ("    seed: int = 0\n", "", "Config has no field `seed`"),
            ("seed: int = 0", "seed = 0", "line 21: `seed = 0` has no type"),
            ("seed: int = 0", "seed: int = DEFAULT", "line 21: Config uses the name `DEFAULT`"),
            ("seed: int = 0", "seed: int = ().__class__", "line 21: Config uses `().__class__`"),
            ("seed: int = 0", "def f(self): ...", "line 21: Config holds something else"),
            ("seed: int = 0", "seed: int = int('x')", "Config cannot be made: ValueError"),
            ("seed: int = 0", "seed: list = 0", "Config uses the name `list`"),
            ("seed: int = 0", "seed: int | str = 0", "`seed`: the type"),
            ("seed: int = 0", "seed: typing.Any = 0", "`seed`: the type Any cannot be an option"),
            ("seed: int = 0", 'seed: int = "x"', "the default of `seed` is wrong: --seed is x."),
            (">0..1", "0 to 1", "`rate`: '0 to 1' is not a range"),
            ("1e-3", "2.0", "the default of `rate` is wrong: --rate is 2.0."),
            ("def main", "def main:", "line 23: "),
            ("import a_", "\0", "recipe.py: source code string cannot contain null bytes"),
        ],
    )
    def test_a_recipe_that_breaks_the_contract(self, recipe, old, new, expected):
        assert RECIPE.count(old) == 1
        path = recipe(RECIPE.replace(old, new))
        said = message(read_recipe, path)
        assert str(path) in said
        assert expected in said

    def test_a_missing_file_and_a_folder(self, tmp_path):
        assert "cannot be read: No such file" in message(read_recipe, tmp_path / "no.py")
        assert "cannot be read: Is a directory" in message(read_recipe, tmp_path)

    def test_a_nearby_name_is_suggested(self, recipe):
        assert "Did you mean 'Literal'?" in message(
            read_recipe, recipe(RECIPE.replace("Literal[", "Litteral["))
        )

    def test_quoted_types_and_the_other_spellings(self, recipe):
        text = RECIPE.replace("seed: int = 0", 'seed: "int" = 0').replace(
            "@dataclass(frozen=True, kw_only=True)",
            "@dataclasses.dataclass(kw_only=True, frozen=True)",
        )
        assert read_recipe(recipe(text)).fields[-1].kind is int


class TestValues:
    def test_text_becomes_the_fields_types(self, toy):
        config = make_config(
            toy,
            {
                "data": "5",
                "epochs": "4",
                "learning_rate": "1e-4",
                "dropout": "0",
                "schedule": "linear",
                "limit": "none",
                "early_stopping": False,
                "batch_size": "16",
            },
        )
        expected = {
            "data": "5",
            "epochs": 4,
            "learning_rate": 1e-4,
            "dropout": 0.0,
            "schedule": "linear",
            "limit": None,
            "early_stopping": False,
            "batch_size": 16,
            "seed": 0,
        }
        assert to_dict(config) == expected
        assert [type(value) for value in to_dict(config).values()] == [
            type(value) for value in expected.values()
        ]

    def test_defaults(self, toy):
        assert make_config(toy) == toy.config_class()

    @pytest.mark.parametrize(
        ("name", "value", "expected"),
        [
            ("epochs", "0", "--epochs is 0.\nIt must be a whole number, 1 or more.\nThe default"),
            ("epochs", "2.5", "--epochs is 2.5."),
            ("epochs", "many", "--epochs is many."),
            ("epochs", True, "--epochs is on."),
            ("epochs", None, "--epochs is none."),
            ("epochs", [1], "--epochs is [1]."),
            ("epochs", "", "--epochs is empty."),
            ("dropout", "1", "It must be a number, from 0 to below 1.\nThe default is 0.2."),
            ("dropout", "-0.1", "--dropout is -0.1."),
            ("learning_rate", "0", "It must be a number, above 0."),
            ("learning_rate", "nan", "--learning-rate is nan."),
            ("learning_rate", float("inf"), "--learning-rate is inf."),
            ("schedule", "cosin", "one of constant, linear, cosine.\nDid you mean 'cosine'?"),
            ("batch_size", "31", "It must be one of 8, 16, 32."),
            ("limit", "0", "It must be a whole number, 1 or more, or none."),
            ("early_stopping", "perhaps", "It must be true or false.\nThe default is on."),
            ("data", 5, "--data is 5.\nIt must be text."),
            ("epoch", "3", "No setting is called --epoch.\nDid you mean '--epochs'?"),
            ("zzzzzz", "3", "No setting is called --zzzzzz.\nThere are: --data, --epochs,"),
        ],
    )
    def test_a_wrong_value_is_answered_with_the_right_ones(self, toy, name, value, expected):
        assert expected in message(make_config, toy, {name: value})

    def test_a_required_value(self, recipe):
        info = read_recipe(recipe(RECIPE))
        said = message(make_config, info)
        assert said == "--data is missing.\nIt must be text.\nWhere the data lies: a folder."
        assert make_config(info, {"data": "x"}).data == "x"

    def test_other_ways_to_write_a_type(self):
        @dataclass(frozen=True, kw_only=True)
        class Config:
            a: Optional[int] = None  # noqa: UP045
            b: Annotated[int | None, "..5"] = None
            c: Literal["x", None] = None
            d: Literal[0.5, 1.5] = 0.5

        a, b, c, d = read_fields(Config)
        assert a.optional
        assert b.optional
        assert c.optional
        assert (a.check("3"), b.check("none"), c.check(None), d.check(1.5)) == (3, None, None, 1.5)
        assert "5 or less, or none" in message(b.check, 6)


class TestFiles:
    def test_a_plain_file_of_settings_loses_to_options(self, toy, tmp_path):
        file = tmp_path / "settings.json"
        file.write_text('{"epochs": 7, "dropout": 0, "limit": null, "seed": 3.0}')
        config = make_config(toy, {"epochs": "9"}, files=[file])
        assert (config.epochs, config.dropout, config.limit, config.seed) == (9, 0.0, None, 3)
        assert type(config.dropout) is float
        assert type(config.seed) is int

    def test_later_files_win(self, toy, tmp_path):
        files = [tmp_path / "a.json", tmp_path / "b.json"]
        files[0].write_text('{"epochs": 7, "seed": 1}')
        files[1].write_text('{"epochs": 8}')
        config = make_config(toy, files=files)
        assert (config.epochs, config.seed) == (8, 1)

    def test_what_a_run_wrote_comes_back_the_same(self, toy, tmp_path):
        config = make_config(toy, {"epochs": "4", "limit": "5", "early_stopping": False})
        file = tmp_path / "config.json"
        content = {"format": 1, "recipe": "toy", "settings": to_dict(config), "seed": 0}
        file.write_text(json.dumps(content))
        assert read_settings(file) == asdict(config)
        assert make_config(toy, files=[file]) == config

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ('{"epoch": 3}', "No setting is called 'epoch' in {}.\nDid you mean 'epochs'?"),
            ('{"epochs": 0}', "'epochs' in {} is 0.\nIt must be a whole number, 1 or more."),
            ('{"epochs": 2.5}', "'epochs' in {} is 2.5."),
            ('{"format": 1, "settings": {"epoch": 3}}', "Did you mean 'epochs'?"),
            ('{"format": 2, "settings": {}}', "{} has format 2."),
            ('{"format": 1}', "{} holds no settings."),
            ("[1]", "{} holds no settings."),
            ("{", "{} is not JSON"),
        ],
    )
    def test_a_wrong_file(self, toy, tmp_path, text, expected):
        file = tmp_path / "settings.json"
        file.write_text(text)
        assert expected.replace("{}", str(file)) in message(make_config, toy, files=[file])

    def test_a_missing_or_binary_file(self, toy, tmp_path):
        assert "cannot be read" in message(make_config, toy, files=[tmp_path / "no.json"])
        (tmp_path / "x.json").write_bytes(b"\xff\xfe\x00")
        assert "is not JSON" in message(make_config, toy, files=[tmp_path / "x.json"])


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("1..", [1, 9e9], [0.99]),
        ("0..1", [0, 1], [-0.01, 1.01]),
        ("0..<1", [0, 0.999], [1]),
        (">0..", [1e-9], [0]),
        (">0..<1", [0.5], [0, 1]),
        ("..5", [-9, 5], [5.1]),
        ("-1.5..1e-3", [-1.5, 0.001], [-1.6, 0.0011]),
        ("0.5..1.5", [0.5, 1.5], [0.4, 1.6]),
    ],
)
def test_ranges(text, inside, outside):
    limits = Range.read(text)
    assert all(number in limits for number in inside)
    assert not any(number in limits for number in outside)


@pytest.mark.parametrize("text", ["", "..", "1", "1-2", "a..b", "1...", "0..1 "])
def test_what_is_no_range(text):
    with pytest.raises(ValueError, match="range"):
        Range.read(text)


def test_descriptions_in_a_docstring():
    docstring = """One line.

    Args:
        first: Begins here
            and goes on: here.

            Even after a gap.
        second (int): Typed.
        third:
            On the next line.

    Raises:
        ValueError: Not an argument.
    """
    assert read_args(docstring) == {
        "first": "Begins here and goes on: here. Even after a gap.",
        "second": "Typed.",
        "third": "On the next line.",
    }
    assert read_args("No section.") == {}


def test_options_are_taken_out_of_a_command_with_their_values():
    words = ["run", "mine.py", "--run-dir", "a", "--epochs", "2", "--resume=b", "--run-directory"]
    names = ("--run-dir", "--resume")
    assert without_options(words, names) == [
        "run", "mine.py", "--epochs", "2", "--run-directory",
    ]  # fmt: skip
