"""Every cause of damage gives its message, and none without its guard."""

import re

import chat_causes  # noqa: F401  (each adds its cases)
import json_causes  # noqa: F401
import picture_causes  # noqa: F401
import pytest
import question_causes  # noqa: F401
import run_causes  # noqa: F401
import table_causes  # noqa: F401
import tagged_causes  # noqa: F401
import text_causes  # noqa: F401
from causes import CASES
from guards import find_guard, removed

from tfsft.cli import main


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """Makes empty folders, each with a cache of its own beside it."""
    numbers = iter(range(10))

    def make():
        place = tmp_path / str(next(numbers))
        (place / "data").mkdir(parents=True)
        monkeypatch.setenv("TFSFT_CACHE", str(place / "cache"))
        return place / "data"

    return make


def test_how_many_there_are():
    assert len(CASES) >= 60


@pytest.mark.parametrize("name", CASES)
def test_the_message(name, fresh):
    found = CASES[name].outcome(fresh())
    assert CASES[name].fits(found), found


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_no_message_without_its_guard(name, fresh):
    case = CASES[name]
    given = case.make(fresh())
    guard = find_guard(lambda: case.read(given))
    with removed(guard):
        try:
            found = case.outcome(fresh())
        except Exception:  # what the guard is there to prevent
            return
    assert not case.fits(found), f"{guard} is not what gives the message"


@pytest.mark.parametrize(
    ("name", "words", "code"),
    [
        ("model_that_ends_early", ["predict", "{}", "x.png"], 1),
        ("task_of_a_newer_format", ["evaluate", "{}", "--data", "digits"], 2),
        ("task_that_is_a_list", ["export", "{}"], 2),
        ("config_that_ends_early", ["run", "image_cls", "--config", "{}"], 2),
        ("class_of_validation_alone", ["check", "image_cls", "--data-only", "--data", "{}"], 1),
    ],
)
def test_commands_say_so(name, words, code, fresh, capfd):
    folder = fresh()
    given = str(CASES[name].make(folder))
    assert main([word.format(given) for word in words]) == code
    shown = capfd.readouterr().err.replace(str(folder), "DIR")
    assert re.search("Error: " + "\n".join(filter(None, CASES[name].patterns)), shown), shown
    assert "Traceback" not in shown
