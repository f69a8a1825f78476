"""OpenAI's chat completions, as far as a small assistant has them."""

import json
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from tfsft.export.serving.problems import Problem
from tfsft.export.serving.service import Service

LEAST_TEMPERATURE = 0.01  # below it the likeliest words are taken
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


class ContentPart(BaseModel):
    """A part of a message; texts alone are understood."""

    type: str
    text: str | None = None


class ChatMessage(BaseModel):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[ContentPart]


class StreamOptions(BaseModel):
    """What a stream holds beside the answer."""

    include_usage: bool | None = False


class ChatRequest(BaseModel):
    """A conversation, and how to answer it; without a temperature the likeliest words are taken."""

    model_config = ConfigDict(extra="allow")

    model: str
    messages: list[ChatMessage] = Field(min_length=1, max_length=1000)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: Share | None = None
    top_k: int | None = Field(None, ge=0, le=1_000_000)
    repetition_penalty: float | None = Field(None, ge=0.1, le=10, allow_inf_nan=False)
    seed: int | None = None
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None


# What would change the answer, if it were done; by the values that change nothing.
NOT_DONE: dict[str, tuple] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
}


class Streamed(StreamingResponse):
    """Server-sent events, in one of the places that there are for them."""

    def __init__(self, service: Service, events: AsyncIterator[str]):
        super().__init__(
            events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
        )
        self._service = service

    async def __call__(self, *connection: Any) -> None:
        """Sends them."""
        async with self._service.place():
            await super().__call__(*connection)


def routes(service: Service) -> APIRouter:
    """Returns the routes of the API."""
    router = APIRouter(tags=["OpenAI"])

    @router.get("/v1/models", summary="The model")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [service.card()]}

    @router.post("/v1/chat/completions", summary="Answer a conversation", response_model=None)
    async def completions(request: ChatRequest) -> dict[str, Any] | Streamed:
        service.known(request.model)
        service.check_ready()
        _refuse_what_is_not_done(request)
        stops = [request.stop] if isinstance(request.stop, str) else request.stop or []
        stops = [text for text in stops if text]
        messages = [{"role": m.role, "content": _text(m.content)} for m in request.messages]
        new = _new_tokens(request, service)
        prompt = await service.prepared(service.model.prompt, messages, new)
        sampling = _sampling(request)
        frame = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": service.settings.name,
        }
        if request.stream:
            usage = bool(request.stream_options and request.stream_options.include_usage)
            talk = service.model.talk(prompt, **sampling)
            return Streamed(service, _events(service, talk, stops, frame, usage))
        if sampling or stops:
            talk = service.model.talk(prompt, **sampling)
            async with service.place():
                said = [text async for text in _said(service, talk, stops)]
            text, tokens, finish = "".join(said), len(talk.ids), _finish(talk)
        else:  # the likeliest answers of several clients are found together
            (answer,) = await service.answered([prompt])
            text, tokens = answer["text"], answer["tokens"]
            finish = "stop" if answer["stopped"] else "length"
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
        usage = _usage(len(prompt.ids), tokens)
        return frame | {"object": "chat.completion", "choices": [choice], "usage": usage}

    return router


async def _events(
    service: Service, talk: Any, stops: Sequence[str], frame: dict[str, Any], usage: bool
) -> AsyncIterator[str]:
    """Yields an answer as server-sent events."""
    frame = frame | {"object": "chat.completion.chunk"}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        more = {"usage": None} if usage else {}
        return _event(frame | {"choices": [choice]} | more)

    yield chunk({"role": "assistant", "content": ""})
    async with aclosing(_said(service, talk, stops)) as said:
        async for text in said:
            yield chunk({"content": text})
    yield chunk({}, _finish(talk))
    if usage:
        counted = _usage(len(talk.prompt.ids), len(talk.ids))
        yield _event(frame | {"choices": [], "usage": counted})
    yield "data: [DONE]\n\n"


async def _said(service: Service, talk: Any, stops: Sequence[str]) -> AsyncIterator[str]:
    """Yields an answer up to a text that ends it, and nothing that may be the start of one."""
    held = ""
    async with aclosing(service.stream(talk)) as pieces:
        async for piece in pieces:
            held += piece
            found = [place for stop in stops if (place := held.find(stop)) >= 0]
            if found:
                talk.ended = True
                if text := held[: min(found)]:
                    yield text
                return
            kept = max(
                (n for stop in stops for n in range(1, len(stop)) if held.endswith(stop[:n])),
                default=0,
            )
            if text := held[: len(held) - kept]:
                yield text
            held = held[len(held) - kept :]
    if held:
        yield held


def _finish(talk: Any) -> str:
    return "stop" if talk.ended else "length"


def _new_tokens(request: ChatRequest, service: Service) -> int:
    new = request.max_completion_tokens or request.max_tokens or service.model.usual_new
    most = service.settings.max_new_tokens
    if new > most:
        raise Problem(f"{new:,} tokens are wanted; an answer has at most {most:,}.")
    return new


def _sampling(request: ChatRequest) -> dict[str, Any]:
    """Returns how words are drawn; nothing where the likeliest are taken."""
    sampling: dict[str, Any] = {}
    if request.repetition_penalty not in (None, 1):
        sampling["repetition_penalty"] = request.repetition_penalty
    if (request.temperature or 0) >= LEAST_TEMPERATURE:
        sampling |= {"temperature": request.temperature}
        sampling |= {"top_p": request.top_p or 1.0, "top_k": request.top_k or 0}
        seed = secrets.randbits(31) if request.seed is None else request.seed % 2**31
        sampling["seed"] = seed
    return sampling


def _refuse_what_is_not_done(request: ChatRequest) -> None:
    for name, value in (request.model_extra or {}).items():
        if name in NOT_DONE and value is not None and value not in NOT_DONE[name]:
            raise Problem(f"{name!r} is not supported by this server.", "unsupported_parameter")


def _text(content: str | Sequence[ContentPart]) -> str:
    if isinstance(content, str):
        return content
    if any(part.type != "text" or part.text is None for part in content):
        raise Problem("The content of a message is text alone.", "unsupported_content")
    return "".join(part.text or "" for part in content)


def _usage(prompt: int, completion: int) -> dict[str, int]:
    total = prompt + completion
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"
