"""model.tflite in LiteRT: pip install numpy ai-edge-litert"""

from importlib.metadata import version
from pathlib import Path

from ai_edge_litert.interpreter import Interpreter

name = f"LiteRT {version('ai-edge-litert')}"
interpreter = Interpreter(str(Path(__file__).with_name("model.tflite")))
signature = interpreter.get_signature_runner("serving_default")


def run(inputs):
    """Returns the model's output, an array, for arrays `[n, ...]` by the names of its inputs."""
    (output,) = signature(**inputs).values()
    return output
