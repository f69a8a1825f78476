"""Folders of pictures or texts: one sub-folder for each class."""

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tfsft.data.images import IMAGE_SUFFIXES
from tfsft.data.labels import index_labels, natural_key, printable, shorten, unknown_class
from tfsft.data.sources import FileStorage, Listing
from tfsft.errors import UserError, nearest

SPLIT_NAMES = {
    "train": 0,
    "validation": 1,
    "val": 1,
    "valid": 1,
    "dev": 1,
    "eval": 1,
    "test": 2,
}
TEXT_SUFFIXES = (".txt",)
LAYOUT = "One sub-folder for each class: FOLDER/roses/1.jpg, FOLDER/tulips/2.jpg."
# Written beside pictures by people and systems; no sign that a picture was overlooked.
UNREMARKABLE = {".txt", ".md", ".json", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".ini", ".db"}


@dataclass
class ClassFiles:
    """The files of a data set of class folders.

    Args:
        root: The folder.
        paths: The files.
        names: The class of each, alone in a list.
        class_names: The classes.
        sides: int8 `[n]`, the data set's own splits: 0 train, 1 validation, 2 test. None when it
            has none.
        warnings: What was passed over.
    """

    root: str
    paths: list[str]
    names: list[list[str]]
    class_names: tuple[str, ...] | None
    sides: np.ndarray | None
    warnings: list[str]

    def ids(self) -> list[str]:
        """Returns the paths in the folder, as text that can be printed and written."""
        start = len(os.path.join(self.root, ""))
        return [printable(path[start:]) for path in self.paths]


def list_folder(
    root: str, *, task: str = "single", class_names: tuple[str, ...] | None = None
) -> Listing:
    """Lists a folder of class folders, or of `train/`, `validation/` and `test/` with such in each.

    Class folders are searched to the bottom; files that are hidden or no pictures are passed over.

    Args:
        root: The folder.
        task: "single" or "multi".
        class_names: The classes to use; None takes the folders of the training pictures.

    Raises:
        UserError: The folder is not laid out so, or a class has no pictures.
    """
    if task == "regression":
        raise UserError(
            f"{root} is a folder, and its pictures are to be labelled with numbers.",
            "Numbers come from a table: CSV, TSV, JSONL or Parquet, with a path in each row.",
            "Write such a table into the folder and give its name as --data.",
        )
    found = class_files(root, tuple(IMAGE_SUFFIXES), "pictures", class_names)
    labels, class_names = index_labels(found.names, task, found.class_names)
    return Listing(
        FileStorage(found.paths),
        found.ids(),
        labels,
        class_names,
        sides=found.sides,
        warnings=found.warnings,
    )


def class_files(
    root: str,
    suffixes: tuple[str, ...],
    things: str,
    class_names: tuple[str, ...] | None = None,
) -> ClassFiles:
    """Finds the files in class folders, or in `train/`, `validation/` and `test/` of such.

    Args:
        root: The folder.
        suffixes: How the names of the files end, in small letters.
        things: What they are, for messages: "pictures".
        class_names: The classes to use; None takes the folders of the training files.

    Raises:
        UserError: The folder is not laid out so, or a class is empty.
    """
    tree = _Tree(root, suffixes, things)
    split_folders = _split_folders(tree, root)
    paths, names, sides, empty = [], [], [], []
    for top, side in sorted((split_folders or {root: 0}).items(), key=lambda item: item[1]):
        classes = _class_folders(tree, top, alone=side == 0 and class_names is None)
        chosen = class_names is None  # train/ comes first and says which classes there are
        class_names = tuple(classes) if chosen else class_names
        for name, folder in classes.items():
            if name not in class_names:
                raise unknown_class(name, class_names, f"the folder {folder}")
            files = tree.files(folder)
            if chosen and not files:
                empty.append(folder)
            paths += files
            names += [[name]] * len(files)
            sides += [side] * len(files)
    if empty:
        raise UserError(
            f"{len(empty)} class folders hold no {things}: {shorten(empty)}.",
            f"Every class has {things}. " + " ".join(tree.warnings()),
            f"Add {things}, or remove these folders.",
        )
    own = np.array(sides, np.int8) if split_folders else None
    return ClassFiles(root, paths, names, class_names, own, tree.warnings())


class _Tree:
    """Walks folders and remembers what it passed over."""

    def __init__(self, root: str, known: tuple[str, ...], things: str):
        self.root = root
        self.known = known
        self.things = things
        self.suffixes: Counter[str] = Counter()
        self.notes: list[str] = []

    def entries(self, folder: str) -> tuple[list[str], list[str]]:
        """Returns the paths of the sub-folders and of the files in `folder` that are not hidden."""
        folders, files = [], []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith((".", "__MACOSX")):
                        continue
                    linked = entry.is_symlink()
                    if os.path.isdir(entry.path) if linked else entry.is_dir():
                        folders.append(entry.path)
                    elif linked or entry.is_file():  # a pipe would never end
                        files.append(entry.path)
        except PermissionError as error:
            raise UserError(
                f"The folder {folder} cannot be read: permission denied.",
                "Every folder of the data set must be readable.",
                f"Allow it (chmod -R u+rX '{self.root}'), or leave the folder out.",
            ) from error
        return sorted(folders, key=natural_key), files

    def walk(self, folder: str) -> Iterator[str]:
        """Yields every file below `folder`; links to folders are followed, but never in circles."""
        seen, waiting = set(), [folder]
        while waiting:
            here = waiting.pop()
            status = os.stat(here)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            folders, files = self.entries(here)
            waiting += folders
            yield from files

    def files(self, folder: str) -> list[str]:
        """Returns the files below `folder` that are wanted, sorted naturally."""
        files = []
        for path in self.walk(folder):
            suffix = os.path.splitext(path)[1].lower()
            if suffix in self.known:
                files.append(path)
            elif suffix not in UNREMARKABLE:
                self.suffixes[suffix or "no suffix"] += 1
        return sorted(files, key=natural_key)

    def warnings(self) -> list[str]:
        if self.suffixes:
            kinds = ", ".join(
                f"{count} with {suffix}" for suffix, count in self.suffixes.most_common(5)
            )
            self.notes.append(
                f"{self.suffixes.total()} files in {self.root} were passed over, because they are "
                f"not {self.things} of a known kind ({kinds}); known are "
                f"{', '.join(sorted(self.known))}."
            )
        return self.notes


def _split_folders(tree: _Tree, root: str) -> dict[str, int]:
    """Returns which folder holds which split, or nothing when the folders are classes."""
    folders, _ = tree.entries(root)
    splits = {
        folder: SPLIT_NAMES[os.path.basename(folder).lower()]
        for folder in folders
        if os.path.basename(folder).lower() in SPLIT_NAMES
    }
    others = [folder for folder in folders if folder not in splits]
    train = next((folder for folder, side in splits.items() if side == 0), None)
    if train is None:
        if splits and not others:
            raise UserError(
                f"{root} holds {_names(splits)} and no train/.",
                "A data set with its own splits has train/, and validation/ and test/ where "
                "there are any.",
                f"Rename the folder with the {tree.things} to learn from to train/.",
            )
        return {}
    if not tree.entries(train)[0] and others:
        return {}  # pictures of trains, beside other classes
    sides = list(splits.values())
    if len(sides) > len(set(sides)):
        raise UserError(
            f"{root} holds {_names(splits)}, of which two mean the same.",
            "A data set has one train/, one validation/ (or val/, valid/) and one test/.",
            "Join them, or move one away.",
        )
    if others:
        tree.notes.append(
            f"{_names(others)} in {root} were not used, because train/ beside them says that this "
            "folder holds splits."
        )
    return splits


def _class_folders(tree: _Tree, root: str, *, alone: bool) -> dict[str, str]:
    """Returns the class folders in `root` by class name; `alone` asks for two at least."""
    folders, files = tree.entries(root)
    loose = [path for path in files if os.path.splitext(path)[1].lower() in tree.known]
    if not folders:
        what = f"{len(loose)} {tree.things} but no" if loose else "no"
        raise UserError(
            f"{root} holds {what} class folders.",
            LAYOUT,
            f"Make a folder for each class and move its {tree.things} there.",
        )
    if alone and len(folders) == 1:
        inner = tree.entries(folders[0])[0]
        hint = (
            f"Give --data {folders[0]}, if the classes are in there."
            if len(inner) > 1
            else f"Add a folder with {tree.things} of something else."
        )
        raise UserError(
            f"{root} holds one class folder only: {os.path.basename(folders[0])}.",
            f"At least two classes. {LAYOUT}",
            hint,
        )
    if loose:
        tree.notes.append(
            f"{len(loose)} {tree.things} lie in {root} outside of any class folder and were not "
            f"used (for example {os.path.basename(min(loose))})."
        )
    return {printable(os.path.basename(folder)): folder for folder in folders}


def _names(folders: dict | list) -> str:
    return ", ".join(f"{os.path.basename(folder)}/" for folder in folders)


def check_there(path: str, expected: str, own: str) -> None:
    """Raises unless a file or folder is there and may be read.

    Args:
        path, expected, own: As for `missing_folder`.
    """
    try:
        mode = os.stat(path).st_mode
        readable = os.access(path, os.R_OK)
    except PermissionError:
        readable = False
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise missing_folder(path, expected, own) from error
    if not readable:
        raise UserError(
            f"{path} cannot be read: permission denied.",
            f"--data is {expected}.",
            "Change its permissions, or those of the folders above it.",
        )
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise UserError(
            f"{path} is neither a file nor a folder.",
            f"--data is {expected}.",
            "Write what comes out of it into a file first.",
        )


def missing_folder(path: str, expected: str, own: str) -> UserError:
    """Returns the error for data that is not there; it names what is there and looks like it.

    Args:
        path: What was given.
        expected: What --data can be.
        own: The name of the data that is always at hand.
    """
    if os.path.islink(path):
        return UserError(
            f"{path} is a link that leads nowhere: {os.readlink(path)}",
            f"--data is {expected}.",
            "Mend the link, or give what it should lead to.",
        )
    parent = os.path.dirname(os.path.abspath(path))
    while not os.path.isdir(parent):
        path, parent = parent, os.path.dirname(parent)
    try:
        names = os.listdir(parent)
    except OSError:
        names = []
    hint = nearest(os.path.basename(os.path.normpath(path)), [*names, own])
    return UserError(
        f"There is no {path}.{hint}",
        f"--data is {expected}.",
        f"Check the name; {parent} holds: "
        f"{shorten(sorted(names, key=natural_key), 8) or 'nothing'}.",
    )
