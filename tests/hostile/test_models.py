"""Malicious models, through what a person types: none runs code, reads or writes elsewhere, or
takes much memory, and each ends in one message.
"""

import io
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import h5py
import hostile_attempts
import hostile_models as models
import hostile_pictures as pictures
import numpy as np
import pytest
from PIL import Image

MOST_MEGABYTES = 200
TASK = {
    "format": 1,
    "task": "image_classification",
    "labels": "single",
    "inputs": ["image"],
    "class_names": ["a", "b"],
    "image_size": models.SIZE,
}
UNSAFE = "__import__('keras').models.load_model({!r}, safe_mode=False)"
NOWHERE = Path("/nowhere")
REASONS = {  # so that an attack is known to come as far as the guard that it is about
    "CVE-2024-3660": "a `Lambda` layer whose `function` is a Python lambda",
    "CVE-2025-1550": "Could not locate function 'system'",
    "CVE-2025-1550-class": "Could not locate class 'Popen'",
    "CVE-2025-8747": "`keras.utils.get_file` because it is not a modeling function",
    "CVE-2025-9905": "File is not a zip file",
    "CVE-2025-9906": "`keras.config.enable_unsafe_deserialization` because it is not",
    "CVE-2025-12058": "a vocabulary file outside of the model archive",
    "CVE-2025-12058-bytes": "a vocabulary file outside of the model archive",
    "CVE-2025-12058-words": "a vocabulary file outside of the model archive",
    "CVE-2025-12060": "`keras.utils.get_file` because it is not a modeling function",
    "CVE-2026-0897": "declares 960001536 bytes of weights",
    "CVE-2026-1462": "a `TFSMLayer`, which loads an external SavedModel",
    "CVE-2026-1669-external": "takes 'layers/dense/vars/1' from other files",
    "CVE-2026-1669-linked": "links to elsewhere at 'layers/dense/vars/1'",
    "CVE-2026-1669-virtual": "takes 'layers/dense/vars/1' from other files",
    "CVE-2026-12479": "cannot contain character `/`",
    "CVE-2026-12481": "a `Lambda` layer whose `function` is a Python lambda",
    "GHSA-hqp4-2352-xf5r": "leads out of the archive",
    "many_weights": "describes a model of more than 64 MB",
}
RUNS = sorted(models.runs(NOWHERE, NOWHERE, NOWHERE, bomb=0).keys() - {"good"})
FOLDERS = sorted(models.folders(NOWHERE, NOWHERE, NOWHERE))
TASKS = {"image_size": 1_000_000, "tokenizer": "../up", "class_names": 3, "task": ["chat"]}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder; what lies in `secret` must not be read, and nothing may appear beside it."""
    place = tmp_path_factory.mktemp("place")
    outside = place / "outside"
    outside.mkdir()
    secret = outside / "secret"
    secret.write_text(f"[UNK]\n{models.SECRET}\n")
    with h5py.File(f"{secret}.h5", "w") as file:
        file["data"] = np.frombuffer(models.SECRET.encode()[:8], "float32")
    with tarfile.open(outside / "evil.tar", "w") as archive:
        up = tarfile.TarInfo("../../up")
        archive.addfile(up, io.BytesIO())
        to = tarfile.TarInfo("to")
        to.type, to.linkname = tarfile.SYMTYPE, ".."
        archive.addfile(to)
        archive.addfile(tarfile.TarInfo("to/up"), io.BytesIO())
        hard = tarfile.TarInfo("hard")
        hard.type, hard.linkname = tarfile.LNKTYPE, "../../secret"
        archive.addfile(hard)
    return place


@pytest.fixture(scope="module")
def results(place):
    """What came of each attempt; all are made in one process, one after the other."""
    outside, canary = place / "outside", place / "canary"
    secret = outside / "secret"
    data = place / "data"
    for name in "ab":
        (data / name).mkdir(parents=True)
        for i in range(4):
            noise = np.random.default_rng(i).integers(0, 255, (9, 9, 3), "uint8")
            Image.fromarray(noise).save(data / name / f"{name}{i}.png")
    picture = str(data / "a" / "a0.png")
    attempts = []

    def run(name, model, **task):
        task = json.dumps(TASK | task)
        folder = models.write(
            place / "runs" / name, {"config.json": "{}", "task.json": task, "model.keras": model}
        )
        command = ["evaluate", str(folder), "--data", str(data)]
        if len(attempts) % 2:
            command = ["predict", str(folder), picture]
        attempts.append({"name": name, "words": command})
        return folder

    files = models.runs(canary, secret, outside)
    for _ in range(2):  # the first is what TensorFlow itself takes
        run(f"good{len(attempts)}", files["good"])
    folders = {name: run(name, files[name]) for name in RUNS}
    for key, value in TASKS.items():
        run(f"task-{key}", files["good"], **{key: value})
    for name, content in models.folders(canary, secret, outside).items():
        folder = models.write(place / "folders" / name, content)
        words = ["run", "image_cls", "--data", str(data), "--backbone", str(folder)]
        words += ["--run-dir", str(place / "new" / name), "--epochs", "1", "--image-size", "32"]
        attempts.append({"name": f"folder-{name}", "words": words})
    good = str(place / "runs" / "good0")
    for name, content in pictures.bombs().items():
        path = place / name
        path.write_bytes(content)
        attempts.append({"name": name, "words": ["predict", good, str(path)]})
    (place / "lists").mkdir()
    for name, cell in {"up": "../data/a/a0.png", "absolute": picture}.items():
        (place / "lists" / f"{name}.csv").write_text(f"image\n{cell}\n")
        words = ["predict", good, "--csv", str(place / "lists" / f"{name}.csv")]
        attempts.append({"name": f"csv-{name}", "words": words})
    # Without the guards, the same files do harm.
    for name, suffix in {"CVE-2024-3660": "keras", "CVE-2025-9905": "h5"}.items():
        path = outside / f"harm-{name}.{suffix}"
        path.write_bytes(models.runs(place / f"fired-{name}", secret, outside, bomb=0)[name])
        attempts.append({"name": f"harm-{name}", "python": UNSAFE.format(str(path))})
    path = folders["CVE-2025-12058"] / "model.keras"
    line = UNSAFE.format(str(path)) + ".get_layer('words').get_vocabulary()"
    attempts.append({"name": "harm-CVE-2025-12058", "python": line})
    line = f"len(__import__('zipfile').ZipFile({str(folders['zip_bomb'] / 'model.keras')!r})"
    attempts.append({"name": "harm-zip_bomb", "python": line + ".read('assets/zeros'))"})
    return _attempt(attempts, place)


def _made(place):
    """Files that none of the attempts may have made."""
    known = {"data", "runs", "folders", "lists", "new", "outside", *pictures.bombs()}
    for path in [*place.iterdir(), *(place / "outside").rglob("*")]:
        expected = {"secret", "secret.h5", "evil.tar"} if path.parent != place else known
        if path.name not in expected and not path.name.startswith(("fired-", "harm-")):
            yield path
    yield from (path for path in place.parent.iterdir() if path.name == "up")
    for folder in (place / "runs").iterdir():
        expected = {"config.json", "task.json", "model.keras"}
        yield from (path for path in folder.rglob("*") if path.name not in expected)


def _attempt(attempts, place):
    environment = os.environ | {"TFSFT_CACHE": str(place.parent / f"{place.name}-cache")}
    found = subprocess.run(
        [sys.executable, hostile_attempts.__file__],
        input=json.dumps(attempts),
        capture_output=True,
        text=True,
        env=environment,
        timeout=500,
    )
    assert found.returncode == 0, found.stderr[-2000:]
    return json.loads(found.stdout.splitlines()[-1])


def check_refused(result):
    said = result["err"] + result["out"]
    assert result["code"] in (1, 2), said
    assert "Error: " in said
    assert "Traceback" not in said
    assert "fault of tfsft" not in said
    assert models.SECRET not in said
    assert result["megabytes"] < MOST_MEGABYTES


def test_a_run_written_by_hand_answers(results):
    for name in ("good0", "good1"):
        assert results[name]["code"] == 0, results[name]["err"]


@pytest.mark.parametrize("name", RUNS)
def test_a_malicious_model_does_nothing(results, name):
    result = results[name]
    if name == "nested":  # an archive in an archive is a file that nobody opens
        assert result["code"] == 0
        return
    check_refused(result)
    assert "safe_mode" not in result["err"]  # nor is there a hint how to open it anyway
    assert re.search(REASONS.get(name, ""), result["err"])


@pytest.mark.parametrize("name", TASKS)
def test_a_malicious_description_of_a_run_does_nothing(results, name):
    check_refused(results[f"task-{name}"])


@pytest.mark.parametrize("name", FOLDERS)
def test_a_malicious_folder_of_weights_does_nothing(results, name):
    check_refused(results[f"folder-{name}"])


@pytest.mark.parametrize("name", pictures.NAMES)
def test_a_bomb_is_not_decoded(results, name):
    result = results[name]
    assert result["code"] == 1
    assert f"/{name}: has {pictures.SIDE} x {pictures.SIDE} pixels" in result["err"]
    assert result["megabytes"] < MOST_MEGABYTES


@pytest.mark.parametrize("name", ["up", "absolute"])
def test_a_list_of_pictures_stays_in_its_folder(results, name):
    result = results[f"csv-{name}"]
    check_refused(result)
    assert "leads out of its folder" in result["err"]


def test_nothing_was_written_elsewhere(results, place):
    assert list(_made(place)) == []


def test_the_same_files_do_harm_where_nothing_prevents_it(results, place):
    for name in ("CVE-2024-3660", "CVE-2025-9905"):
        assert (place / f"fired-{name}").exists(), results[f"harm-{name}"]
    assert models.SECRET in results["harm-CVE-2025-12058"]["out"]
    assert results["harm-zip_bomb"]["megabytes"] > MOST_MEGABYTES
    with h5py.File(place / "folders" / "external" / "model.weights.h5") as file:
        read = file["layers/dense/vars/1"][:].tobytes()
    assert read == (place / "outside" / "secret").read_bytes()[:8]
