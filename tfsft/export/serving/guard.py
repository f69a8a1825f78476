"""What every request passes before anything reads it: who asks, from where, and how much."""

import asyncio
import hmac
import json
import re
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from tfsft.export.serving.monitoring import LOG, Counts
from tfsft.export.serving.problems import (
    Busy,
    Problem,
    Refused,
    TooLarge,
    TooSlow,
    Unknown,
    error_body,
)
from tfsft.export.serving.settings import Settings

MOST_REQUESTS = 1024  # under way; beyond it no body is read
# They say nothing about the run, and a browser, or what watches a server, has no token yet.
OPEN_PATHS = frozenset(
    {
        "/",
        "/page.css",
        "/answers.js",
        "/page.js",
        "/docs",
        "/openapi.json",
        "/v2/health/live",
        "/v2/health/ready",
    }
)
HOST = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}")
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Guard:
    """Middleware that checks, counts and writes down each request.

    Args:
        app: What answers.
        settings: With host, token and limits.
        counts: Where requests are counted.
    """

    def __init__(self, app: Callable, settings: Settings, counts: Counts):
        self._app, self._settings, self._counts = app, settings, counts
        self._under_way = 0

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        answer = _Answer(scope, send)
        if scope["path"].startswith(("/v1/", "/v2/")):
            scope = _as_json(scope)
        self._under_way += 1
        self._counts.under_way.inc()
        try:
            self._check(scope, answer.headers)
            await self._app(scope, self._limited(scope, receive, answer.headers), answer.send)
        except Problem as problem:
            await answer.refuse(problem.status, problem.message, problem.headers, problem.code)
        except Exception:
            LOG.exception("A fault of the server.", extra={"facts": {"request_id": answer.id}})
            await answer.refuse(500, "A fault of the server; its log says more.")
        finally:
            self._under_way -= 1
            self._counts.under_way.dec()
            self._note(scope, answer)

    def _check(self, scope: dict[str, Any], headers: dict[str, str]) -> None:
        if self._under_way > MOST_REQUESTS:
            raise Busy("Too many requests are under way.")
        host = headers.get("host", "")
        name = _host_of(f"//{host}") if HOST.fullmatch(host) else None
        if not name or not self._settings.knows_host(name):
            raise Refused(
                f"This server is not known as {host[:100]!r}. Use its address, or let it be "
                "started with --allowed-host and this name."
            )
        origin = headers.get("origin")
        if origin is not None and origin.lower().partition("://")[2] != host.lower():
            raise Refused("A page of another site asked.")
        if self._settings.token is not None and scope["path"] not in OPEN_PATHS:
            kind, _, given = headers.get("authorization", "").partition(" ")
            wanted = self._settings.token.encode()
            right = hmac.compare_digest(given.strip().encode("latin-1", "replace"), wanted)
            if kind.lower() != "bearer" or not right:
                raise Unknown("This server wants its token: Authorization: Bearer TOKEN")

    def _limited(self, scope: dict[str, Any], receive: Receive, headers: dict[str, str]) -> Receive:
        """Returns `receive` with an end to how much comes, and how slowly."""
        most, length = self._settings.max_body, headers.get("content-length", "")
        too_large = TooLarge(f"The request is larger than {most:,} bytes.")
        if length.isdigit() and int(length) > most:
            raise too_large
        until = time.monotonic() + self._settings.timeout
        got, whole = 0, False

        async def limited() -> dict[str, Any]:
            nonlocal got, whole
            if whole:  # what comes now is that the client has gone
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), until - time.monotonic())
            except TimeoutError:
                raise TooSlow("The request did not arrive in time.") from None
            got += len(message.get("body", b""))
            whole = message["type"] != "http.request" or not message.get("more_body", False)
            if got > most:
                raise too_large
            return message

        return limited

    def _note(self, scope: dict[str, Any], answer: "_Answer") -> None:
        seconds = time.monotonic() - answer.start
        route = getattr(scope.get("route"), "path", "other")
        self._counts.requests.labels(route, answer.status).inc()
        self._counts.seconds.labels(route).observe(seconds)
        facts = {
            "request_id": answer.id,
            "client": (scope.get("client") or ("",))[0],
            "method": scope["method"],
            "path": scope["path"][:200],
            "status": answer.status,
            "seconds": round(seconds, 4),
        }
        LOG.info("request", extra={"facts": facts})


class _Answer:
    """The answer to a request, with what every answer has."""

    def __init__(self, scope: dict[str, Any], send: Send):
        self.headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        given = self.headers.get("x-request-id", "")
        self.id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        self.start = time.monotonic()
        self.status = 0  # 0: the client has gone
        self._path = scope["path"]
        self._send = send

    async def send(self, message: dict[str, Any]) -> None:
        """Passes an answer on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            added = SECURITY_HEADERS | {"X-Request-Id": self.id}
            pairs = [(k.lower().encode(), v.encode()) for k, v in added.items()]
            message = message | {"headers": [*message.get("headers", ()), *pairs]}
        await self._send(message)

    async def refuse(
        self, status: int, text: str, headers: dict[str, str] | None = None, code: str | None = None
    ) -> None:
        """Sends an error, unless the answer has begun."""
        if self.status:
            return
        body = json.dumps(error_body(self._path, text, status, code)).encode()
        found = {"content-type": "application/json", "content-length": str(len(body))}
        if status in (408, 413):  # the rest of the body is not read
            found["connection"] = "close"
        pairs = [(k.lower().encode(), v.encode()) for k, v in (found | (headers or {})).items()]
        await self.send({"type": "http.response.start", "status": status, "headers": pairs})
        await self._send({"type": "http.response.body", "body": body})


def _as_json(scope: dict[str, Any]) -> dict[str, Any]:
    """Returns a request whose body is JSON whatever it is called: `curl -d` calls it a form."""
    kept = [pair for pair in scope["headers"] if pair[0] != b"content-type"]
    return scope | {"headers": [*kept, (b"content-type", b"application/json")]}


def _host_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:  # half of an address in brackets
        return None
