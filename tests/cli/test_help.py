"""What answers at once: help, version, completion, and unknown commands."""

import subprocess
import sys
import time

import pytest

import tfsft as package


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_names_every_command(tfsft, option):
    done = tfsft(option)
    assert done.returncode == 0
    assert done.stderr == ""
    for command in ("run", "ls", "cp"):
        assert f"\n  {command} " in done.stdout


def test_version(tfsft):
    done = tfsft("--version")
    assert (done.returncode, done.stdout) == (0, f"tfsft {package.__version__}\n")


def test_a_recipes_help_shows_its_docstring_then_its_options_then_those_of_run(tfsft, toy_recipe):
    done = tfsft("run", toy_recipe, "--help")
    assert done.returncode == 0
    text = done.stdout
    # the docstring as it stands
    assert "\n    tfsft run toy_recipe.py --epochs 2\n" in text
    places = [
        text.index(part)
        for part in (
            "Toy: a recipe that only prints its settings.",
            "\nRecipe options:\n",
            "--learning-rate NUMBER",
            "--schedule [constant|linear|cosine]",
            "--early-stopping / --no-early-stopping",
            "\nRun options:\n",
            "--resume",
            "--precision",
        )
    ]
    assert places == sorted(places)
    words = " ".join(text.split())
    assert "A folder with one sub-folder per class, or `digits`. [default: digits]" in words
    assert "Fraction of features dropped. [default: 0.2; from 0 to below 1]" in words
    assert "Use this many examples only. [default: none; 1 or more]" in words
    assert "validation gets no better. [default: on]" in words


@pytest.mark.parametrize(
    "words", [("--help",), ("--version",), ("ls",), ("run", "image_cls", "--help")]
)
def test_answers_in_half_a_second_without_the_heavy_packages(tfsft, words):
    done = tfsft(*words, python=("-X", "importtime"))
    assert done.returncode == 0
    imported = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "click" in imported
    assert not {"tensorflow", "keras", "numpy", "matplotlib", "rich"} & imported

    seconds = []
    for _ in range(5):  # the best of several: the machine may be busy
        start = time.perf_counter()
        tfsft(*words)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5


def test_nothing_typed_shows_the_help(tfsft):
    done = tfsft()
    assert done.returncode == 2
    assert "Usage: tfsft" in done.stderr
    assert "Error" not in done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["rum"], "Error: There is no command 'rum'."),
        (["rum"], "Did you mean 'run'?"),
        (["my_recipe.py"], "Did you mean 'tfsft run my_recipe.py'?"),
        (["--versoin"], "Did you mean '--version'?"),
        (["ls", "--al"], "Error: There is no option --al."),
        (["ls", "more"], "Error: Got unexpected extra argument (more)."),
        (["cp"], "Error: Missing argument 'NAME'.\nSee `tfsft cp --help`."),
    ],
)
def test_a_mistyped_command_line(tfsft, words, expected):
    done = tfsft(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def complete(tfsft, line, **environment):
    words = line.split(" ")
    done = tfsft(
        _TFSFT_COMPLETE="bash_complete",
        COMP_WORDS=line,
        COMP_CWORD=str(len(words) - 1),
        **environment,
    )
    assert done.returncode == 0
    assert done.stderr == ""
    return done.stdout.split()


class TestCompletion:
    def test_commands_and_recipes(self, tfsft):
        assert complete(tfsft, "tfsft r") == ["plain,run"]
        assert complete(tfsft, "tfsft cp imag") == ["plain,image_cls"]
        # files, where no name fits
        assert complete(tfsft, "tfsft run imag") == ["file,imag", "plain,image_cls"]

    def test_a_recipes_options_and_their_values(self, tfsft, toy_recipe):
        run = f"tfsft run {toy_recipe}"
        assert complete(tfsft, f"{run} --lea") == ["plain,--learning-rate"]
        assert complete(tfsft, f"{run} --schedule c") == ["plain,constant", "plain,cosine"]
        assert complete(tfsft, f"{run} --strategy m") == ["plain,mirrored", "plain,multiworker"]
        assert complete(tfsft, f"{run} --data flo") == ["file,flo"]
        assert complete(tfsft, f"{run} --epochs ") == []
        assert complete(tfsft, "tfsft run missing.py --lea") == []

    def test_the_line_for_the_shell_is_in_the_help_and_is_a_script(self, tfsft):
        assert 'eval "$(_TFSFT_COMPLETE=bash_source tfsft)"' in tfsft("--help").stdout
        script = tfsft(_TFSFT_COMPLETE="bash_source").stdout
        assert "complete -o nosort -F _tfsft_completion tfsft" in script
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_a_module_runs_as_the_command_does():
    words = [sys.executable, "-c", "from tfsft.cli import main; raise SystemExit(main(['rum']))"]
    assert subprocess.run(words, capture_output=True).returncode == 2
