"""The three parts of an error, its exit code, and the nearest right word."""

import signal

import pytest

from tfsft.errors import Stopped, UsageError, UserError, nearest


def test_an_error_reads_as_its_parts_in_order():
    error = UserError("flowers/ is empty.", "One folder per class.", "See --data.")
    assert str(error) == "flowers/ is empty.\nOne folder per class.\nSee --data."
    assert str(UserError("flowers/ is empty.", fix="See --data.")) == (
        "flowers/ is empty.\nSee --data."
    )


def test_exit_codes():
    assert UserError("x").exit_code == 1
    assert UsageError("x").exit_code == 2
    assert Stopped(signal.SIGINT).exit_code == 130
    assert Stopped(signal.SIGTERM).exit_code == 143
    assert Stopped(None).exit_code == 0


def test_a_stop_is_not_caught_by_those_who_catch_exceptions():
    assert not issubclass(Stopped, Exception)
    assert Stopped(signal.SIGTERM, "tfsft run x").resume_command == "tfsft run x"


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("--epoch", " Did you mean '--epochs'?"),
        ("--learning_rate", " Did you mean '--learning-rate'?"),
        ("zzz", ""),
    ],
)
def test_nearest(word, expected):
    assert nearest(word, ["--epochs", "--learning-rate", "--data"]) == expected
