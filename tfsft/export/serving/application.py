"""The application: all protocols over one service, behind the guard."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import asynccontextmanager
from html import escape
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException

import tfsft
from tfsft.export.serving import (
    explaining,
    feedback,
    open_inference,
    openai_chat,
    plain,
    tf_serving,
)
from tfsft.export.serving.guard import Guard
from tfsft.export.serving.problems import Problem, error_body
from tfsft.export.serving.service import Service

PAGE = {
    "page.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "answers.js": "text/javascript; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
}
ERRORS = {
    400: "The request is not as it should be.",
    401: "The token is missing or wrong.",
    403: "Another site asked, or the host is not known.",
    404: "There is no such model.",
    408: "The request did not arrive in time.",
    413: "Larger than the limits allow.",
    503: "The model is not ready, or too many are waiting: see Retry-After.",
}


def make_application(service: Service, notes: feedback.FeedbackFile | None = None) -> Guard:
    """Returns the whole application, as an ASGI server takes it.

    Args:
        service: The model.
        notes: Where feedback goes, if it is taken.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> Any:
        loading = asyncio.create_task(service.start())
        yield
        await loading
        await service.stop()

    app = FastAPI(
        title="tfsft serve",
        version=tfsft.__version__,
        description="A fine-tuned model.",
        lifespan=lifespan,
        docs_url=None,  # they would load programs from elsewhere
        redoc_url=None,
        responses={status: {"description": text} for status, text in ERRORS.items()},
    )
    app.include_router(plain.routes(service))
    if service.explains:
        app.include_router(explaining.routes(service))
    app.include_router(tf_serving.routes(service))
    app.include_router(open_inference.routes(service))
    if service.talks:
        app.include_router(openai_chat.routes(service))
    if notes is not None:
        app.include_router(feedback.routes(service, notes))
    _add_pages(app, service)
    _add_errors(app)
    return Guard(app, service.settings, service.counts)


def _add_pages(app: FastAPI, service: Service) -> None:
    def add(name: str, path: str, kind: str) -> None:
        content = (files(__package__) / name).read_bytes()

        @app.get(path, include_in_schema=False)
        async def page() -> Response:
            return Response(content, headers={"content-type": kind})

    for name, kind in PAGE.items():
        add(name, "/" if name == "page.html" else f"/{name}", kind)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(_docs(app.openapi()))

    @app.get("/metrics", tags=["Watching"], summary="Figures for Prometheus")
    async def metrics() -> Response:
        return Response(
            service.counts.text(), headers={"content-type": service.counts.content_type}
        )


def _add_errors(app: FastAPI) -> None:
    def answer(request: Request, status: int, text: str, code: str | None = None) -> JSONResponse:
        return JSONResponse(error_body(request.url.path, text, status, code), status)

    @app.exception_handler(Problem)
    async def problem(request: Request, error: Problem) -> JSONResponse:
        found = answer(request, error.status, error.message, error.code)
        found.headers.update(error.headers)
        return found

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:]) or "the body"
        return answer(request, 400, f"{place[:200]}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        found = answer(request, error.status_code, str(error.detail))
        found.headers.update(error.headers or {})
        return found

    @app.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> JSONResponse:
        return answer(request, 500, "A fault of the server; its log says more.")


def _docs(schema: Mapping[str, Any]) -> str:
    """Returns a plain page of what can be asked, as the ready-made ones load from elsewhere."""
    parts = []
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            parts.append(f"<h2>{method.upper()} {escape(path)}</h2>")
            parts.append(f"<p>{escape(operation.get('summary', ''))}</p>")
            body = operation.get("requestBody")
            if body:
                text = json.dumps(_resolved(body["content"], schema), indent=1)
                parts.append(f"<details><summary>Body</summary><pre>{escape(text)}</pre></details>")
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>tfsft serve</title>'
        '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
        '<link rel="stylesheet" href="page.css">'
        '<main><h1>What can be asked</h1><p>For programs: <a href="openapi.json">openapi.json</a>. '
        '<a href="./">Try it</a>.</p>' + "".join(parts) + "</main></html>"
    )


def _resolved(part: Any, schema: Mapping[str, Any]) -> Any:
    """Returns a part of a schema with what it refers to in its place."""
    if isinstance(part, list):
        return [_resolved(item, schema) for item in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        return _resolved(schema["components"]["schemas"][part["$ref"].rsplit("/", 1)[-1]], schema)
    return {key: _resolved(value, schema) for key, value in part.items()}
