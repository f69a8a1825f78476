"""What a server counts, and what it writes down about each request: never what was said in it."""

import json
import logging
import sys
import time

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
LOG = logging.getLogger("tfsft.serving")


class Counts:
    """The figures of one server, as Prometheus reads them at /metrics."""

    content_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self):
        self._registry = registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)

        def made(kind: type, name: str, text: str, *labels: str, **more: object) -> object:
            return kind(f"tfsft_{name}", text, labels, registry=registry, **more)

        self.requests = made(Counter, "requests_total", "Requests.", "route", "status")
        self.seconds = made(
            Histogram, "request_seconds", "Until the answer was sent.", "route", buckets=SECONDS
        )
        self.under_way = made(Gauge, "requests_under_way", "Requests being answered.")
        self.rows = made(
            Histogram, "batch_examples", "Examples that went through the model.", buckets=ROWS
        )
        self.batch_seconds = made(
            Histogram, "batch_seconds", "Time of the model for a batch.", buckets=SECONDS
        )
        self.waiting = made(Gauge, "queue_examples", "Examples that wait for the model.")
        self.streams = made(Gauge, "streams", "Chats being answered piece by piece.")
        self.tokens = made(Counter, "generated_tokens_total", "Tokens of answers in chats.")
        self.feedback = made(Counter, "feedback_total", "Rows of feedback that were written.")
        self.ready = made(Gauge, "ready", "Whether the model is loaded and warm.")

    def batch(self, rows: int, seconds: float) -> None:
        """Counts a batch."""
        self.rows.observe(rows)
        self.batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """Returns all of it."""
        return generate_latest(self._registry)


class _Lines(logging.Formatter):
    """Each record as a line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.gmtime(record.created)
        stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', seconds)}.{int(record.msecs):03d}Z"
        line = {"time": stamp, "level": record.levelname.lower(), "message": record.getMessage()}
        line |= getattr(record, "facts", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True)


def start_logging() -> None:
    """Writes the lines of the server to standard error, its own and uvicorn's."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    for name, level in (("tfsft.serving", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
