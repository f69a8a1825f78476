"""The command line: `main` is what the command `tfsft` calls."""

import atexit
import gc
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

import click

from tfsft import __version__
from tfsft.cli import messages
from tfsft.cli.messages import Invocation, show
from tfsft.errors import Stopped, UsageError, nearest

__all__ = ["main"]

# Command -> the module that holds it as `command`. A module is imported when its command is typed
# or listed, so these import nothing heavier than click at their top.
COMMANDS = {
    "run": "tfsft.cli.run",
    "launch": "tfsft.cli.launch",
    "ls": "tfsft.cli.ls",
    "cp": "tfsft.cli.cp",
    "check": "tfsft.cli.check",
    "tune": "tfsft.cli.tune",
    "distill": "tfsft.cli.distill",
    "evaluate": "tfsft.cli.evaluate",
    "predict": "tfsft.cli.predict",
    "chat": "tfsft.cli.chat",
    "serve": "tfsft.cli.serve",
    "export": "tfsft.cli.export",
    "explain": "tfsft.cli.explain",
    "compare": "tfsft.cli.compare",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and turns every exception into a message.

    Args:
        arguments: The words after `tfsft`; those of this process by default.

    Returns:
        The exit code: 0, 1 for data, weights or training, 2 for a wrong option, value or run
        folder, 130 after Ctrl-C, 143 after SIGTERM; a file STOP ends a run with 0.
    """
    # All goes with the process: to look through a graph for what is free would take a second.
    atexit.register(gc.freeze)
    words = list(sys.argv[1:] if arguments is None else arguments)
    # Looked for among the words, so that it also shows the traceback of a mistake in the options.
    call = Invocation(tuple(words), debug="--debug" in words)
    try:
        result = root.main(words, prog_name="tfsft", standalone_mode=False, obj=call)
    except (Exception, KeyboardInterrupt, Stopped) as error:
        if call.debug:
            traceback.print_exc()
        message, code = messages.explain(error, call)
        show(message)
        return code
    return result if isinstance(result, int) else 0


class _Commands(click.Group):
    """The commands of the table, imported when needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return import_module(COMMANDS[cmd_name]).command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word = args[0]
        if word not in COMMANDS and not word.startswith("-") and not ctx.resilient_parsing:
            fix = nearest(word, COMMANDS).strip()
            if word.endswith(".py"):
                fix = f"Did you mean 'tfsft run {word}'?"
            commands = f"The commands are: {', '.join(COMMANDS)}."
            raise UsageError(f"There is no command '{word}'.", commands, fix)
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="tfsft %(version)s")
@click.option("--debug", is_flag=True, help="Show tracebacks and TensorFlow's own messages.")
def root(debug: bool) -> None:
    """Fine-tune pretrained Keras models on your own labelled data.

    \b
    tfsft ls                                      what can be trained
    tfsft run image_cls --help                    its settings
    tfsft run image_cls --data flowers/           train
    tfsft cp image_cls mine.py                    copy a recipe to edit it

    The Tab key completes commands, recipes and options after this line in ~/.bashrc (or with
    zsh_source in ~/.zshrc):

    \b
    eval "$(_TFSFT_COMPLETE=bash_source tfsft)"
    """
