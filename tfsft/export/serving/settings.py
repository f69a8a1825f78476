"""What a server may be told, and the limits that keep it alive."""

import functools
import ipaddress
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from tfsft.errors import UsageError

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a server listens, and what it refuses.

    Args:
        host: Address to listen at.
        port: Port; 0 takes a free one.
        token: What clients must know; None lets everybody on this machine in.
        name: Of the model, in addresses.
        feedback: File that feedback is added to; None takes none.
        allowed_hosts: Names by which this machine is called, beside its own and its addresses.
        batch: Most examples that go through the model at once.
        wait: Longest time that an example waits for others, in seconds.
        queue: Most examples that wait; beyond it clients are told to come again.
        streams: Most chats that are answered at the same time.
        max_body: Bytes of a request.
        max_pixels: Pixels of a picture.
        max_text: Characters of a text, or of all messages of a conversation.
        max_new_tokens: Tokens of an answer.
        timeout: Seconds for a request to arrive, and for its answer.
    """

    name: str
    host: str = "127.0.0.1"
    port: int = 8501
    token: str | None = None
    feedback: Path | None = None
    allowed_hosts: tuple[str, ...] = ()
    batch: int = 32
    wait: float = 0.003
    queue: int = 256
    streams: int = 16
    max_body: int = 32 << 20
    max_pixels: int = 50_000_000
    max_text: int = 20_000
    max_new_tokens: int = 512
    timeout: float = 60.0

    def __post_init__(self):
        if self.token is not None and (not self.token.isprintable() or not self.token.isascii()):
            raise UsageError("The token has letters that no header can hold.", "ASCII, no spaces.")
        if self.token is not None and (not self.token or " " in self.token):
            raise UsageError("The token is empty or has a space.", "ASCII letters and digits.")
        if self.token is None and not is_loopback(self.host):
            raise UsageError(
                f"--host {self.host} lets other machines in, and there is no token.",
                "A token that clients must know, or an address of this machine alone.",
                "Add --token $(openssl rand -hex 16), set TFSFT_TOKEN, or leave out --host.",
            )

    def knows_host(self, name: str) -> bool:
        """Says whether a request that names this host is meant for this server.

        A web page of somebody else reaches a server of this machine by a name of its own that
        leads here (DNS rebinding); so names have to be known, and beyond loopback any address will
        do, as no name is involved.
        """
        name = name.lower().rstrip(".")
        if name in LOOPBACK_NAMES or name in {self.host, *map(str.lower, self.allowed_hosts)}:
            return True
        if is_loopback(self.host):
            return False
        return is_address(name) or name in own_names()


@functools.cache
def own_names() -> frozenset[str]:
    """Returns the names of this machine; it may take a while to find them."""
    return frozenset({socket.gethostname().lower(), socket.getfqdn().lower()})


def is_loopback(host: str) -> bool:
    """Says whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_address(host: str) -> bool:
    """Says whether a host is an address and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def model_name(run: Path) -> str:
    """Returns the name of a run as it stands in addresses."""
    name = os.path.basename(os.path.abspath(run))
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name)
