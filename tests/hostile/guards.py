"""Takes the guard out of tfsft that gives a message, to see that its case depends on it."""

import ast
import gc
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType, FrameType, FunctionType

import tfsft
from tfsft.errors import UserError

PACKAGE = str(Path(tfsft.__file__).parent)
# Where messages are raised that say what was found elsewhere: their guard is what found it.
COLLECTORS = {"check_bad", "check_rows", "_with_head", "read_questions"}
# Return, or are, parts of a reason.
PARTS = {"shortened", "printable", "_real", "what"}
LEAST = 6  # letters by which the words of a message are known


@dataclass(frozen=True)
class Guard:
    """A statement that gives a message.

    Args:
        file, line: Where it begins.
        function: The outermost function it lies in, by its qualified name.
    """

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        statement = _statements(self.file)[self.line][0]
        name = Path(self.file).relative_to(PACKAGE)
        return f"{name}:{self.line} {ast.unparse(statement).splitlines()[0][:90]}"


def find_guard(call: Callable[[], object]) -> Guard:
    """Returns the guard of the message that `call` raises.

    It is the `raise` of the message, or of the error of our own that it explains. Where examples
    are collected that cannot be used, it is the statement that said why.
    """
    lines: list[tuple[str, int]] = []
    said: list[tuple[str, int, str]] = []
    try:
        with _watching(lines, said):
            call()
    except UserError as error:
        came = error.came
        raised = [_raised(error.__cause__), _raised(error)]
    place = next((place for place in raised if place is not None), None)
    if place is not None and place.function.split(".")[-1] not in COLLECTORS:
        return place
    # What was raised, returned or yielded and is a part of the message: the longest, first.
    found = [
        (len(text), _guard(file, line))
        for file, line, text in said
        if len(text) >= LEAST and text in came and _guard(file, line)
    ]
    # What was kept in a variable, by its words.
    for file, line in dict.fromkeys(lines):
        guard = _guard(file, line)
        statement = _statements(file)[guard.line][0] if guard else None
        if isinstance(statement, ast.Assign) and not isinstance(statement.value, ast.Call):
            if getattr(statement.targets[0], "id", "") in PARTS:
                continue
            words = [text for text in _words(statement) if len(text) >= LEAST and text in came]
            found += [(len(text), guard) for text in words]
    return max(found, key=lambda item: item[0])[1] if found else place


@contextmanager
def removed(guard: Guard) -> Iterator[None]:
    """Runs the function of a guard without it."""
    tree = ast.parse(Path(guard.file).read_text(encoding="utf-8"))
    tree = ast.fix_missing_locations(_Remover(guard.line).visit(tree))
    code = next(
        code
        for code in _codes(compile(tree, guard.file, "exec", dont_inherit=True))
        if code.co_qualname == guard.function
    )
    functions = [
        item
        for item in gc.get_objects()
        if isinstance(item, FunctionType)
        and item.__code__.co_filename == guard.file
        and item.__code__.co_qualname == guard.function
    ]
    before = [function.__code__ for function in functions]
    try:
        for function in functions:
            function.__code__ = code
        yield
    finally:
        for function, old in zip(functions, before, strict=True):
            function.__code__ = old


class _Remover(ast.NodeTransformer):
    """Takes a statement out, or what it returns, yields or keeps as a reason: that comes last."""

    def __init__(self, line: int):
        self.line = line

    def visit(self, node: ast.AST) -> ast.AST:
        if getattr(node, "lineno", None) != self.line or not _is_guard(node):
            return self.generic_visit(node)
        if isinstance(node, ast.Raise) or isinstance(
            getattr(node, "targets", [0])[0], ast.Subscript
        ):
            return ast.copy_location(ast.Pass(), node)
        holder = node.value if isinstance(node, ast.Expr) else node
        if isinstance(holder.value, ast.Tuple):
            holder.value.elts[-1] = ast.Constant(None)
        else:
            holder.value = ast.Constant(None)
        return node


def _is_guard(node: ast.AST) -> bool:
    yields = isinstance(node, ast.Expr) and isinstance(node.value, ast.Yield)
    return yields or isinstance(node, ast.Raise | ast.Return | ast.Assign)


@contextmanager
def _watching(lines: list[tuple[str, int]], said: list[tuple[str, int, str]]) -> Iterator[None]:
    """Notes which lines of tfsft are executed, and what they raise, return and yield as text."""

    def trace(frame: FrameType, event: str, value: object) -> Callable | None:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        place = frame.f_code.co_filename, frame.f_lineno
        if event == "line":
            lines.append(place)
        elif event == "exception" and not isinstance(value[1], UserError):
            said.append((*place, str(value[1])))
        elif event == "return" and frame.f_code.co_name not in PARTS:
            parts = value if isinstance(value, tuple) else (value,)
            said.extend((*place, part) for part in parts if isinstance(part, str))
        return trace

    before = sys.gettrace()
    threading.settrace(trace)
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)
        threading.settrace(before)


def _raised(error: BaseException | None) -> Guard | None:
    """Returns the `raise` in tfsft that an error comes from; None if it comes from elsewhere."""
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    if not frames or not frames[-1].filename.startswith(PACKAGE):
        return None
    guard = _guard(frames[-1].filename, frames[-1].lineno)
    raises = guard and isinstance(_statements(guard.file)[guard.line][0], ast.Raise)
    return guard if raises else None


def _guard(file: str, line: int) -> Guard | None:
    """Returns the statement around a line, if it may be a guard."""
    around = [
        (statement, owner)
        for statement, owner in _statements(file).values()
        if statement.lineno <= line <= statement.end_lineno
    ]
    if not around:
        return None
    statement, owner = around[-1]
    return Guard(file, statement.lineno, owner)


@cache
def _statements(file: str) -> dict[int, tuple[ast.stmt, str]]:
    """Returns the statements that may be guards by their line, each with its outermost function."""
    found = {}

    def walk(node: ast.AST, path: str, owner: str) -> None:
        for child in ast.iter_child_nodes(node):
            here, inside = path, owner
            if isinstance(child, ast.ClassDef | ast.FunctionDef):
                here = f"{path}.{child.name}".lstrip(".")
                inside = owner or (here if isinstance(child, ast.FunctionDef) else "")
            elif owner and _is_guard(child):
                found[child.lineno] = child, owner
            walk(child, here, inside)

    walk(ast.parse(Path(file).read_text(encoding="utf-8")), "", "")
    return found


def _words(statement: ast.stmt) -> Iterator[str]:
    """Yields the texts in a statement."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value.strip()


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
