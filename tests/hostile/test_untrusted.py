"""Archives, folders and tables that are refused before a library opens them."""

import json
import os
import struct
import zipfile

import h5py
import hostile_models as models
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from tfsft import untrusted
from tfsft.errors import UserError

NOWHERE = "/nowhere"


def refused(function, path):
    with pytest.raises(UserError) as error:
        function(path)
    return error.value.came.removeprefix(str(path))


@pytest.fixture
def archive(tmp_path):
    def write(content):
        path = tmp_path / "model.keras"
        path.write_bytes(content)
        return path

    return write


def test_what_keras_saves_passes(archive):
    path = archive(models.keras_file())
    assert untrusted.check_archive(path) == path.stat().st_size
    packed = models.keras_file(compression=zipfile.ZIP_DEFLATED)
    assert untrusted.check_archive(archive(packed)) == len(packed)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../up", "which leads out of the archive"),
        ("assets/../../up", "which leads out of the archive"),
        ("/tmp/up", "which leads out of the archive"),
        ("..\\up", "which leads out of the archive"),
        ("C:/up", "which leads out of the archive"),
        (models.link("assets/link"), "which is a link"),
        ("config.json", "twice"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_in_an_archive(archive, name, reason):
    path = archive(models.keras_file(None, None, (name, "x")))
    assert refused(untrusted.check_archive, path).endswith(f"{reason}.")


def test_an_archive_does_not_unpack_to_more_than_it_stores(archive, monkeypatch):
    monkeypatch.setattr(untrusted, "FREE_BYTES", 1 << 20)
    member = ("assets/zeros", bytes(9 << 20))
    path = archive(models.keras_file(None, None, member, compression=zipfile.ZIP_DEFLATED))
    assert "unpacks to far more than" in refused(untrusted.check_archive, path)
    untrusted.check_archive(archive(models.keras_file(None, None, member)))


def test_members_that_share_their_bytes_are_counted_each(archive, monkeypatch):
    # Many entries of the table of contents may point to the same compressed bytes.
    monkeypatch.setattr(untrusted, "FREE_BYTES", 1 << 20)
    data = bytearray(
        models.archive([("config.json", "{}"), ("a", bytes(900_000))], zipfile.ZIP_DEFLATED)
    )
    end = data.rindex(b"PK\5\6")
    start = struct.unpack_from("<I", data, end + 16)[0]
    entry = data[data.rindex(b"PK\1\2", 0, end) : end]
    copies = b"".join(bytes(entry[:-1]) + bytes([letter]) for letter in b"bcdefghijklmn")
    tail = bytearray(data[end:])
    struct.pack_into("<HHII", tail, 8, 15, 15, end - start + len(copies), start)
    path = archive(bytes(data[:end]) + copies + bytes(tail))
    assert len(zipfile.ZipFile(path).infolist()) == 15
    assert "unpacks to far more than" in refused(untrusted.check_archive, path)


@pytest.mark.parametrize("name", ["external", "linked", "virtual"])
def test_weights_lie_in_their_own_file(archive, tmp_path, name):
    secret = tmp_path / "secret"
    secret.write_text(models.SECRET)
    content = models.weights(models.elsewhere(secret)[name])
    path = archive(models.keras_file(None, content))
    assert "elsewhere" in (said := refused(untrusted.check_archive, path)) or "other files" in said
    folder = models.write(tmp_path / "preset", {"model.weights.h5": content})
    refused(untrusted.check_folder, folder)


def test_weights_declare_what_they_store(archive, tmp_path):
    path = archive(models.keras_file(None, models.weights(models.gigantic)))
    assert "declares 96000" in refused(untrusted.check_archive, path)

    def shapeless(group):
        group["empty"] = h5py.Empty("float32")
        group["again"] = group.file["/"]  # a circle

    untrusted.check_archive(archive(models.keras_file(None, models.weights(shapeless))))


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"x" * 99, models.old_h5(NOWHERE)])
def test_what_is_no_archive(archive, content):
    assert refused(untrusted.check_archive, archive(content)).startswith(" cannot be read: ")


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    assert "is not a file" in refused(untrusted.read_json, tmp_path / "config.json")
    assert "is not a file" in refused(untrusted.check_archive, tmp_path)
    with pytest.raises(UserError, match="is not a file"):
        untrusted.check_folder(tmp_path)


def test_json_is_read_to_a_limit(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"a": 1}))
    assert untrusted.read_json(path) == {"a": 1}
    assert "has more than 0 MB" in refused(lambda p: untrusted.read_json(p, 3), path)
    path.write_text("[" * 1_000_000)
    assert "nested too deeply" in refused(untrusted.read_json, path)
    path.write_bytes(b"\xff\xfe")
    assert "cannot be read" in refused(untrusted.read_json, path)


def test_links_of_a_folder_stay_in_it(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("{}")
    folder = models.write(tmp_path / "preset", {"a.txt": "x", "b.txt": tmp_path / "preset/a.txt"})
    assert untrusted.check_folder(folder) == 0
    (folder / "vocab.txt").symlink_to("../secret")
    assert "'vocab.txt', a link out of it" in refused(untrusted.check_folder, folder)
    (folder / "vocab.txt").unlink()
    (folder / "assets").symlink_to("..")
    assert "'assets', a link out of it" in refused(untrusted.check_folder, folder)


def test_the_links_of_hugging_faces_cache_are_known(tmp_path):
    store = models.write(tmp_path / "models--a--b" / "blobs", {"1234": "{}"})
    snapshot = tmp_path / "models--a--b" / "snapshots" / "abcd"
    models.write(snapshot, {"config.json": store / "1234"})
    assert untrusted.check_folder(snapshot) == 0
    (snapshot / "more.json").symlink_to(tmp_path)
    refused(untrusted.check_folder, snapshot)


def test_pickled_weights_are_never_opened(tmp_path):
    files = {"config.json": "{}", "pytorch_model.bin": b"x"}
    folder = models.write(tmp_path / "preset", files)
    with pytest.raises(UserError, match="pickled: pytorch_model") as error:
        untrusted.check_folder(folder)
    assert "safetensors" in error.value.fix
    (folder / "model.safetensors").write_bytes(b"12345")  # which is what KerasHub reads
    assert untrusted.check_folder(folder) == 5


def test_code_beside_weights_is_refused(tmp_path):
    for name in ("config.json", "tokenizer_config.json"):
        files = {name: json.dumps({"auto_map": {"AutoModel": "evil.Model"}})}
        folder = models.write(tmp_path / name, files)
        with pytest.raises(UserError, match="asks for Python code of its own"):
            untrusted.check_folder(folder)


@pytest.mark.parametrize("name", ["../up", "/etc/passwd", "a/b", "..", "", 3, None])
def test_parts_of_weights_lie_in_their_folder(tmp_path, name):
    for file in ("model.safetensors.index.json", "model.weights.json"):
        for names in (name, [name]):
            content = {file: json.dumps({"weight_map": {"a": names}})}
            folder = models.write(tmp_path / f"{type(names)}-{file}", content)
            with pytest.raises(UserError, match="takes weights from"):
                untrusted.check_folder(folder)
    good = {"model.weights.json": '{"weight_map": {"a": ["model_00000.weights.h5"]}}'}
    assert untrusted.check_folder(models.write(tmp_path / "good", good)) == 0


def test_paths_stay_inside_a_folder(tmp_path):
    inner = tmp_path / "data"
    inner.mkdir()
    (inner / "out").symlink_to(tmp_path)
    (inner / "in").symlink_to(inner)
    find = untrusted.inside(inner)
    root = os.path.realpath(inner)
    assert find("a/b.png") == ("a/b.png", f"{root}/a/b.png")
    assert find("x\\b.png") == ("x/b.png", f"{root}/x/b.png")
    assert find(f"{root}/a.png") == ("a.png", f"{root}/a.png")
    assert find("in/a.png") == ("in/a.png", f"{root}/a.png")
    for name in ("../a.png", "/etc/passwd", "out/a.png", "a/../../b.png", "..\\a.png"):
        assert find(name) is None


def test_a_parquet_file_declares_what_it_stores(tmp_path):
    rows = pyarrow.table({"text": pyarrow.array(np.zeros(1_000_000, "int8"))})
    path = tmp_path / "bomb.parquet"
    with pyarrow.parquet.ParquetWriter(path, rows.schema) as writer:
        for _ in range(3):
            writer.write_table(rows)
    assert path.stat().st_size < 20_000
    assert "declares 3000000 rows" in refused(untrusted.check_parquet, path)
    numbers = pyarrow.table({"text": np.random.default_rng(0).random(200_000)})
    pyarrow.parquet.write_table(numbers, path)
    untrusted.check_parquet(path)
    with pytest.raises(pyarrow.ArrowException):
        untrusted.check_parquet(_no_parquet(tmp_path))


def _no_parquet(folder):
    path = folder / "no.parquet"
    path.write_bytes(b"x" * 99)
    return path
