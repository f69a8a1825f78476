"""KServe's Open Inference Protocol, version 2, over HTTP."""

from itertools import chain
from math import prod
from typing import Any

import numpy as np
from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

import tfsft
from tfsft.export.serving.problems import Problem
from tfsft.export.serving.service import Service
from tfsft.export.serving.tf_serving import from_base64, padded

DATATYPES = {"string": "BYTES", "uint8": "UINT8", "int64": "INT64", "float32": "FP32"}


class InputTensor(BaseModel):
    """An input for all examples: texts are BYTES; pictures UINT8, or BYTES of files in base64."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] | None = None
    data: list[Any]


class WantedOutput(BaseModel):
    """An output that is wanted."""

    name: str
    parameters: dict[str, Any] | None = None


class InferRequest(BaseModel):
    """Examples, input by input."""

    id: str | None = None
    parameters: dict[str, Any] | None = None
    inputs: list[InputTensor]
    outputs: list[WantedOutput] | None = Field(None, description="All of them by default.")


def routes(service: Service) -> APIRouter:
    """Returns the routes of the protocol."""
    router = APIRouter(tags=["Open Inference Protocol"])
    paths = ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")

    @router.get("/v2", summary="The server")
    async def server() -> dict[str, Any]:
        return {"name": "tfsft", "version": tfsft.__version__, "extensions": []}

    @router.get("/v2/health/live", summary="Whether the server is there")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @router.get("/v2/health/ready", summary="Whether it answers", responses={503: {}})
    async def ready() -> JSONResponse:
        return _ready({"ready": service.ready})

    @router.get(f"{paths[0]}/ready", summary="Whether the model answers", responses={503: {}})
    @router.get(f"{paths[1]}/ready", include_in_schema=False)
    async def model_ready(name: str, version: str = service.version) -> JSONResponse:
        service.known(name, version)
        return _ready({"name": name, "ready": service.ready})

    @router.get(paths[0], summary="Inputs and outputs of the model")
    @router.get(paths[1], include_in_schema=False)
    async def metadata(name: str, version: str = service.version) -> dict[str, Any]:
        service.known(name, version)
        service.check_ready()
        sides = {
            side: [
                {"name": t.name, "datatype": DATATYPES[t.dtype], "shape": [-1, *t.shape]}
                for t in getattr(service.model, side)
            ]
            for side in ("inputs", "outputs")
        }
        return {"name": name, "versions": [service.version], "platform": "keras", **sides}

    @router.post(f"{paths[0]}/infer", summary="Predict")
    @router.post(f"{paths[1]}/infer", include_in_schema=False)
    async def infer(
        request: InferRequest, name: str, version: str = service.version
    ) -> dict[str, Any]:
        service.known(name, version)
        service.check_ready()
        given = {tensor.name: tensor for tensor in request.inputs}
        names = [tensor.name for tensor in service.model.inputs]
        if set(given) != set(names) or len(given) < len(request.inputs):
            raise Problem(f"The inputs are {' and '.join(map(repr, names))}, each once.")
        outputs = {tensor.name: tensor for tensor in service.model.outputs}
        wanted = [output.name for output in request.outputs or ()] or list(outputs)
        if not set(wanted) <= set(outputs):
            raise Problem(f"The outputs are {' and '.join(map(repr, outputs))}.")
        columns = [_values(given[t.name], t.dtype) for t in service.model.inputs]
        if len(set(map(len, columns))) > 1:
            raise Problem("All inputs must be of the same length.")
        examples = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
        _, found = await service.predict(examples)
        answer = {"model_name": name, "model_version": service.version}
        answer |= {"id": request.id} if request.id is not None else {}
        answer["outputs"] = [_tensor(outputs[key], [row[key] for row in found]) for key in wanted]
        return answer

    return router


def _ready(answer: dict[str, Any]) -> JSONResponse:
    return JSONResponse(
        answer, 200 if answer["ready"] else 503, {} if answer["ready"] else {"Retry-After": "2"}
    )


def _values(tensor: InputTensor, dtype: str) -> list:
    """Returns the values of an input, one for each example."""
    shape, count = tensor.shape, len(tensor.shape) and tensor.shape[0]
    if not shape or any(size < 0 for size in shape):
        raise Problem(f"The shape of {tensor.name!r} begins with the number of examples.")
    if tensor.datatype == "BYTES":
        data = _flat(tensor.data)
        if prod(shape) != count or len(data) != count:
            raise Problem(f"{tensor.name!r} has one element for each example.")
        as_bytes = dtype == "uint8" or (tensor.parameters or {}).get("content_type") == "base64"
        return [from_base64(item) for item in data] if as_bytes else data
    if tensor.datatype != "UINT8" or dtype != "uint8":
        words = ["BYTES", "UINT8"] if dtype == "uint8" else ["BYTES"]
        raise Problem(f"The datatype of {tensor.name!r} is {' or '.join(words)}.")
    if prod(shape) > 1 << 31:
        raise Problem(f"The shape of {tensor.name!r} is not that of its data.")
    try:
        return list(np.asarray(tensor.data).reshape(shape))
    except ValueError as error:
        raise Problem(f"The shape of {tensor.name!r} is not that of its data.") from error


def _tensor(tensor: Any, values: list) -> dict[str, Any]:
    rows = padded(values, tensor.dtype)
    shape = [len(rows)]
    if rows and isinstance(rows[0], list):
        shape, rows = [len(rows), len(rows[0])], list(chain.from_iterable(rows))
    datatype = DATATYPES[tensor.dtype]
    return {"name": tensor.name, "shape": shape, "datatype": datatype, "data": rows}


def _flat(data: list) -> list:
    """Returns what is in lists of lists."""
    while data and all(isinstance(item, list) for item in data):
        data = list(chain.from_iterable(data))
    return data
