import io
import os
import pickle
import sys
import types
from collections import OrderedDict

import numpy as np
import pytest

from tfsft.errors import UserError
from tfsft.models.legacy_torch import read_legacy_torch


class Tensor:
    """Pickles as torch pickles a tensor: a view of a storage that follows later."""

    def __init__(self, storage, offset, shape, strides):
        self.view = (storage, offset, shape, strides, False, OrderedDict())

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.view


@pytest.fixture
def write(monkeypatch):
    """Writes such a file without torch."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def rebuild(*_):
        raise AssertionError("only its name is written")

    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = rebuild
    torch.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)

    def write(tensors, storages):
        class Pickler(pickle.Pickler):
            def persistent_id(self, x):
                if isinstance(x, np.ndarray):
                    key = next(k for k, values in storages.items() if values is x)
                    return ("storage", torch.FloatStorage, key, "cpu", x.size, None)

        file = io.BytesIO()
        pickle.dump(0x1950A86A20F9469CFC6C, file, 2)
        pickle.dump(1001, file, 2)
        pickle.dump({"little_endian": True}, file, 2)
        Pickler(file, 2).dump(OrderedDict(tensors))
        pickle.dump(list(storages), file, 2)
        for values in storages.values():
            file.write(values.size.to_bytes(8, "little") + values.astype("<f4").tobytes())
        file.seek(0)
        return file

    return write


def test_strides_and_offsets_are_honoured(write):
    values = np.arange(12, dtype="float32")
    file = write(
        {
            "transposed": Tensor(values, 0, (3, 4), (1, 3)),
            "later": Tensor(values, 5, (2,), (2,)),
            "scalar": Tensor(values, 7, (), ()),
        },
        {"1": values},
    )
    read = read_legacy_torch(file, "weights.pth")
    np.testing.assert_array_equal(read["transposed"], values.reshape(4, 3).T)
    np.testing.assert_array_equal(read["later"], [5, 7])
    assert read["scalar"] == 7
    assert all(array.flags.c_contiguous for array in read.values())


def test_a_view_outside_its_storage_is_refused(write):
    values = np.arange(4, dtype="float32")
    file = write({"w": Tensor(values, 1, (2, 2), (2, 1))}, {"1": values})
    with pytest.raises(UserError, match="outside its storage"):
        read_legacy_torch(file, "weights.pth")


def test_a_truncated_file_is_refused(write):
    values = np.arange(4, dtype="float32")
    whole = write({"w": Tensor(values, 0, (4,), (1,))}, {"1": values}).getvalue()
    for length in (0, 20, len(whole) - 1):
        with pytest.raises(UserError, match=r"weights\.pth cannot be read"):
            read_legacy_torch(io.BytesIO(whole[:length]), "weights.pth")


def test_nothing_else_is_unpickled(write, tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    with pytest.raises(UserError, match="not a part of a tensor"):
        read_legacy_torch(write({"w": Attack()}, {}), "weights.pth")
    assert not (tmp_path / "owned").exists()
