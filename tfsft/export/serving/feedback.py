"""What people say of answers, kept as rows that the recipes read as data."""

import contextlib
import fcntl
import hashlib
import io
import itertools
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter
from PIL import Image, ImageOps
from pydantic import BaseModel, Field

from tfsft.data.replay import called_wrong
from tfsft.errors import UsageError
from tfsft.export.serving.masking import masked
from tfsft.export.serving.problems import Busy, Problem, TooLarge
from tfsft.export.serving.service import Service
from tfsft.export.serving.tf_serving import from_base64

PICTURE_SIDE = 1024  # pixels; larger ones are made smaller


class Span(BaseModel):
    """An entity in a text."""

    start: int = Field(ge=0)
    end: int = Field(ge=0)
    label: str


class Said(BaseModel):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class FeedbackRequest(BaseModel):
    """An example with its right answer: that of the model, or a better one."""

    text: str | None = None
    pair: str | None = None
    question: str | None = None
    context: str | None = None
    picture: str | None = Field(None, description="The file in base64.")
    messages: list[Said] | None = Field(None, max_length=1000, description="Ends with the answer.")
    label: str | float | list[str] | None = None
    spans: list[Span] | None = None
    answer: str | None = None
    start: int | None = Field(
        None, ge=0, description="Where the answer begins in the context; else its first place."
    )
    wrong: bool = Field(
        False, description="The answer is wrong, and nobody knows the right one: not trained on."
    )


class FeedbackFile:
    """A file of JSON lines that grows by whole lines.

    Args:
        path: It; made where it is missing, for its owner alone.

    Raises:
        UsageError: It cannot be written.
    """

    def __init__(self, path: Path):
        self.path = path
        self._lock = threading.Lock()
        try:
            with self._opened():
                pass
        except OSError as error:
            raise UsageError(
                f"--feedback {path} cannot be written: {error.strerror}.",
                "A file in a folder that is there; what is in it already stays.",
                "Make the folder, or name another file.",
            ) from error

    def add(self, row: Mapping[str, Any]) -> None:
        """Adds a row, whole or not at all; other processes may do so at the same time.

        Raises:
            OSError: It cannot be written.
        """
        line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
        with self._lock, self._opened() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            size = os.fstat(file).st_size
            if size and os.pread(file, 1, size - 1) != b"\n":  # somebody was killed while writing
                line = b"\n" + line
            try:
                if os.write(file, line) != len(line):
                    raise OSError("the disk is full")
                os.fsync(file)
            except OSError:
                os.ftruncate(file, size)
                raise

    def add_wrong(self, row: Mapping[str, Any]) -> None:
        """Adds a row to the file beside, of answers that are wrong and not to be trained on."""
        FeedbackFile(called_wrong(self.path)).add(row)

    def add_picture(self, content: bytes) -> str:
        """Writes a picture beside the file; returns its path from there.

        It is decoded and written anew, as files of cameras say where and when they were made.
        """
        folder = self.path.with_name(f"{self.path.stem}-pictures")
        folder.mkdir(mode=0o700, exist_ok=True)
        with Image.open(io.BytesIO(content)) as image:
            picture = ImageOps.exif_transpose(image).convert("RGB")
        picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
        file = io.BytesIO()
        picture.save(file, "PNG")
        name = f"{hashlib.blake2b(file.getvalue(), digest_size=12).hexdigest()}.png"
        beside = folder / f".{name}.{os.getpid()}"
        beside.write_bytes(file.getvalue())
        beside.replace(folder / name)
        return f"{folder.name}/{name}"

    @contextlib.contextmanager
    def _opened(self) -> Any:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(self.path, flags, 0o600)
        try:
            yield file
        finally:
            os.close(file)


def routes(service: Service, file: FeedbackFile) -> APIRouter:
    """Returns the route."""
    router = APIRouter(tags=["Feedback"])

    @router.post("/feedback", summary="Say what the right answer is", status_code=201)
    async def feedback(request: FeedbackRequest) -> dict[str, bool]:
        service.check_ready()
        _check_size(request, service.settings.max_text)
        await service.prepared(_write, request, service, file)
        service.counts.feedback.inc()
        return {"written": True}

    return router


def _write(request: FeedbackRequest, service: Service, file: FeedbackFile) -> None:
    row = _row(request, service.task)
    try:
        if row.get("image") is not None:
            content = from_base64(row["image"])
            service.model.prepare({"pictures": content})  # whatever it refuses is not kept
            row["image"] = file.add_picture(content)
        (file.add_wrong if request.wrong else file.add)(row)
    except OSError as error:
        raise Busy(f"The feedback cannot be written: {error.strerror or error}.", 60) from error


def _row(request: FeedbackRequest, task: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a row as the recipe of the task reads it, without what could lead to a person."""
    match task["task"]:
        case "image_classification":
            row = {"image": request.picture, "label": _label(request, task)}
        case "text_classification":
            row = {name: _masked(getattr(request, name)) for name in task["inputs"]}
            row["label"] = _label(request, task)
        case "token_classification":
            row = _tagged(request, task)
        case "question_answering":
            row = _answered(request)
        case "chat":
            row = {"messages": _conversation(request)}
        case _:
            row = {"source": _masked(request.text), "target": _masked(request.answer)}
    missing = [name for name, value in row.items() if value is None]
    if missing:
        raise Problem(f"The feedback lacks {' and '.join(map(repr, missing))}.")
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:  # half of a letter, which JSON lets through
        raise Problem("A text is no valid UTF-8.") from error
    return row


def _label(request: FeedbackRequest, task: Mapping[str, Any]) -> Any:
    label, names = request.label, task["class_names"]
    if task["labels"] == "regression":
        good = isinstance(label, float) and abs(label) < 1e30
        if not good:
            raise Problem("The label is a number.")
        return label
    several = task["labels"] == "multi"
    chosen = label if isinstance(label, list) else [label]
    if isinstance(label, list) != several or not set(chosen) <= set(names):
        kind = "a list of" if several else "one of"
        raise Problem(f"The label is {kind} {', '.join(map(repr, names[:20]))}.")
    return chosen if several else label


def _tagged(request: FeedbackRequest, task: Mapping[str, Any]) -> dict[str, Any]:
    text, spans = request.text or "", request.spans or []
    if any(not s.start < s.end <= len(text) or s.label not in task["class_names"] for s in spans):
        raise Problem("A span lies in the text and has one of the labels of the run.")
    ordered = sorted(spans, key=lambda span: span.start)
    if any(after.start < before.end for before, after in itertools.pairwise(ordered)):
        raise Problem("No word lies in two spans.")
    clean = masked(text)
    moved = [(*clean.span(s.start, s.end), s.label) for s in spans]
    rows = [{"start": start, "end": end, "label": label} for start, end, label in moved]
    return {"text": clean.text if request.text is not None else None, "spans": rows}


def _answered(request: FeedbackRequest) -> dict[str, Any]:
    context, answer = request.context, request.answer
    clean = None if context is None else masked(context)
    answers: dict[str, list] | None = None
    if clean is not None and answer is not None:
        start = context.find(answer) if request.start is None else request.start
        if start < 0 or context[start : start + len(answer)] != answer:
            raise Problem("The answer is a piece of the context.")
        first, last = clean.span(start, start + len(answer))
        found = [(clean.text[first:last], first)] if answer else []
        answers = {"text": [text for text, _ in found], "answer_start": [at for _, at in found]}
    question = _masked(request.question)
    return {"question": question, "context": clean and clean.text, "answers": answers}


def _conversation(request: FeedbackRequest) -> list[dict[str, str]] | None:
    messages = request.messages or []
    if len(messages) < 2 or messages[-1].role != "assistant":
        raise Problem("'messages' end with the answer of the assistant.")
    if not messages[-1].content.strip() and not request.wrong:
        raise Problem("Nothing can be learned from an empty answer: write a better one.")
    return [{"role": m.role, "content": masked(m.content).text} for m in messages]


def _masked(text: str | None) -> str | None:
    return None if text is None else masked(text).text


def _check_size(request: FeedbackRequest, most: int) -> None:
    texts = [request.text, request.pair, request.question, request.context, request.answer]
    texts.append("".join(message.content for message in request.messages or ()))
    if max(len(text or "") for text in texts) > most:
        raise TooLarge(f"A text has more than {most:,} characters.")
