"""A Keras model as an ONNX or a LiteRT file."""

import importlib.util
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfsft.errors import UserError
from tfsft.export.bias_correction import corrected_biases

OPSET = 18
FILES = {"onnx": "model.onnx", "litert": "model.tflite"}
NEEDS = {  # what converts and what runs, and the package that has it
    "onnx": {"tf2onnx": "tf2onnx", "onnx": "onnx", "onnxruntime": "onnxruntime"},
    "litert": {"ai_edge_litert": "ai-edge-litert"},
}
FLOAT_FIRST = 3  # convolutions that stay in float: a rounded weight of few costs most
_CONVOLUTIONS = ("Conv", "CONV_2D", "DEPTHWISE_CONV_2D")
Inputs = Mapping[str, np.ndarray]


def check_installed(format: str) -> None:
    """Raises a UserError if a package is not installed that a format needs."""
    missing = [
        package
        for module, package in NEEDS.get(format, {}).items()
        if importlib.util.find_spec(module) is None
    ]
    if missing:
        raise UserError(
            f"--format {format} needs {', '.join(missing)}, not installed here.",
            f"The packages of tfsft[{format}].",
            f"pip install {' '.join(missing)}",
        )


def convert(
    model: keras.Model,
    path: Path,
    format: str,
    *,
    output: str,
    quantize: str | None = None,
    calibration: Callable[[], Iterable[Inputs]] | None = None,
    about: Mapping[str, Any] | None = None,
    max_length: int | None = None,
) -> int | None:
    """Writes a model as a file of another format.

    Args:
        model: From tensors to one tensor; a single input is called `pictures` in the file.
        path: The file.
        format: "onnx" or "litert".
        output: What the output is called in the file.
        quantize: "int8" for weights and what flows between layers, in ranges that are measured
            before; "dynamic" for weights, and where the format can, what flows between layers in
            ranges of the example at hand; "float16" for weights; None for none of it.
        calibration: Gives single pictures, which int8 measures with.
        about: What an ONNX file says of itself.
        max_length: Most tokens of a text.

    Returns:
        The one number of tokens that the file takes, of one text at a time; None where any do.

    Raises:
        UserError: The model has an operation that the format has not.
    """
    try:
        with _quiet(), _corrected(model, quantize, calibration):
            if format == "onnx":
                _write_onnx(model, path, output, quantize, calibration, about or {})
                return None
            try:
                _write_litert(model, path, output, quantize, calibration)
                return None
            except Exception:  # LiteRT has fewer operations for sizes that it does not know
                if max_length is None:
                    raise
                _write_litert(model, path, output, quantize, calibration, max_length)
                return max_length
    except Exception as error:  # converters raise nearly anything
        lines = [line for line in str(error).splitlines() if line.strip()] or [repr(error)]
        raise UserError(
            f"The model cannot be written with --format {format}: {lines[0][:300]}",
            "A model whose operations the format has.",
            "Use --format saved_model, or another --quantize.",
        ) from error


def _corrected(
    model: keras.Model,
    quantize: str | None,
    calibration: Callable[[], Iterable[Inputs]] | None,
) -> AbstractContextManager[None]:
    """Returns what makes a model ready for being quantised, and takes it back."""
    if quantize != "int8":
        return nullcontext()
    pictures = np.concatenate([inputs["pictures"] for inputs in calibration()])
    return corrected_biases(model, pictures, FLOAT_FIRST)


def _served(model: keras.Model, output: str) -> tuple[Callable, list[tf.TensorSpec]]:
    """Returns the model as a function of named tensors, and what these are."""
    names = [tensor.name for tensor in model.inputs]
    single = len(names) == 1

    def serve(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        inputs = tensors[0] if single else dict(zip(names, tensors, strict=True))
        return {output: model(inputs, training=False)}

    specs = [
        tf.TensorSpec(tensor.shape, tensor.dtype, "pictures" if single else name)
        for tensor, name in zip(model.inputs, names, strict=True)
    ]
    return serve, specs


def _write_onnx(
    model: keras.Model,
    path: Path,
    output: str,
    quantize: str | None,
    calibration: Callable[[], Iterable[Inputs]] | None,
    about: Mapping[str, Any],
) -> None:
    import onnx
    import tf2onnx
    from keras.src.export.tf2onnx_lib import patch_tf2onnx

    serve, specs = _served(model, output)
    patch_tf2onnx()
    function = tf.function(serve, input_signature=specs, autograph=False)
    graph, _ = tf2onnx.convert.from_function(function, specs, opset=OPSET)
    _replace_erfc(graph.graph)
    sizes = {0: "batch", 1: "length"}
    for value in (*graph.graph.input, *graph.graph.output):
        unknown = [d for d in value.type.tensor_type.shape.dim if not d.HasField("dim_value")]
        for dimension, size in zip(unknown, sizes.values(), strict=False):
            dimension.dim_param = size
    about = {"task.json": json.dumps(about, ensure_ascii=False)}
    onnx.helper.set_model_props(graph, about)
    if quantize == "float16":
        from onnxruntime.transformers.float16 import convert_float_to_float16

        graph = convert_float_to_float16(graph, keep_io_types=True)
    if quantize in ("dynamic", "int8"):
        graph = _quantized(graph, quantize, calibration)
        onnx.helper.set_model_props(graph, about)
    onnx.save(graph, path)


def _replace_erfc(graph: Any) -> None:
    """Writes erfc(x), which GELU has and ONNX has not, as 1 - erf(x)."""
    import onnx

    nodes = []
    for node in graph.node:
        if node.op_type != "Erfc":
            nodes.append(node)
            continue
        one, erf = f"{node.name}/one", f"{node.name}/erf"
        value = onnx.helper.make_tensor("value", onnx.TensorProto.FLOAT, [], [1.0])
        nodes += [
            onnx.helper.make_node("Constant", [], [one], one, value=value),
            onnx.helper.make_node("Erf", node.input, [erf], erf),
            onnx.helper.make_node("Sub", [one, erf], node.output, node.name),
        ]
    del graph.node[:]
    graph.node.extend(nodes)


def _quantized(graph: Any, quantize: str, calibration: Any) -> Any:
    import onnx
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        """Hands over the examples, one at a time."""

        def __init__(self):
            self._inputs = iter(calibration())

        def get_next(self) -> dict[str, np.ndarray] | None:
            """Returns the next one; None after the last."""
            return next(self._inputs, None)

    with tempfile.TemporaryDirectory(prefix="tfsft-onnx-") as folder:
        whole, prepared, smaller = (str(Path(folder, f"{i}.onnx")) for i in range(3))
        onnx.save(graph, whole)
        quantization.quant_pre_process(whole, prepared, skip_symbolic_shape=True)
        if quantize == "dynamic":
            quantization.quantize_dynamic(prepared, smaller, per_channel=True)
        else:
            nodes = onnx.load(prepared).graph.node
            first = _first_quantised([node.op_type for node in nodes])
            quantization.quantize_static(
                prepared,
                smaller,
                Reader(),
                nodes_to_exclude=[node.name for node in nodes[:first]],
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
            )
        return onnx.load(smaller)


def _write_litert(
    model: keras.Model,
    path: Path,
    output: str,
    quantize: str | None,
    calibration: Callable[[], Iterable[Inputs]] | None,
    fixed_length: int | None = None,
) -> None:
    serve, specs = _served(model, output)
    if fixed_length is not None:
        specs = [tf.TensorSpec([1, fixed_length], spec.dtype, spec.name) for spec in specs]
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", serve, specs)
    lite = tf.lite
    with tempfile.TemporaryDirectory(prefix="tfsft-litert-") as folder:
        archive.write_out(folder, verbose=False)
        converter = lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=["serving_default"]
        )
        if quantize is not None:
            converter.optimizations = [lite.Optimize.DEFAULT]
        if quantize == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if quantize == "int8":
            converter.representative_dataset = lambda: map(dict, calibration())
            converter.target_spec.supported_ops = [
                lite.OpsSet.TFLITE_BUILTINS_INT8,
                lite.OpsSet.TFLITE_BUILTINS,  # for what has no int8, such as integer arithmetic
            ]
            path.write_bytes(_first_in_float(converter))
        else:
            path.write_bytes(converter.convert())


def _first_in_float(converter: tf.lite.TFLiteConverter) -> bytes:
    """Quantises a model, but for what lies before the first convolution that is quantised."""
    debug = tf.lite.experimental
    debugger = debug.QuantizationDebugger(
        converter=converter, debug_dataset=converter.representative_dataset
    )
    calibrated = tf.lite.Interpreter(model_content=debugger.calibrated_model)
    names = {tensor["index"]: tensor["name"] for tensor in calibrated.get_tensor_details()}
    operations = calibrated._get_ops_details()
    kinds = [operation["op_name"] for operation in operations]
    kept = [names[of["outputs"][0]] for of in operations[: _first_quantised(kinds)]]
    debugger.options = debug.QuantizationDebugOptions(denylisted_nodes=kept)
    return debugger.get_nondebug_quantized_model()


def _first_quantised(kinds: Sequence[str]) -> int:
    """Returns the place of the first convolution that is quantised, among operations in order."""
    convolutions = [place for place, kind in enumerate(kinds) if kind in _CONVOLUTIONS]
    return convolutions[FLOAT_FIRST] if len(convolutions) > FLOAT_FIRST else 0


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what converters say from a person who asked for a file."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    null, error = os.open(os.devnull, os.O_WRONLY), os.dup(2)
    try:
        os.dup2(null, 2)  # the converters print from C++
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(error, 2)
        for handle in (null, error):
            os.close(handle)
        logging.disable(before)
