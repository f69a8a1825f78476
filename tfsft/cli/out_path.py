"""Where a command writes: looked at before the work begins."""

import os
from pathlib import Path
from typing import Any

import click

from tfsft.errors import UsageError


class OutPath(click.Path):
    """A file or folder that can be written.

    Args:
        folder: It is a folder, which is made with those above it where it is missing.
    """

    def __init__(self, folder: bool = False):
        super().__init__(path_type=Path)
        self._folder = folder

    def convert(self, value: Any, param: Any, ctx: Any) -> Path:
        """Returns the path.

        Raises:
            UsageError: It cannot be written.
        """
        path = super().convert(value, param, ctx)
        kind = "folder" if self._folder else "file"
        if path.exists() and path.is_dir() != self._folder:
            raise UsageError(
                f"--out {path} is a {'file' if self._folder else 'folder'}.",
                f"A {kind} to write.",
                "Give it another name.",
            )
        above = path.absolute().parent
        while self._folder and not above.exists():
            above = above.parent
        if not above.is_dir():
            raise UsageError(
                f"--out {path}: {above} is no folder.",
                f"A {kind} in a folder that exists.",
                "Make it, or choose another place.",
            )
        if not os.access(above, os.W_OK):
            raise UsageError(
                f"--out {path}: you may not write to {above}.",
                f"A {kind} in a folder of yours.",
                "Choose another place.",
            )
        return path
