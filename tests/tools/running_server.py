"""A real server on a free port, in a thread of the test's process."""

import threading
import time

from tfsft.export.predictor import read_task
from tfsft.export.serving import Server, Settings


class Running:
    """A server that answers."""

    def __init__(self, run, **settings):
        options = {"name": "model", "port": 0, "queue": 64} | settings
        self.run = run
        self.server = Server(run, read_task(run), Settings(**options))
        self.url = self.server.address
        self.service = self.server.service
        start = {"target": self.server.run, "kwargs": {"sockets": [self.server.socket]}}
        self.thread = threading.Thread(**start, daemon=True)
        self.thread.start()

    def wait(self):
        until = time.monotonic() + 120
        while not self.service.ready:
            assert self.service.failed is None, self.service.failed
            assert time.monotonic() < until
            time.sleep(0.02)
        return self

    def stop(self):
        self.server.should_exit = True
        self.thread.join(60)
        assert not self.thread.is_alive()
