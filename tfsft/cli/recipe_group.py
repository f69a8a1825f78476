"""Commands that take a recipe: `tfsft run RECIPE [OPTIONS]` has the recipe's settings as options.

Such a command is a click group whose sub-commands are the recipes, so that help, completion and
messages about options work as for any other command.
"""

from collections.abc import Callable, Iterable
from typing import Any

import click
from click.shell_completion import CompletionItem

from tfsft.cli.recipe_files import find_recipe, installed_recipes
from tfsft.config import Field, RecipeInfo, check_values, read_fields, show_value
from tfsft.errors import UsageError

Action = Callable[[RecipeInfo, dict[str, Any], Any], int | None]


class RecipeGroup(click.Group):
    """A command whose first word is a recipe.

    Args:
        name: The command's name.
        options: A frozen dataclass of the command's own options, described as a recipe's Config is.
        action: Called with the recipe, the settings typed (field name -> text or bool) and an
            instance of `options`; the settings are still to be checked by `make_config`.
        help: The command's help.
    """

    recipe_comes_first = True

    def __init__(self, name: str, options: type, action: Action, help: str):
        super().__init__(
            name, help=help, no_args_is_help=True, subcommand_metavar="RECIPE [OPTIONS]"
        )
        self.options, self.action = options, action

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """The options belong behind the recipe."""
        return [self.subcommand_metavar]

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The installed recipes; any path of a recipe file works as well."""
        return list(installed_recipes())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Returns the command with the options of the recipe called or lying at `cmd_name`."""
        if ctx.resilient_parsing:  # completion must not fail half-way through a word
            try:
                return RecipeCommand(self, find_recipe(cmd_name))
            except UsageError:
                return None
        if cmd_name.startswith("-"):
            return None
        return RecipeCommand(self, find_recipe(cmd_name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the recipes."""
        rows = [
            (name, find_recipe(name).doc.partition("\n")[0]) for name in self.list_commands(ctx)
        ]
        if rows:
            with formatter.section("Recipes"):
                formatter.write_dl(rows)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Completes the recipes' names and, where none fits, files."""
        items = super().shell_complete(ctx, incomplete)
        return (
            items
            if incomplete.startswith("-")
            else [CompletionItem(incomplete, type="file"), *items]
        )


class RecipeCommand(click.Command):
    """`tfsft run RECIPE` for one recipe."""

    def __init__(self, group: RecipeGroup, info: RecipeInfo):
        self.own_fields = read_fields(group.options)
        self.info = info
        self.title = f"{group.name.capitalize()} options"

        def call(**given: Any) -> int | None:
            typed = {name: value for name, value in given.items() if value not in (None, ())}
            own_names = {field.name for field in self.own_fields}
            own = {name: typed.pop(name) for name in own_names & typed.keys()}
            options = group.options(**check_values(self.own_fields, own))
            return group.action(info, typed, options)

        fields = (*info.fields, *self.own_fields)
        _refuse_twins(info, fields)
        super().__init__(
            info.name, params=[_option(field) for field in fields], callback=call, help=info.doc
        )

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the recipe's docstring as it stands: its commands must not be wrapped."""
        formatter.write(f"\n{self.info.doc}\n")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the recipe's options, then the command's own."""
        records = [param.get_help_record(ctx) for param in self.get_params(ctx)]
        with formatter.section("Recipe options"):
            formatter.write_dl(records[: len(self.info.fields)])
        with formatter.section(self.title):
            formatter.write_dl(records[len(self.info.fields) :])


def _option(field: Field) -> click.Option:
    """Returns the option of a field; its value stays text, for the field itself to check."""
    facts = ["required"] if field.required else [f"default: {show_value(field.default)}"]
    facts = ["several times"] if field.many else facts
    if field.range is not None:
        facts.append(str(field.range))
    if field.optional and field.default is not None:
        facts.append("or none")
    if field.kind is bool:
        names = [f"{field.option}/--no-{field.option[2:]}", field.name]
    else:
        names = [field.option, field.name]
    metavar = {str: "TEXT", int: "INTEGER", float: "NUMBER", bool: None}[field.kind]
    if field.choices:
        metavar = f"[{'|'.join(map(str, field.choices))}]"

    def complete(ctx: click.Context, param: click.Parameter, typed: str) -> list[CompletionItem]:
        if field.choices:
            return [CompletionItem(c) for c in map(str, field.choices) if c.startswith(typed)]
        return [CompletionItem(typed, type="file")] if field.kind is str else []

    return click.Option(
        names,
        help=f"{field.help}  [{'; '.join(facts)}]",
        default=None,
        multiple=field.many,
        metavar=metavar,
        is_flag=field.kind is bool,
        shell_complete=complete,
    )


def _refuse_twins(info: RecipeInfo, fields: Iterable[Field]) -> None:
    """Raises UsageError where a setting of the recipe is called like another option."""
    seen: set[str] = set()
    for field in fields:
        negative = {f"--no-{field.option[2:]}"} if field.kind is bool else set()
        names = {field.option, *negative}
        if names & seen:
            twin = min(names & seen)
            raise UsageError(
                f"{info.path}: two settings share the option {twin}.",
                "A setting of a recipe may not be called like an option of the command.",
                "Rename the field.",
            )
        seen |= names | {"--help"}
