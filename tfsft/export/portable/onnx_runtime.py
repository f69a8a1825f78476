"""model.onnx in ONNX Runtime: pip install numpy onnxruntime"""

from pathlib import Path

import onnxruntime

name = f"ONNX Runtime {onnxruntime.__version__}"
session = onnxruntime.InferenceSession(str(Path(__file__).with_name("model.onnx")))


def run(inputs):
    """Returns the model's output, an array, for arrays `[n, ...]` by the names of its inputs."""
    (output,) = session.run(None, inputs)
    return output
