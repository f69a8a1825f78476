"""What a request did wrong, or what the server cannot do just now, with its HTTP status."""

import math


class Problem(Exception):
    """Ends a request with a message.

    Args:
        message: For the client.
        code: A word for programs, where the protocol has a place for it.
    """

    status = 400
    headers: dict[str, str] = {}  # noqa: RUF012  (never changed)

    def __init__(self, message: str, code: str | None = None):
        super().__init__(message)
        self.message = message
        self.code = code


class NotFound(Problem):
    """There is no such thing."""

    status = 404


class TooLarge(Problem):
    """More than the limits allow."""

    status = 413


class Refused(Problem):
    """Not allowed."""

    status = 403


class Unknown(Problem):
    """The token is missing or wrong."""

    status = 401
    headers = {"WWW-Authenticate": "Bearer"}  # noqa: RUF012


class TooSlow(Problem):
    """The request did not arrive in time."""

    status = 408


class Busy(Problem):
    """There is no room now.

    Args:
        message: For the client.
        seconds: When to come again.
    """

    status = 503

    def __init__(self, message: str, seconds: float = 1.0):
        super().__init__(message, "overloaded")
        self.headers = {"Retry-After": str(max(1, math.ceil(seconds)))}


def error_body(path: str, message: str, status: int, code: str | None = None) -> dict:
    """Returns an error as the protocol of a path writes it."""
    if path in ("/v1/chat/completions", "/v1/models"):  # OpenAI
        kinds = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}
        kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
        return {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return {"error": message}
