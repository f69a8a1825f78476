"""Files that are unusual and whole are read like any other."""

import io

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from causes import write
from PIL import Image
from table_causes import ROWS, table

from tfsft import data
from tfsft.data.images import decode_image

TEXTS = ["Der Film läuft.", 'He said "no", twice.', "Käse; Brot | Wein", "Ende gut."] * 3
LABELS = ["gut", "schlecht"] * 6


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TFSFT_CACHE", str(tmp_path / "cache"))


def quoted(mark, end):
    cells = [("text", "label")]
    cells += [
        (f"{number} {text}", label)
        for number, (text, label) in enumerate(zip(TEXTS, LABELS, strict=True))
    ]
    rows = [mark.join('"' + cell.replace('"', '""') + '"' for cell in row) for row in cells]
    return end.join(rows) + end


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize(("mark", "end"), [(",", "\n"), (";", "\r\n"), ("\t", "\n"), ("|", "\r")])
def test_texts_as_programs_write_them(tmp_path, encoding, mark, end):
    found = data.load_texts(write(tmp_path, "data.csv", quoted(mark, end), encoding)).everything()
    texts = sorted(found.column("text"), key=lambda text: int(text.split()[0]))
    assert texts == [f"{number} {text}" for number, text in enumerate(TEXTS)]
    assert found.class_names == ("gut", "schlecht")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_tables_of_pictures_as_programs_write_them(tmp_path, encoding):
    text = f"path,label\n{ROWS}".replace("tulip", "Gänseblümchen")
    found = data.load_images(table(tmp_path, text, encoding=encoding)).everything()
    assert found.class_names == ("Gänseblümchen", "rose")
    assert sorted(found.ids) == [f"{number}.png" for number in range(8)]


def test_marks_inside_of_cells_are_no_quotation(tmp_path):
    rows = "".join(f'A screen of {number}" there,{LABELS[number]}\n' for number in range(11))
    found = data.load_texts(write(tmp_path, "data.csv", f"text,label\n{rows}")).everything()
    assert sorted(found.column("text")) == sorted(f'A screen of {n}" there' for n in range(11))


def test_bytes_in_parquet_are_text(tmp_path):
    columns = {"text": [f"Text {n}".encode() for n in range(12)], "label": [b"a", b"b"] * 6}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "data.parquet")
    found = data.load_texts(str(tmp_path / "data.parquet")).everything()
    assert found.class_names == ("a", "b")
    assert sorted(found.column("text")) == sorted(f"Text {n}" for n in range(12))


def test_answers_with_fewer_places_than_texts_are_found(tmp_path):
    context = "Ada and Charles met in London."
    rows = [
        {"question": f"Who {n}?", "context": context, "answers": answers}
        for n, answers in enumerate([{"text": ["Ada", "London"], "answer_start": [0]}] * 6)
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "data.parquet")
    found = data.load_questions(
        str(tmp_path / "data.parquet"), validation_fraction=0, test_fraction=0
    ).train
    wanted = [{"text": "Ada", "start": 0}, {"text": "London", "start": 23}]
    assert found.column("answers") == [wanted] * 6


@pytest.mark.parametrize("kind", ["CMYK", "16 bit", "animated", "palette", "one pixel"])
def test_unusual_pictures(kind):
    file = io.BytesIO()
    grey = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1024
    if kind == "CMYK":
        Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(file, "JPEG")
    elif kind == "16 bit":
        Image.fromarray(grey).save(file, "PNG")
    elif kind == "animated":
        frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
        frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    elif kind == "palette":
        Image.new("RGB", (8, 8), "red").quantize(4).save(file, "BMP")
    else:
        Image.new("RGB", (1, 1), "red").save(file, "PNG")
    image, ok = decode_image(file.getvalue())
    assert ok
    if kind == "16 bit":
        wanted = np.repeat((grey >> 8)[..., None], 3, axis=2)
    else:
        wanted = np.full(image.shape, (255, 0, 0))
    assert np.abs(np.asarray(image).astype(int) - wanted).max() <= 2
