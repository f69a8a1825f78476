"""A server in this process: from a run's folder to an open port, and to its end."""

import errno
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from tfsft.errors import UsageError
from tfsft.export.serving.application import make_application
from tfsft.export.serving.feedback import FeedbackFile
from tfsft.export.serving.monitoring import Counts, start_logging
from tfsft.export.serving.service import Service
from tfsft.export.serving.settings import Settings

HANDLED = (signal.SIGINT, signal.SIGTERM)


class Server(uvicorn.Server):
    """Answers until a signal arrives, or until the model turns out not to load.

    Args:
        run: Folder of a finished run.
        task: Its task.json.
        settings: How to listen.
        on_ready: Called with the address once the model answers.

    Raises:
        UsageError: The port is in use, or feedback cannot be written.
    """

    def __init__(
        self,
        run: Path,
        task: Mapping[str, Any],
        settings: Settings,
        on_ready: Callable[[str], None] = lambda address: None,
    ):
        notes = FeedbackFile(settings.feedback) if settings.feedback is not None else None
        self.socket = listening(settings.host, settings.port)
        self.service = Service(run, task, settings, Counts())
        self.received: list[int] = []
        self._on_ready, self._told = on_ready, False
        config = uvicorn.Config(
            make_application(self.service, notes),
            log_config=None,
            access_log=False,
            proxy_headers=False,  # nobody else's word on who asks
            server_header=False,
            lifespan="on",
            ws="none",
            timeout_graceful_shutdown=int(settings.timeout) + 5,
        )
        super().__init__(config)

    @property
    def address(self) -> str:
        """Where it listens."""
        host, port = self.socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def answer(self) -> int:
        """Answers requests to the end.

        Returns:
            The signal that ended it, or 0.

        Raises:
            Exception: What kept the model from loading.
        """
        start_logging()
        # uvicorn raises the signals again that it has caught; here they are only remembered.
        before = {number: signal.signal(number, self._remember) for number in HANDLED}
        try:
            self.run(sockets=[self.socket])
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self.service.failed is not None:
            raise self.service.failed
        return self.received[0] if self.received else 0

    async def on_tick(self, counter: int) -> bool:
        """Looks ten times a second whether it is over."""
        if self.service.ready and not self._told:
            self._told = True
            self._on_ready(self.address)
        return await super().on_tick(counter) or self.service.failed is not None

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.received.append(number)


def listening(host: str, port: int) -> socket.socket:
    """Returns a socket at an address.

    Raises:
        UsageError: The port is in use, or there is no such address.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind(address)
            found.listen()  # so that whoever comes early waits
        except OSError:
            found.close()
            raise
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UsageError(
                f"Port {port} of {host} is in use.",
                "A port that nobody listens at.",
                f"End what listens there, or name another: --port {port + 1}, or 0 for any.",
            ) from error
        if error.errno == errno.EACCES:
            raise UsageError(
                f"Port {port} may not be used by you.", "A port above 1023.", "Say --port 8501."
            ) from error
        raise UsageError(
            f"--host {host}: {error.strerror or error}.", "An address of this machine.", ""
        ) from error
    return found
