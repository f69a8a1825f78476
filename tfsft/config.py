"""A recipe's settings: one frozen dataclass <-> command-line options <-> config.json.

Nothing here imports TensorFlow. The class `Config` alone is executed out of the parsed recipe, so
that `--help` and a wrong option answer at once, whatever the recipe imports.
"""

import ast
import dataclasses
import inspect
import json
import math
import re
import types
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfsft.errors import UsageError, nearest

_CONTRACT = "Every recipe has `@dataclass(frozen=True, kw_only=True) class Config` and `main`."
_KINDS = "str, int, float, bool, Literal[...], Annotated[int, '1..'] or one of them | None"
_TYPE_NAMES = {"str": str, "int": int, "float": float, "bool": bool}
_SCOPE = {
    **_TYPE_NAMES,
    **{name: getattr(typing, name) for name in ("Annotated", "Literal", "Optional", "Union")},
    "dataclass": dataclass,
    "dataclasses": dataclasses,
    "field": dataclasses.field,
    "typing": typing,
}


@dataclass(frozen=True)
class Range:
    """The numbers a field takes, read from `1..`, `0..1`, `0..<1`, `>0..` (`>` and `<` exclude).

    Args:
        low: The lower end, or None.
        high: The upper end, or None.
        above: The lower end itself is excluded.
        below: The upper end itself is excluded.
    """

    low: float | None
    high: float | None
    above: bool
    below: bool

    @classmethod
    def read(cls, text: str) -> "Range":
        """Returns the range that `text` writes; raises ValueError where it writes none."""
        number = r"(-?[\d.]*?\d(?:e-?\d+)?)?"
        match = re.fullmatch(rf"(>?){number}\.\.(<?){number}", text)
        if match is None or not (match[2] or match[4]):
            raise ValueError(f"'{text}' is not a range such as '1..', '0..1', '0..<1' or '>0..'")
        low, high = (None if end is None else float(end) for end in (match[2], match[4]))
        return cls(low, high, above=bool(match[1]), below=bool(match[3]))

    def __contains__(self, value: float) -> bool:
        if self.low is not None and (value < self.low or (self.above and value == self.low)):
            return False
        return self.high is None or value < self.high or (not self.below and value == self.high)

    def __str__(self) -> str:
        low, high = (None if end is None else f"{end:g}" for end in (self.low, self.high))
        if high is None:
            return f"above {low}" if self.above else f"{low} or more"
        if low is None:
            return f"below {high}" if self.below else f"{high} or less"
        return (
            f"{'above' if self.above else 'from'} {low} {'to below' if self.below else 'to'} {high}"
        )


@dataclass(frozen=True)
class Field:
    """One setting of a recipe or of a command.

    Args:
        name: The field's name in the dataclass, `learning_rate`.
        kind: str, int, float or bool.
        default: The default, or `dataclasses.MISSING` where a value must be given.
        help: What the class docstring says under `Args:`.
        choices: The values of a Literal, or ().
        range: The numbers allowed, or None for all.
        optional: None is allowed too (`none` on the command line).
        many: The option may be given several times; the value is a tuple of texts.
    """

    name: str
    kind: type
    default: Any = dataclasses.MISSING
    help: str = ""
    choices: tuple[Any, ...] = ()
    range: Range | None = None
    optional: bool = False
    many: bool = False

    @property
    def option(self) -> str:
        """The field's option on the command line, `--learning-rate`."""
        return option_name(self.name)

    @property
    def required(self) -> bool:
        """Whether a value must be given."""
        return self.default is dataclasses.MISSING

    @property
    def allowed(self) -> str:
        """What a value may be, in words."""
        if self.choices:
            words = "one of " + ", ".join(map(str, self.choices))
        else:
            words = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}[
                self.kind
            ]
            if self.range is not None:
                words += f", {self.range}"
        return f"{words}, or none" if self.optional else words

    def check(self, value: Any, where: str = "") -> Any:
        """Returns `value` in the field's type.

        Args:
            value: Text from the command line, or a value from JSON or Python.
            where: What a message calls the field; its option by default.

        Raises:
            UsageError: The value is of another type or out of range.
        """
        try:
            return self._convert(value)
        except (ValueError, OverflowError):
            fix = nearest(str(value), map(str, self.choices)).strip()
            if not fix and not self.required:
                fix = f"The default is {show_value(self.default)}."
            came = f"{where or self.option} is {show_value(value)}."
            raise UsageError(came, f"It must be {self.allowed}.", fix) from None

    def _convert(self, value: Any) -> Any:
        if self.many:
            return tuple(value)
        if self.optional and (value is None or str(value).lower() == "none"):
            return None
        if self.choices:
            by_text = {str(choice): choice for choice in self.choices}
            if isinstance(value, bool) or str(value) not in by_text:
                raise ValueError
            return by_text[str(value)]
        if self.kind is str:
            if not isinstance(value, str):
                raise ValueError
            return value
        if self.kind is bool:
            if isinstance(value, bool):
                return value
            if str(value).lower() not in ("true", "false"):
                raise ValueError
            return str(value).lower() == "true"
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError
        if self.kind is int and isinstance(value, float) and not value.is_integer():
            raise ValueError
        number = self.kind(value)
        if not math.isfinite(number) or (self.range is not None and number not in self.range):
            raise ValueError
        return number


@dataclass(frozen=True)
class RecipeInfo:
    """What a recipe file says about itself, without its being imported.

    Args:
        name: The file's name without `.py`.
        path: The file.
        doc: The module's docstring.
        config_class: The recipe's `Config`, executed alone.
        fields: Its settings in order.
    """

    name: str
    path: Path
    doc: str
    config_class: type
    fields: tuple[Field, ...]


def option_name(name: str) -> str:
    """Returns the command-line option of the field `name`."""
    return "--" + name.rstrip("_").replace("_", "-")  # `from_`, as `from` is a word of Python's


def show_value(value: object) -> str:
    """Returns a setting's value as a person would type it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else str(value) or "empty"


def read_recipe(path: str | Path) -> RecipeInfo:
    """Reads a recipe's docstring and settings; executes nothing of it but the class `Config`.

    Raises:
        UsageError: The file is missing, is not Python, or does not keep the recipe contract.
    """
    path = Path(path)
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except OSError as error:
        raise UsageError(
            f"The recipe {path} cannot be read: {error.strerror}.",
            "A recipe is a Python file, or a name that `tfsft ls` lists.",
        ) from None
    except SyntaxError as error:
        raise UsageError(
            f"{path}{f', line {error.lineno}' if error.lineno else ''}: {error.msg}.",
            "A recipe is a Python file.",
            f"The line reads: {error.text.strip()}" if error.text else "",
        ) from None

    top = {node.name: node for node in tree.body if hasattr(node, "name")}
    if not isinstance(top.get("Config"), ast.ClassDef):
        raise UsageError(f"{path} has no class `Config`.", _CONTRACT)
    if not isinstance(top.get("main"), ast.FunctionDef):
        raise UsageError(f"{path} has no function `main(config, run)`.", _CONTRACT)

    config_class = _execute_config(top["Config"], path)
    try:
        fields = read_fields(config_class)
    except ValueError as error:
        raise UsageError(f"{path}, Config: {error}.", f"A field is {_KINDS}.") from None
    missing = {"data", "seed"} - {field.name for field in fields}
    if missing:
        raise UsageError(
            f"{path}: Config has no field `{min(missing)}`.", "Every recipe has `data` and `seed`."
        )
    doc = ast.get_docstring(tree) or ""
    return RecipeInfo(path.stem, path, doc, config_class, fields)


def _execute_config(node: ast.ClassDef, path: Path) -> type:
    """Returns the class of `node`, after a look at what executing it would touch."""

    def refuse(at: ast.AST, came: str, fix: str = "") -> typing.NoReturn:
        expected = "The command line executes Config alone: literals, dataclasses and typing."
        raise UsageError(f"{path}, line {at.lineno}: {came}.", expected, fix)

    decorators = [ast.unparse(item).removeprefix("dataclasses.") for item in node.decorator_list]
    if [item.replace(" ", "") for item in decorators] not in (
        ["dataclass(frozen=True,kw_only=True)"],
        ["dataclass(kw_only=True,frozen=True)"],
    ):
        raise UsageError(
            f"{path}, line {node.lineno}: Config is not a frozen, keyword-only dataclass.",
            _CONTRACT,
        )
    if node.bases or node.keywords:
        refuse(node, "Config has a base class", "Write every field out in Config itself.")
    for statement in node.body:
        if isinstance(statement, ast.Assign):
            line = ast.unparse(statement)
            refuse(
                statement, f"`{line}` has no type", f"Write `{line.replace(' =', ': int =', 1)}`."
            )
        is_docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        if not (is_docstring or isinstance(statement, ast.AnnAssign)):
            refuse(statement, "Config holds something else than fields", "Move it below the class.")
    for item in ast.walk(node):
        if isinstance(item, ast.Name) and item.id not in _SCOPE and isinstance(item.ctx, ast.Load):
            refuse(item, f"Config uses the name `{item.id}`", nearest(item.id, _SCOPE).strip())
        if isinstance(item, ast.Attribute) and not isinstance(item.value, ast.Name):
            refuse(item, f"Config uses `{ast.unparse(item)}`")

    # dataclasses looks its class's module up in sys.modules, so the name must be a real one.
    namespace = {**_SCOPE, "__name__": __name__}
    module = ast.Module(body=[node], type_ignores=[])
    try:
        exec(compile(module, str(path), "exec", dont_inherit=True), namespace)
    except Exception as error:
        refuse(node, f"Config cannot be made: {type(error).__name__}: {error}")
    return namespace["Config"]


def read_fields(settings_class: type) -> tuple[Field, ...]:
    """Returns the fields of a dataclass whose docstring describes them under `Args:`.

    Raises:
        ValueError: A field has a type that the command line cannot offer, or a wrong default.
    """
    helps = read_args(settings_class.__doc__ or "")
    hints = typing.get_type_hints(settings_class, localns=_SCOPE, include_extras=True)
    fields = []
    for entry in dataclasses.fields(settings_class):
        try:
            field = Field(
                entry.name,
                default=entry.default,
                help=helps.get(entry.name, ""),
                **_read_type(hints[entry.name]),
            )
            if not field.required:
                field = dataclasses.replace(field, default=field.check(field.default))
        except UsageError as error:
            raise ValueError(f"the default of `{entry.name}` is wrong: {error}") from None
        except ValueError as error:
            raise ValueError(f"`{entry.name}`: {error}") from None
        fields.append(field)
    return tuple(fields)


def _read_type(hint: Any) -> dict[str, Any]:
    """Returns `kind`, `choices`, `range` and `optional` of a type annotation."""
    if hint in _TYPE_NAMES.values():
        return {"kind": hint}
    if hint == tuple[str, ...]:
        return {"kind": str, "many": True}
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        choices = tuple(choice for choice in arguments if choice is not None)
        if all(type(choice) in (str, int, float) for choice in choices):
            found = {"kind": type(choices[0]), "choices": choices}
            return found | {"optional": True} if None in arguments else found
    elif origin is typing.Annotated:
        found = _read_type(arguments[0])
        if found["kind"] in (int, float) and "choices" not in found:
            return found | {"range": Range.read(arguments[1])}
    elif origin in (typing.Union, types.UnionType):
        others = [argument for argument in arguments if argument is not types.NoneType]
        if len(others) == 1:
            return _read_type(others[0]) | {"optional": True}
    raise ValueError(f"the type {getattr(hint, '__name__', hint)} cannot be an option")


def read_args(docstring: str) -> dict[str, str]:
    """Returns name -> text of the `Args:` section of a Google-style docstring."""
    texts: dict[str, list[str]] = {}
    _, _, section = inspect.cleandoc(docstring).partition("\nArgs:\n")
    for line in section.splitlines():
        if line.strip() and not line.startswith(" "):
            break
        entry = re.fullmatch(r"(?: {2}| {4})(\w+)(?: \(.*?\))?: *(.*)", line)
        if entry:
            texts[entry[1]] = [entry[2]]
        elif texts:
            texts[next(reversed(texts))].append(line.strip())
    return {name: " ".join(filter(None, lines)) for name, lines in texts.items()}


def make_config(
    info: RecipeInfo,
    values: Mapping[str, Any] | None = None,
    *,
    files: Sequence[str | Path] = (),
    defaults: Mapping[str, Any] | None = None,
) -> Any:
    """Returns the recipe's `Config`, with every value checked.

    Args:
        info: The recipe.
        values: Field name -> value, from the command line or from Python; they win over files.
        files: JSON files of settings (a run's config.json or a plain object), later ones win.
        defaults: Values that win over those of the class only.

    Raises:
        UsageError: An unknown name, a wrong type, a value out of range, or a missing one.
    """
    checked = check_values(info.fields, defaults or {})
    for file in files:
        checked |= check_values(info.fields, read_settings(file), file=file)
    checked |= check_values(info.fields, values or {})
    require_values(info.fields, checked)
    return info.config_class(**checked)


def check_values(
    fields: Iterable[Field], values: Mapping[str, Any], *, file: str | Path | None = None
) -> dict[str, Any]:
    """Returns `values` in their fields' types.

    Args:
        fields: The settings there are.
        values: Field name -> value.
        file: Where the values were read, for the messages; None for options.

    Raises:
        UsageError: An unknown name, a wrong type, or a value out of range.
    """
    by_name = {field.name: field for field in fields}
    checked = {}
    for name, value in values.items():
        where = f"'{name}' in {file}" if file else option_name(name)
        if name not in by_name:
            names = by_name if file else [field.option for field in by_name.values()]
            guess = nearest(name if file else option_name(name), names).strip()
            known = f"There are: {', '.join(names)}."
            raise UsageError(f"No setting is called {where}.", "" if guess else known, guess)
        checked[name] = by_name[name].check(value, where)
    return checked


def require_values(fields: Iterable[Field], values: Mapping[str, Any]) -> None:
    """Raises UsageError where a field without a default has no value."""
    for field in fields:
        if field.required and field.name not in values:
            raise UsageError(
                f"{field.option} is missing.", f"It must be {field.allowed}.", field.help
            )


def read_settings(path: str | Path) -> dict[str, Any]:
    """Returns the settings in a run's config.json, or in a plain JSON object of settings.

    Raises:
        UsageError: The file cannot be read or holds something else.
    """
    expected = "Settings are a run's config.json, or a JSON object of names and values."
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.", expected) from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON: {error}.", expected) from None
    if isinstance(content, dict) and "format" in content:
        if content["format"] != 1:
            raise UsageError(
                f"{path} has format {content['format']}.",
                "This version of tfsft reads format 1.",
                "Use the version of tfsft that wrote it; the file names it under 'versions'.",
            )
        content = content.get("settings")
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds no settings.", expected)
    return content


def to_dict(config: Any) -> dict[str, Any]:
    """Returns a Config's settings, ready for JSON."""
    return dataclasses.asdict(config)


def to_options(fields: Iterable[Field], values: Mapping[str, Any]) -> list[str]:
    """Returns values as a person types them, those left out that are the defaults."""
    words = []
    for field in fields:
        value = values[field.name]
        if field.kind is bool:
            typed = field.option if value else f"--no-{field.option[2:]}"
        else:
            typed = f"{field.option}={'none' if value is None else value}"
        if value != field.default:
            words.append(typed)
    return words


def without_options(words: Sequence[str], names: Collection[str]) -> list[str]:
    """Returns the words of a command without some options and their values.

    Args:
        words: As typed.
        names: Options that take a value, such as `--run-dir`.
    """
    kept, skip = [], False
    for word in words:
        if skip or word in names:
            skip = not skip
        elif word.partition("=")[0] not in names:
            kept.append(word)
    return kept
