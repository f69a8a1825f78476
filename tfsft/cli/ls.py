"""`tfsft ls`: what can be trained."""

import ast

import click

from tfsft.cli.recipe_files import installed_recipes


@click.command("ls")
def command() -> None:
    """List the recipes that came with tfsft."""
    recipes = installed_recipes()
    width = max(map(len, recipes), default=0)
    for name, path in recipes.items():
        doc = ast.get_docstring(ast.parse(path.read_bytes())) or ""
        click.echo(f"{name:{width}}  {doc.partition(chr(10))[0]}".rstrip())
