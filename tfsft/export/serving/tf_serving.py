"""TensorFlow Serving's REST API."""

import base64
import binascii
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from tfsft.export.serving.problems import Problem
from tfsft.export.serving.service import Service

SIGNATURE = "serving_default"
DTYPES = {"string": "DT_STRING", "uint8": "DT_UINT8", "int64": "DT_INT64", "float32": "DT_FLOAT"}
PADDING = {"string": "", "int64": -1, "float32": 0.0}  # of rows that are shorter than others


class PredictRequest(BaseModel):
    """Examples one by one (`instances`) or input by input (`inputs`)."""

    signature_name: str = SIGNATURE
    instances: list[Any] | None = Field(
        None, description='Values, or objects with one for each input; {"b64": "..."} for bytes.'
    )
    inputs: Any = Field(None, description="A list of values, or an object of such lists.")


def routes(service: Service) -> APIRouter:
    """Returns the routes of the API."""
    router = APIRouter(tags=["TensorFlow Serving"])
    paths = ("/v1/models/{name}", "/v1/models/{name}/versions/{version}")

    @router.get(paths[0], summary="State of the model")
    @router.get(paths[1], include_in_schema=False)
    async def status(name: str, version: str = service.version) -> dict[str, Any]:
        service.known(name, version)
        state = "AVAILABLE" if service.ready else "LOADING"
        found: dict[str, Any] = {
            "model_version_status": [
                {
                    "version": service.version,
                    "state": state,
                    "status": {"error_code": "OK", "error_message": ""},
                }
            ]
        }
        # At the same address OpenAI's clients look for a model.
        return found | service.card() if service.talks else found

    @router.get(f"{paths[0]}/metadata", summary="Inputs and outputs of the model")
    @router.get(f"{paths[1]}/metadata", include_in_schema=False)
    async def metadata(name: str, version: str = service.version) -> dict[str, Any]:
        service.known(name, version)
        service.check_ready()
        sides = {
            side: {
                tensor.name: {
                    "dtype": DTYPES[tensor.dtype],
                    "tensor_shape": {
                        "dim": [{"size": str(d), "name": ""} for d in (-1, *tensor.shape)],
                        "unknown_rank": False,
                    },
                    "name": tensor.name,
                }
                for tensor in getattr(service.model, side)
            }
            for side in ("inputs", "outputs")
        }
        signature = sides | {"method_name": "tensorflow/serving/predict"}
        spec = {"name": name, "signature_name": "", "version": service.version}
        signatures = {"signature_def": {SIGNATURE: signature}}
        return {"model_spec": spec, "metadata": {"signature_def": signatures}}

    @router.post(f"{paths[0]}:predict", summary="Predict")
    @router.post(f"{paths[1]}:predict", include_in_schema=False)
    async def predict(
        request: PredictRequest, name: str, version: str = service.version
    ) -> dict[str, Any]:
        service.known(name, version)
        service.check_ready()
        if request.signature_name not in (SIGNATURE, "serve"):
            raise Problem(f"The signature is called {SIGNATURE!r}.")
        names = [tensor.name for tensor in service.model.inputs]
        if (request.instances is None) == (request.inputs is None):
            raise Problem("Either 'instances' or 'inputs' is needed.")
        if request.instances is not None:
            examples = [_example(instance, names) for instance in request.instances]
        else:
            examples = _examples(request.inputs, names)
        _, found = await service.predict(examples)
        wanted = [tensor.name for tensor in service.model.outputs]
        if request.instances is not None:
            rows = [{key: row[key] for key in wanted} for row in found]
            return {"predictions": [r[wanted[0]] for r in rows] if len(wanted) == 1 else rows}
        columns = {
            t.name: padded([row[t.name] for row in found], t.dtype) for t in service.model.outputs
        }
        return {"outputs": columns[wanted[0]] if len(wanted) == 1 else columns}

    return router


def padded(values: Sequence[Any], dtype: str) -> list:
    """Returns values for a tensor: lists are made as long as the longest."""
    if not any(isinstance(value, list) for value in values):
        return list(values)
    longest = max(map(len, values))
    return [[*value, *[PADDING[dtype]] * (longest - len(value))] for value in values]


def _example(instance: Any, names: Sequence[str]) -> dict[str, Any]:
    """Returns one of `instances` by the names of the inputs."""
    if len(names) == 1 and (not isinstance(instance, dict) or set(instance) == {"b64"}):
        instance = {names[0]: instance}
    if not isinstance(instance, dict) or set(instance) != set(names):
        raise Problem(f"An instance is an object with {' and '.join(map(repr, names))}.")
    return {name: _value(value) for name, value in instance.items()}


def _examples(inputs: Any, names: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the examples that `inputs` has input by input."""
    if len(names) == 1 and not isinstance(inputs, dict):
        inputs = {names[0]: inputs}
    if not isinstance(inputs, dict) or set(inputs) != set(names):
        raise Problem(f"'inputs' is an object with {' and '.join(map(repr, names))}.")
    columns = [inputs[name] for name in names]
    if not all(isinstance(column, list) for column in columns):
        raise Problem("Each of 'inputs' is a list with a value for each example.")
    if len(set(map(len, columns))) > 1:
        raise Problem("All of 'inputs' must be of the same length.")
    return [
        {name: _value(value) for name, value in zip(names, values, strict=True)}
        for values in zip(*columns, strict=True)
    ]


def _value(value: Any) -> Any:
    return from_base64(value["b64"]) if isinstance(value, dict) and set(value) == {"b64"} else value


def from_base64(text: Any) -> bytes:
    """Returns the bytes that a text stands for.

    Raises:
        Problem: It is no base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise Problem("What stands for bytes is no base64.") from error
