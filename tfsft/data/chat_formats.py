"""Which columns hold a conversation, and what a row of them says."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tfsft.data import tables
from tfsft.data.chat_files import ChatFile, as_list, is_messages
from tfsft.data.labels import shorten
from tfsft.data.text_encodings import shortened
from tfsft.data.text_tables import is_number
from tfsft.errors import UserError

Message = dict[str, str]

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "ai": "assistant",
}
TOOL_ROLES = ("tool", "function", "function_call", "observation", "ipython")
MESSAGE_COLUMNS = ["messages", "conversations", "conversation", "chat", "dialogue", "dialog"]
PROMPT_COLUMNS = ["instruction", "prompt", "question", "user", "human", "query", "input"]
ANSWER_COLUMNS = ["completion", "response", "answer", "output", "assistant", "reply"]
EXTRA_COLUMNS = ["input", "context"]  # beside an instruction
SYSTEM_COLUMNS = ["system", "system_prompt"]
ID_COLUMNS = ["", "id", "idx", "index", "conversation_id", "uuid"]
WORKS = (
    'Rows such as {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", '
    '"content": "Hello!"}]}, {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", '
    '"value": "Hello!"}]}, {"instruction": "Greet me", "output": "Hello!"} or {"prompt": "Hi", '
    '"completion": "Hello!"}; a table with two columns, question and answer.'
)
REWRITTEN_COLUMNS = ["source", "src", "document", "article", "dialogue", "text", "original"]
RESULT_COLUMNS = ["target", "tgt", "summary", "highlights", "translation", "headline"]
MENDS = ("joined", "first", "last", "own_system", "weight")  # counted, see `Conversation`


@dataclass(frozen=True)
class PairColumns:
    """How two columns are found that hold a text and what should come of it.

    Args:
        first, second: Names that they may have, the likeliest first.
        called: What their contents are called.
        options: What names them on the command line.
        nouns: What rows are called.
    """

    first: Sequence[str]
    second: Sequence[str]
    called: tuple[str, str]
    options: tuple[str, str]
    nouns: str

    @property
    def naming(self) -> str:
        """Both options in a sentence."""
        return " and ".join(self.options)


ASKING = PairColumns(
    PROMPT_COLUMNS,
    ANSWER_COLUMNS,
    ("Prompts", "answers"),
    ("--prompt-column", "--answer-column"),
    "conversations",
)
REWRITING = PairColumns(
    [*REWRITTEN_COLUMNS, *PROMPT_COLUMNS],
    [*RESULT_COLUMNS, *ANSWER_COLUMNS],
    ("Inputs", "targets"),
    ("--input-column", "--target-column"),
    "pairs of texts",
)


@dataclass(frozen=True)
class ChatFormat:
    """Which columns of a file hold what.

    Args:
        messages: A list of messages; or instead of it
        prompt, answer: What the user says, and what the assistant does; None where answers are
            not wanted.
        extra: What is put below the prompt, as Alpaca's `input`.
        system: A system message.
        group, split: What must stay on one side, and which side it is.
        named: Whether the columns were recognised by their names, or chosen; otherwise they are
            the only two.
    """

    messages: str | None = None
    prompt: str | None = None
    answer: str | None = None
    extra: str | None = None
    system: str | None = None
    group: str | None = None
    split: str | None = None
    named: bool = True

    def columns(self) -> list[str]:
        """Returns the columns that are read."""
        roles = dataclasses.asdict(self)
        del roles["named"]
        return list(dict.fromkeys(name for name in roles.values() if name is not None))

    def describe(
        self, file: ChatFile, elsewhere: Sequence[str] = (), pair: PairColumns = ASKING
    ) -> str:
        """Returns a sentence for the screen; `elsewhere` are columns of the system prompt."""
        if file.about:
            return f"Conversations are {file.about}."
        if self.messages is not None:
            shown = f"Conversations are column {self.messages!r}"
        else:
            extra = f" and {self.extra!r}" if self.extra else ""
            shown = f"{pair.called[0]} are column {self.prompt!r}{extra}"
            if self.answer is not None:
                shown += f", {pair.called[1]} column {self.answer!r}"
        for what, name in [("system messages", self.system), ("group", self.group),
                           ("split", self.split)]:  # fmt: skip
            if name is not None:
                shown += f", {what} column {name!r}"
        shown += f" of {file.name} ({file.note})"
        used = (*self.columns(), *elsewhere)
        others = [n for n in file.columns if n not in used and not _is_id(n)]
        if others:
            shown += f"; not used: {shorten(others)}"
        if not self.named:
            shown += f"; {pair.naming} choose others"
        return shown + "."


@dataclass
class Conversation:
    """What a row says.

    Args:
        messages: Its messages; empty when there is a problem.
        problem: Why it cannot be used, in words that follow the row's name.
        joined: Whether neighbours of the same role were made one message.
        first: Whether an assistant's message before the first question was left out.
        last: Whether a question without an answer was left out at the end.
        own_system: Whether it has a system message of its own.
        weight: Whether a message has a weight of 0, which is not heeded.
    """

    messages: list[Message]
    problem: str | None = None
    joined: bool = False
    first: bool = False
    last: bool = False
    own_system: bool = False
    weight: bool = False


def find_format(
    file: ChatFile,
    *,
    prompt_column: str | None = None,
    answer_column: str | None = None,
    group_column: str | None = None,
    answers: bool = True,
    elsewhere: Sequence[str] = (),
    pair: PairColumns = ASKING,
) -> ChatFormat:
    """Finds the columns that hold conversations, by what is in them and then by their names.

    Args:
        file: From `open_chat_file`.
        prompt_column, answer_column: Columns that the user named; the first may be one with lists
            of messages.
        group_column: Column of what must stay on one side.
        answers: Whether there must be answers.
        elsewhere: Columns that are put into the system prompt, and so not below the prompt.
        pair: What the two columns may be called.

    Raises:
        UserError: There are none; names the row, its columns, and what would work.
    """
    for option, name in [(pair.options[0], prompt_column), (pair.options[1], answer_column),
                         ("--group-column", group_column)]:  # fmt: skip
        if name is not None:
            tables.find_column(file, [], "prompts, answers or groups", option, chosen=name)
    plain = {tables.plain_name(name): name for name in reversed(file.columns)}
    split = next((plain[name] for name in tables.SPLIT_COLUMNS if name in plain), None)
    split = None if split in (prompt_column, answer_column, group_column) else split
    common = {"group": group_column, "split": split}
    lists = [name for name in file.columns if any(map(is_messages, file.cells(name)))]

    messages = None
    if prompt_column is None and answer_column is None:
        named = [plain[name] for name in MESSAGE_COLUMNS if plain.get(name) in lists]
        both = _by_name(pair.first, plain), _by_name(pair.second, plain)
        if named or (lists and not all(both)):
            if not named and len(lists) > 1:
                raise UserError(
                    f"{file.path} has several columns with conversations: {', '.join(lists)}.",
                    "One of them.", f"Name it: {pair.options[0]} {lists[0]}.",
                )  # fmt: skip
            messages = (named or lists)[0]
    elif answer_column is None and prompt_column in lists:
        messages = prompt_column
    used = (messages, prompt_column, answer_column)
    system = _by_name(SYSTEM_COLUMNS, {k: v for k, v in plain.items() if v not in used})
    common["system"] = None if system in elsewhere else system
    if messages is not None:
        return ChatFormat(messages=messages, **common)

    free = [
        name
        for name in file.columns
        if name not in (group_column, split, system) and not _is_id(name)
    ]
    prompt, answer, by_name = _pair(
        file, free, prompt_column, answer_column, answers, elsewhere, pair
    )
    extra = None
    if prompt_column is None and tables.plain_name(prompt) == "instruction":
        others = {
            tables.plain_name(name): name
            for name in free
            if name not in (prompt, answer, *elsewhere)
        }
        extra = _by_name(EXTRA_COLUMNS, others)
    return ChatFormat(prompt=prompt, answer=answer, extra=extra, named=by_name, **common)


def _pair(
    file: ChatFile,
    free: list[str],
    prompt: str | None,
    answer: str | None,
    answers: bool,
    elsewhere: Sequence[str],
    pair: PairColumns,
) -> tuple[str, str | None, bool]:
    """Returns the columns of prompts and of answers, and whether their names say so."""
    given = prompt, answer

    def names(but: str | None) -> dict[str, str]:
        return {tables.plain_name(n): n for n in reversed(free) if n != but and n not in elsewhere}

    prompt = prompt or _by_name(pair.first, names(answer))
    answer = answer or _by_name(pair.second, names(prompt))
    if prompt and (answer or not answers):
        return prompt, answer if answers else None, True
    texts = [name for name in free if any(isinstance(c, str) for c in file.cells(name))]
    texts = [name for name in texts if name not in elsewhere]
    if given == (None, None):
        choice = free if len(free) == 2 and texts else texts
        if len(choice) == (2 if answers else 1):
            prompt, answer = (*choice, None)[:2]
            _check_header(file, choice)
            return prompt, answer, False
    elif answer is None or prompt is None:
        others = [name for name in texts if name not in given]
        if len(others) == 1:
            return prompt or others[0], answer or others[0], True
    number, row, _ = next(item for item in file.read(None) if item[1])
    raise UserError(
        f"{file.path}, row {number}: no conversation found in it. Its columns: "
        f"{', '.join(row) or 'none'}.",
        WORKS if answers else "A column called prompt or question, or a list of messages.",
        f"Rename the columns, or name them: {pair.naming}."
        if answers
        else f"Rename the column, or name it: {pair.options[0]}.",
    )


def _is_id(column: str) -> bool:
    return tables.plain_name(column).strip("_") in ID_COLUMNS


def _by_name(names: Sequence[str], plain: dict[str, str]) -> str | None:
    return next((plain[name] for name in names if name in plain), None)


def _check_header(file: ChatFile, columns: Sequence[str]) -> None:
    """Raises where the first line of a table is a question and its answer."""
    for name in columns:
        if len(name.split()) > 5 or name.rstrip().endswith((".", "?", "!")) or is_number(name):
            raise UserError(
                f"The first line of {file.path} is an example and not the names of the columns: "
                f"{shortened(name)}",
                "A first line such as question,answer.",
                "Write the names of the columns above the first row.",
            )


def read_row(row: dict[str, Any], form: ChatFormat, *, answers: bool = True) -> Conversation:
    """Returns the conversation of a row, with roles called system, user and assistant.

    Args:
        row: Cells by column.
        form: From `find_format`.
        answers: Whether there must be an answer; otherwise the last message is the user's.
    """
    try:
        found = Conversation(list(_messages(row, form, answers)))
        found.weight = _has_weight(row, form)
        _tidy(found, answers)
    except _BadRow as error:
        return Conversation([], str(error))
    return found


class _BadRow(Exception):
    pass


def _messages(row: dict[str, Any], form: ChatFormat, answers: bool) -> Iterator[Message]:
    if form.system is not None:
        yield {"role": "system", "content": _text(row.get(form.system), "system message")}
    if form.messages is not None:
        yield from _listed(row, form.messages)
        return
    if is_messages(row.get(form.prompt)):
        yield from _listed(row, form.prompt)
    else:
        prompt = _text(row.get(form.prompt), "prompt")
        if not prompt:
            raise _BadRow("has an empty prompt" if form.prompt in row else _lacks(row, form.prompt))
        extra = _text(row.get(form.extra), "input") if form.extra else ""
        yield {"role": "user", "content": f"{prompt}\n\n{extra}" if extra else prompt}
    if not answers:
        return
    if is_messages(row.get(form.answer)):
        yield from _listed(row, form.answer)
        return
    answer = _text(row.get(form.answer), "answer")
    if not answer:
        raise _BadRow("has an empty answer" if form.answer in row else _lacks(row, form.answer))
    yield {"role": "assistant", "content": answer}


def _lacks(row: dict[str, Any], name: str) -> str:
    return f"has no {name!r}; it has {', '.join(map(str, row)) or 'nothing'}"


def _listed(row: dict[str, Any], column: str) -> Iterator[Message]:
    """Yields the messages of a list."""
    cell = row.get(column)
    parts = as_list(cell)
    if not parts:
        if column not in row:
            raise _BadRow(_lacks(row, column))
        what = "is empty" if cell in (None, "", [], {}) else "is no list of messages"
        raise _BadRow(f"has a {column!r} that {what}")
    for number, part in enumerate(parts, 1):
        if not isinstance(part, dict):
            raise _BadRow(f"has a message {number} that is no object: {shortened(repr(part))}")
        said = next((part[key] for key in ("role", "from") if part.get(key) is not None), None)
        name = str(said).strip().lower()
        if name in TOOL_ROLES or part.get("tool_calls") or part.get("function_call"):
            raise _BadRow(f"calls a tool in message {number}; conversations are text only")
        if name not in ROLES:
            keys = ", ".join(map(str, part))
            raise _BadRow(
                f"has no role in message {number}; its keys: {keys}"
                if said is None
                else f"has the unknown role {said!r} in message {number}"
            )
        content = next(
            (part[key] for key in ("content", "value", "text") if part.get(key) is not None), None
        )
        if content is None and not {"content", "value", "text"} & set(part):
            keys = ", ".join(map(str, part))
            raise _BadRow(f"has no content in message {number}; its keys: {keys}")
        text = _text(content, f"message {number}")
        if not text and ROLES[name] != "system":
            what = "answer" if ROLES[name] == "assistant" else "message of the user"
            raise _BadRow(f"has an empty {what} (message {number})")
        yield {"role": ROLES[name], "content": text}


def _text(cell: object, what: str) -> str:
    """Returns a cell's text without the space around it."""
    if isinstance(cell, list) and cell and all(isinstance(p, dict) and "type" in p for p in cell):
        for part in cell:
            if part["type"] not in ("text", "input_text", "output_text"):
                raise _BadRow(f"has a part of type {part['type']!r} in its {what}, and not text")
        cell = "".join(str(part.get("text") or "") for part in cell)
    if isinstance(cell, list | dict):
        raise _BadRow(f"has a {what} that is no text: {shortened(repr(cell), 40)}")
    text = tables.cell_text(cell).strip()
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _BadRow(f"has half a character (a surrogate) in its {what}") from None
    return text


def _has_weight(row: dict[str, Any], form: ChatFormat) -> bool:
    parts = as_list(row.get(form.messages)) if form.messages is not None else None
    return any(part.get("weight") == 0 for part in parts or ())


def _tidy(found: Conversation, answers: bool) -> None:
    """Leaves out what cannot be trained, and makes the roles alternate."""
    messages: list[Message] = []
    for message in found.messages:
        if not message["content"]:
            continue  # an empty system message
        if messages and messages[-1]["role"] == message["role"]:
            messages[-1]["content"] += "\n\n" + message["content"]
            found.joined = True
        else:
            messages.append(message)
    for number, message in enumerate(messages[1:], 2):
        if message["role"] == "system":
            raise _BadRow(f"has a system message after others (message {number})")
    found.own_system = messages[:1] != [] and messages[0]["role"] == "system"
    start = int(found.own_system)
    if messages[start:] and messages[start]["role"] == "assistant":
        del messages[start]
        found.first = True
    if answers and messages[start:] and messages[-1]["role"] == "user":
        del messages[-1]
        found.last = True
    if not messages[start:]:
        raise _BadRow("has no answer" if found.last else "has no message of the user")
    if not answers and messages[-1]["role"] == "assistant":
        raise _BadRow("ends with an answer, and not with a message of the user")
    found.messages = messages
