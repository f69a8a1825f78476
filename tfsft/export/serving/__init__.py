"""A finished run behind HTTP; imported by `tfsft serve` alone."""

from tfsft.export.serving.server import Server
from tfsft.export.serving.settings import Settings, model_name

__all__ = ["Server", "Settings", "model_name"]
