"""`POST /explain`: why the model answers one example as it does, for the page and for programs."""

import base64
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from tfsft.data.sources import ArrayStorage, ImageSource
from tfsft.errors import UserError
from tfsft.evaluation.explanations import Explanation, Reason
from tfsft.export.explainer import Explainer, explainer_of
from tfsft.export.serving.feedback import Said
from tfsft.export.serving.plain import BODY, read_examples
from tfsft.export.serving.problems import Problem
from tfsft.export.serving.service import Service

MOST, MOST_OF_CHAT = 400, 96  # gradients; a client waits for them


class Talked(BaseModel):
    """A conversation whose last answer is to be explained."""

    messages: list[Said] = Field(min_length=2, max_length=1000, description="Ends with the answer.")


class Picture(BaseModel):
    """A view of a picture."""

    caption: str
    png: str = Field(description="The file in base64.")


class Piece(BaseModel):
    """Words, and what they add to the output; null where the model did not read them."""

    text: str
    weight: float | None


class Passage(BaseModel):
    """A text in pieces."""

    name: str
    pieces: list[Piece]


class Why(BaseModel):
    """What one output rests on: views of a picture, or pieces of texts."""

    title: str
    output: float | None
    baseline: float | None
    missing: float | None = Field(description="Share of the difference that the parts lack.")
    pictures: list[Picture]
    passages: list[Passage]


class Explained(BaseModel):
    """Why an example is answered as it is."""

    prediction: str
    baseline: str = Field(description="What the example is compared with.")
    unit: str = Field(description="What an output is.")
    notes: list[str]
    reasons: list[Why]


class Explaining:
    """Explains what a served model says; used in one thread alone, and made when first asked.

    Args:
        service: With the model.
    """

    def __init__(self, service: Service):
        self._service = service
        self._explainer: Explainer | None = None

    def run(self, rows: Sequence[Any]) -> list[Any]:
        """Returns why each example is answered as it is.

        Args:
            rows: As the served model takes them, with what it answered; of conversations the tokens
                of prompt and answer.
                None makes ready for the others.
        """
        return [self._explained(row) if row is not None else self._ready() for row in rows]

    def _ready(self) -> Explainer:
        if self._explainer is None:
            try:
                self._explainer = explainer_of(self._service.model.predictor)
            except ValueError as error:
                raise Problem(f"This model cannot be explained: {error}.") from error
            self._explainer.most = MOST_OF_CHAT if self._service.talks else MOST
            self._explainer.slopes.compile()
        return self._explainer

    def _explained(self, row: Any) -> Explained:
        explainer = self._ready()
        explainer.until = time.monotonic() + self._service.settings.timeout / 3
        try:
            found = self._explanation(explainer, row)
        except UserError as error:
            raise Problem(str(error)) from error
        return Explained(
            prediction=found.prediction,
            baseline=explainer.baseline,
            unit=explainer.unit,
            notes=list(found.notes),
            reasons=[_plain(reason) for reason in found.reasons],
        )

    def _explanation(self, explainer: Explainer, row: Any) -> Explanation:
        predictor, task = explainer.predictor, self._service.task["task"]
        if task == "chat":
            prompt, answer = row
            reason = explainer.why(prompt, answer)
            return Explanation("", predictor.tokenizer.decode(answer.tolist()), None, (reason,))
        row, said = row
        if task == "image_classification":
            label = np.zeros(1, np.int64 if predictor.class_names else np.float32)
            examples: Any = ImageSource(
                ArrayStorage(np.stack(row)), [0], [""], label, predictor.class_names, np.array([""])
            )
        else:
            columns = dict(zip(predictor.columns, ([text] for text in row), strict=True))
            examples = predictor.plain(columns, [""])
        return next(explainer.explain(examples, said=[said]))


def routes(service: Service) -> APIRouter:
    """Returns the route; for runs of a kind that can be explained."""
    router = APIRouter(tags=["Plain"])
    explaining = Explaining(service)

    @router.post("/explain/ready", status_code=204, summary="Make the first explanation quick")
    async def ready() -> None:
        await service.explain(explaining.run, None)

    @router.post("/explain", summary="Why is this the answer?", openapi_extra=_body(service))
    async def explain(request: Request) -> Explained:
        service.check_ready()
        if service.talks:
            row = await service.prepared(_talked, await request.body(), service)
        else:
            examples = await read_examples(request, service)
            if len(examples) != 1:
                raise Problem("One example is explained at a time.")
            example = await service.prepared(service.model.prepare, examples[0])
            (found,) = await service.answered([example])
            row = example, service.model.tidy(example, found)
        return await service.explain(explaining.run, row)

    return router


def _body(service: Service) -> dict[str, Any]:
    if not service.talks:
        return BODY
    schema = Talked.model_json_schema()
    said = schema.pop("$defs")["Said"]
    schema["properties"]["messages"]["items"] = said
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _talked(body: bytes, service: Service) -> tuple[np.ndarray, np.ndarray]:
    """Returns the tokens of a conversation and of its last answer."""
    try:
        messages = Talked.model_validate_json(body).messages
    except ValueError as error:
        raise Problem(
            "The body is an object with 'messages', each with role and content."
        ) from error
    *before, last = [message.model_dump() for message in messages]
    if last["role"] != "assistant":
        raise Problem("'messages' end with the answer of the assistant.")
    prompt = service.model.prompt(before, service.settings.max_new_tokens)
    answer, _ = service.model.predictor.tokenizer.encode([last["content"]])
    answer = answer[: prompt.new]
    if not len(answer):
        raise Problem("The answer is empty.")
    return np.array(prompt.ids, np.int32), answer


def _plain(reason: Reason) -> Why:
    def number(value: float | None) -> float | None:
        return float(value) if value is not None and np.isfinite(value) else None

    return Why(
        title=reason.title,
        output=number(reason.output),
        baseline=number(reason.baseline),
        missing=number(reason.gap),
        pictures=[
            Picture(caption=caption, png=base64.b64encode(png).decode())
            for caption, png in reason.pictures
        ],
        passages=[
            Passage(
                name=name, pieces=[Piece(text=text, weight=number(weight)) for text, weight in part]
            )
            for name, part in reason.passages
        ],
    )
