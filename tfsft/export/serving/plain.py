"""`POST /predict`: a file or JSON in, the answers of `tfsft predict` out; what the page shows."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.datastructures import FormData, UploadFile

from tfsft.export.serving.problems import Problem
from tfsft.export.serving.service import Service
from tfsft.export.serving.tf_serving import from_base64

FILE = "file"  # the field of a form that holds a picture or a text
STRING = {"type": "string"}
EXAMPLE = {
    "type": "object",
    "properties": {
        name: STRING | {"description": text}
        for name, text in {
            "text": "A text; of pairs the first.",
            "pair": "The second text.",
            "question": "A question ...",
            "context": "... and where its answer may stand.",
            "picture": "A picture file in base64.",
        }.items()
    },
}
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"anyOf": [EXAMPLE, {"type": "array", "items": EXAMPLE, "minItems": 1}]}
            },
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {FILE: {"type": "string", "format": "binary"}, "text": STRING},
                }
            },
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "text/plain": {"schema": STRING},
        },
    }
}


class PlainAnswers(BaseModel):
    """An answer for each example, as `tfsft predict --json` gives it."""

    answers: list[dict[str, Any]]


def routes(service: Service) -> APIRouter:
    """Returns the routes."""
    router = APIRouter(tags=["Plain"])

    @router.post("/predict", summary="Predict", openapi_extra=BODY)
    async def predict(request: Request) -> PlainAnswers:
        service.check_ready()
        rows, found = await service.predict(await read_examples(request, service))
        tidy = service.model.tidy
        return PlainAnswers(answers=[tidy(*pair) for pair in zip(rows, found, strict=True)])

    @router.get("/about", summary="What the model does, for a page that shows it")
    async def about() -> dict[str, Any]:
        limits = service.settings
        if not service.ready:  # no error, as browsers show these to who looks there
            return {"ready": False, "name": limits.name}
        return {
            "ready": True,
            "name": limits.name,
            "task": service.task["task"],
            "labels": service.task["labels"],
            "class_names": service.task["class_names"],
            "inputs": list(service.model.words),
            "explains": service.explains,
            "feedback": limits.feedback is not None,
            "limits": {
                "body_bytes": limits.max_body,
                "pixels": limits.max_pixels,
                "characters": limits.max_text,
                "new_tokens": limits.max_new_tokens,
            },
        }

    return router


async def read_examples(request: Request, service: Service) -> list[dict[str, Any]]:
    """Returns the examples of a request, a value for each input of the model.

    Raises:
        Problem: There are none that the model takes.
    """
    words = service.model.words
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        async with request.form(max_files=service.settings.queue) as form:
            examples = await _of_form(form, words)
    elif kind == "text/plain" or kind.startswith("image/"):
        examples = [_of_values([_of_file(await request.body(), words[0])], words)]
    else:
        examples = _of_json(await request.body(), words)
    names = [tensor.name for tensor in service.model.inputs]
    return [dict(zip(names, example, strict=True)) for example in examples]


def _of_json(body: bytes, words: Sequence[str]) -> list[list]:
    """Returns the examples of a JSON body; their values in the order of the inputs."""
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Problem("The body is no JSON; an image/... or a form may be sent as well.") from error
    rows = given if isinstance(given, list) else [given]
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise Problem(f"An example is an object with {' and '.join(map(repr, words))}.")
    return [_of_object(row, words) for row in rows]


def _of_object(row: Mapping[str, Any], words: Sequence[str]) -> list:
    if set(row) != set(words):
        raise Problem(f"An example is an object with {' and '.join(map(repr, words))}.")
    return [from_base64(row[word]) if word == "picture" else row[word] for word in words]


async def _of_form(form: FormData, words: Sequence[str]) -> list[list]:
    """Returns the examples of a form: fields by name, `file` for the first of them."""
    columns = []
    for place, word in enumerate(words):
        fields = form.getlist(word) or (form.getlist(FILE) if place == 0 else [])
        columns.append([await _of_field(field, word) for field in fields])
    if not columns[0] or len(set(map(len, columns))) > 1:
        wanted = " and ".join(map(repr, words))
        raise Problem(f"The form has no field {wanted}; a file may stand in {FILE!r}.")
    return [list(values) for values in zip(*columns, strict=True)]


async def _of_field(field: str | UploadFile, word: str) -> Any:
    if isinstance(field, UploadFile):
        return _of_file(await field.read(), word)
    return from_base64(field) if word == "picture" else field


def _of_file(content: bytes, word: str) -> Any:
    if word == "picture":
        return content
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Problem("The text is no UTF-8.") from error


def _of_values(values: list, words: Sequence[str]) -> list:
    if len(values) != len(words):
        raise Problem(f"An example has {' and '.join(map(repr, words))}: send JSON, or a form.")
    return values
