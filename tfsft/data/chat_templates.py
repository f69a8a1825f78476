"""How a conversation is written down for a language model: its chat template, cut into pieces."""

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from tfsft.data.plain_texts import read_text
from tfsft.data.template_process import MOST_RENDERED, TemplateFault, render
from tfsft.errors import UsageError, UserError, nearest

MOST_SOURCE = 100_000  # letters of a template

_CHATML = """\
{% for message in messages %}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor %}
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
_LLAMA3 = """\
{{ bos_token }}
{%- for message in messages %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
{{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{% if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}"""
_GEMMA = """\
{{ bos_token }}
{%- for message in messages %}
{%- if message['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- set role = 'model' if message['role'] == 'assistant' else 'user' %}
{{- '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""
_ALPACA = """\
{% for message in messages %}
{% if message['role'] == 'system' %}
{{ message['content'] + '\\n\\n' }}
{%- elif message['role'] == 'user' %}
{{ '### Instruction:\\n' + message['content'] + '\\n\\n' }}
{%- else %}
{{ '### Response:\\n' + message['content'] + '\\n\\n' }}
{%- endif %}
{% endfor %}
{% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}"""
_PLAIN = """\
{% for message in messages %}
{{ message['role'] | capitalize + ': ' + message['content'] + '\\n' }}
{%- endfor %}
{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"""
TEMPLATES = {
    "chatml": _CHATML,
    "llama3": _LLAMA3,
    "gemma": _GEMMA,
    "alpaca": _ALPACA,
    "plain": _PLAIN.replace("'Assistant:'", "'Assistant: '"),
}
_ENDED = """\
{%- set ended = namespace(messages=[]) %}
{%- for message in messages %}
{%- if message['role'] == 'assistant' %}
{%- set ended.messages = ended.messages
    + [dict(message, content=message['content'] + eos_token)] %}
{%- else %}
{%- set ended.messages = ended.messages + [message] %}
{%- endif %}
{%- endfor %}
{%- set messages = ended.messages %}
"""
_SYSTEM_FIRST = """\
{%- if messages | length > 1 and messages[0]['role'] == 'system' %}
{%- set both = messages[0]['content'] + '\\n\\n' + messages[1]['content'] %}
{%- set messages = [dict(messages[1], content=both)] + messages[2:] %}
{%- endif %}
"""
# The token by which a model shows which of these it was trained with.
_SIGNS = {"<|im_start|>": "chatml", "<|start_header_id|>": "llama3", "<start_of_turn>": "gemma"}
_PLACEHOLDER = re.compile(
    "\ue000(\\d+)\ue001"
)  # for private use; what people write is not rendered

Message = Mapping[str, str]


class Tokenizer(Protocol):
    """What a template needs of `models.ChatTokenizer`."""

    control: dict[str, int]
    begin: int | None
    end: int


@dataclass(frozen=True)
class Piece:
    """A part of a conversation as a model sees it.

    Args:
        text: One control token, or what is tokenised as text.
        control: Whether it is a control token.
        answer: The number of the message that it belongs to, if that is what the assistant has to
            write: the content, and the token that ends the turn. None for all else.
    """

    text: str
    control: bool = False
    answer: int | None = None


@dataclass(frozen=True)
class _Slot:
    """The place of a message's content in a rendering."""

    number: int
    trimmed: bool


class ChatTemplate:
    """Cuts conversations into pieces: text of the template and of people, and control tokens.

    The template never sees what people wrote: it is rendered once for each sequence of roles, with
    placeholders in the place of the contents. So no text can forge a control token.

    Args:
        source: In Jinja, as Hugging Face has it: `messages`, `add_generation_prompt`, `bos_token`,
            `eos_token`, `raise_exception`, `strftime_now`. It runs in a sandbox, in a process of
            its own with limits.
        control: Control tokens by their text.
        begin: Text of the token that a text begins with, if there is one.
        end: Text of the token that ends a text, for templates that end a turn with none.
        name: For messages.

    Raises:
        UserError: It does not parse, or is too long.
    """

    def __init__(
        self,
        source: str,
        *,
        control: Collection[str] = (),
        begin: str = "",
        end: str = "",
        name: str = "the chat template",
    ):
        self.source = source
        self.name = name
        self.begin = begin
        self.end = end
        self._control = set(control) | {text for text in (begin, end) if text}
        longest_first = sorted(self._control, key=len, reverse=True)
        self._cut = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._skeletons: dict[tuple, list[Piece | _Slot]] = {}
        if len(source) > MOST_SOURCE:
            raise UserError(f"{name} has {len(source):,} letters.", f"At most {MOST_SOURCE:,}.")
        try:
            render(source, None)
        except TemplateFault as error:
            raise UserError(
                f"{name} is no Jinja template: {error}",
                "Such as {% for message in messages %}...{% endfor %}.",
                f"Mend it, or choose one of {', '.join(TEMPLATES)}.",
            ) from error

    def pieces(self, messages: Sequence[Message], *, generate: bool = False) -> list[Piece]:
        """Returns a conversation in pieces.

        Args:
            messages: With `role` and `content`.
            generate: Ends where the assistant begins to answer.

        Raises:
            UserError: The template refuses the conversation, or leaves an answer out.
        """
        roles = tuple(message["role"] for message in messages)
        key = (roles, generate)
        if key not in self._skeletons:
            if generate:
                self._skeletons[key] = self._prompt_skeleton(roles)
            else:
                self._skeletons[key] = self._whole_skeleton(roles)
        pieces = []
        for part in self._skeletons[key]:
            if isinstance(part, Piece):
                pieces.append(part)
                continue
            content = messages[part.number]["content"]
            if part.trimmed:
                content = content.strip()
            answer = part.number if roles[part.number] == "assistant" else None
            pieces.append(Piece(content, answer=answer))
        return pieces

    @property
    def ends(self) -> tuple[str, ...]:
        """The control tokens that end an answer."""
        pieces = self._whole_skeleton(("user", "assistant"))
        last = [p for p in pieces if isinstance(p, Piece) and p.control and p.answer is not None]
        return tuple(dict.fromkeys([*(piece.text for piece in last), *filter(None, [self.end])]))

    @property
    def portable(self) -> str | None:
        """The template for programs that render it alone; None where that cannot be.

        What is put around it here is written into it: the token that a text begins with, the one
        that ends an answer, and the place of a system message that it refuses.
        """
        parts = self._render(("user", "assistant"), generate=False)
        source = self.source
        if self._count(self._marked(parts, ("user", "assistant"))) > self._count(parts):
            source = _ENDED + source
        marks = [{"role": role, "content": f"\ue000{role}"} for role in ("system", "user")]
        if not self._takes_system(marks):
            source = _SYSTEM_FIRST + source
        if self._begun(parts) is not parts:
            source = "{{ bos_token }}" + source
        alone = ChatTemplate(
            source, control=self._control, begin=self.begin, end=self.end, name=self.name
        )
        one, many = ("user", "assistant"), ("user", "assistant", "user", "assistant")
        for roles in (one[:1], one, many[:3], many, ("system", *one), ("system", *many[:3])):
            messages = [{"role": role, "content": f"{role} {i}"} for i, role in enumerate(roles)]
            generate = roles[-1] == "user"
            expected = "".join(piece.text for piece in self.pieces(messages, generate=generate))
            if alone._text(messages, generate) != expected:
                return None
        return source

    @staticmethod
    def _count(parts: list["Piece | _Slot"]) -> int:
        return sum(isinstance(part, Piece) and part.control for part in parts)

    def _prompt_skeleton(self, roles: tuple[str, ...]) -> list[Piece | _Slot]:
        return self._marked(self._begun(self._render(roles, generate=True)), roles)

    def _whole_skeleton(self, roles: tuple[str, ...]) -> list[Piece | _Slot]:
        parts = self._begun(self._render(roles, generate=False))
        answers = [n for n, role in enumerate(roles) if role == "assistant"]
        places = {part.number: i for i, part in enumerate(parts) if isinstance(part, _Slot)}
        if answers and answers[-1] not in places:
            raise UserError(
                f"{self.name} leaves the assistant's last answer out.",
                "A template that writes every message down.",
                f"Choose another --template: {', '.join(TEMPLATES)}, or a file.",
            )
        if answers and roles[-1] == "assistant":
            parts = self._answer_begins(parts, places[answers[-1]], roles)
        return self._marked(parts, roles)

    def _marked(self, parts: list[Piece | _Slot], roles: tuple[str, ...]) -> list[Piece | _Slot]:
        """Marks the tokens that end answers; puts one where the template has none."""
        marked: list[Piece | _Slot] = []
        waiting: int | None = None  # the answer whose end has not come
        for place, part in enumerate(parts):
            if waiting is not None:
                # Spaces before the token that ends a turn belong to the answer too.
                space = isinstance(part, Piece) and not part.text.strip()
                end = parts[place + 1] if space and place + 1 < len(parts) else part
                if isinstance(end, Piece) and end.control:
                    marked.append(replace(part, answer=waiting))
                    waiting = waiting if space else None
                    continue
                marked += self._ended(waiting)
                waiting = None
            marked.append(part)
            if isinstance(part, _Slot) and roles[part.number] == "assistant":
                waiting = part.number
        return marked + ([] if waiting is None else self._ended(waiting))

    def _ended(self, answer: int) -> list[Piece]:
        return [Piece(self.end, control=True, answer=answer)] if self.end else []

    def _answer_begins(
        self, parts: list[Piece | _Slot], place: int, roles: tuple[str, ...]
    ) -> list[Piece | _Slot]:
        """Marks what the template puts between prompt and answer as part of the answer."""
        prompt = self._begun(self._render(roles[:-1], generate=True))
        before = parts[:place]
        texts = ["".join(_shown(part) for part in side) for side in (prompt, before)]
        if not texts[1].startswith(texts[0]):
            raise UserError(
                f"{self.name} asks for an answer in another way than it writes one down: "
                f"{texts[0][-60:]!r} and {texts[1][-60:]!r}.",
                "The prompt is the beginning of the whole conversation.",
                f"Choose another --template: {', '.join(TEMPLATES)}, or a file.",
            )
        extra = texts[1][len(texts[0]) :]
        if not extra:
            return parts
        added = [replace(piece, answer=len(roles) - 1) for piece in self._controls(extra)]
        return [*prompt, *added, *parts[place:]]

    def _begun(self, parts: list[Piece | _Slot]) -> list[Piece | _Slot]:
        first = parts[0] if parts else None
        if not self.begin or (isinstance(first, Piece) and first.text == self.begin):
            return parts
        return [Piece(self.begin, control=True), *parts]

    def _render(self, roles: tuple[str, ...], *, generate: bool) -> list[Piece | _Slot]:
        marks = [f"\ue000{number}\ue001" for number in range(len(roles))]
        messages = [
            {"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)
        ]
        if roles[:1] == ("system",) and len(roles) > 1 and not self._takes_system(messages):
            # As is usual for families without a system message: before what the user says first.
            both = f"{marks[0]}\n\n{marks[1]}"
            messages = [{"role": roles[1], "content": both}, *messages[2:]]
        text = self._text(messages, generate)
        # A space that no template writes by itself.
        spaced = self._text(
            [{**m, "content": f"\u2003{m['content']}\u2003"} for m in messages], generate
        )
        parts: list[Piece | _Slot] = []
        for i, part in enumerate(_PLACEHOLDER.split(text)):
            if i % 2:
                mark = f"\ue000{part}\ue001"
                kept = f"\u2003{mark}" in spaced or f"{mark}\u2003" in spaced
                parts.append(_Slot(int(part), trimmed=not kept))
            else:
                parts += self._controls(part)
        return parts

    def _controls(self, text: str) -> list[Piece]:
        """Cuts text of the template at its control tokens."""
        pieces, start = [], 0
        for found in self._cut.finditer(text):
            if found.start() > start:
                pieces.append(Piece(text[start : found.start()]))
            pieces.append(Piece(found.group(), control=True))
            start = found.end()
        return pieces + ([Piece(text[start:])] if start < len(text) else [])

    def _takes_system(self, messages: list[dict[str, str]]) -> bool:
        try:
            return messages[0]["content"] in self._text(messages, generate=False)
        except UserError:
            return False

    def _text(self, messages: list[dict[str, str]], generate: bool) -> str:
        values = {"messages": messages, "add_generation_prompt": generate}
        values |= {"bos_token": self.begin, "eos_token": self.end}
        try:
            return render(self.source, values)
        except TemplateFault as error:
            if error.kind == "long":
                raise UserError(
                    f"{self.name} makes {error} letters of {len(messages)} empty messages.",
                    f"At most {MOST_RENDERED:,}.",
                ) from error
            roles = ", ".join(message["role"] for message in messages)
            raise UserError(
                f"{self.name} refuses a conversation of {roles}: {error}",
                "Turns of user and assistant, one after the other, and at most one system message.",
                f"Mend such rows, or choose another --template: {', '.join(TEMPLATES)}, or a file.",
            ) from error


def choose_template(given: str, own: str | None, tokenizer: Tokenizer) -> ChatTemplate:
    """Returns the template that is meant.

    Args:
        given: `auto`: the model's own, or what its control tokens speak for, or `plain`; a name in
            `TEMPLATES`; or a file.
        own: The model's own template, if it has one.
        tokenizer: Of the model.

    Raises:
        UsageError: There is no such template.
        UserError: The template cannot be used.
    """
    if given == "auto":
        sign = next((name for text, name in _SIGNS.items() if text in tokenizer.control), "plain")
        source, name = (own, "the model's chat template") if own else (TEMPLATES[sign], sign)
    elif given in TEMPLATES:
        source, name = TEMPLATES[given], f"the template {given}"
    elif os.path.isfile(given):
        source, name = read_text(given), given
    else:
        names = ["auto", *TEMPLATES]
        raise UsageError(
            f"There is no template '{given}'.{nearest(given, names)}",
            f"{', '.join(names)}, or a file with a Jinja template.",
        )
    return make_template(source, tokenizer, name=name)


def make_template(
    source: str, tokenizer: Tokenizer, *, name: str = "the chat template"
) -> ChatTemplate:
    """Returns a template with the control tokens of a tokenizer."""
    texts = {token: text for text, token in tokenizer.control.items()}
    return ChatTemplate(
        source,
        control=tokenizer.control,
        begin="" if tokenizer.begin is None else texts[tokenizer.begin],
        end=texts[tokenizer.end],
        name=name,
    )


def _shown(part: Piece | _Slot) -> str:
    return part.text if isinstance(part, Piece) else f"\ue000{part.number}\ue001"
