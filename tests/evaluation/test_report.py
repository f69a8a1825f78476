"""The report: what it says, that it is whole in itself, and that a browser lays it out well."""

import html
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from tfsft.errors import UsageError
from tfsft.evaluation import write_report
from tfsft.evaluation.wording import duration, number, percent, plain

VOID = {"meta", "link", "img", "br", "hr", "input", "path", "use", "rect", "image"}


class Page(HTMLParser):
    """Checks that tags are balanced, and keeps the words, the tags and what they point to."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.ids, self.words, self._open = [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self._open, self._open
        self.text = " ".join("".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in ("b", "bdi", "i", "code"):
            self.words.append(" ")
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "action", "data", "srcset"):
                self.links.append(value)
            if name == "id":
                self.ids.append(value)
            assert not name.startswith("on"), name
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data):
        if not self._open or self._open[-1] != "style":
            self.words.append(data)


def report(folder, **options):
    """Writes the report; returns the parsed page after the checks that hold for every report."""
    path = write_report(folder, **options)
    assert path == folder / "report.html"
    text = path.read_text("utf-8")
    page = Page(text)
    assert "script" not in page.tags
    assert all(link.startswith(("data:", "#")) for link in page.links), page.links
    assert not re.search(r"url\((?!#)|@import", text)
    assert len(page.ids) == len(set(page.ids))
    assert "None" not in page.text
    assert "nan" not in page.text.lower().split()
    assert not re.search(r"[{%]\s*(if|for|end)|\{\{", text)
    return page


def answers(right, wrong, names=("cat", "dog")):
    """Labels and probabilities with so many right answers, and wrong ones cat -> dog."""
    labels = np.array([i % len(names) for i in range(right)] + [0] * wrong)
    said = np.concatenate([labels[:right], np.ones(wrong, int)])
    table = np.full((len(labels), len(names)), 0.1 / max(1, len(names) - 1))
    table[np.arange(len(labels)), said] = 0.9
    return labels, table


def png(size=8):
    file = io.BytesIO()
    Image.new("RGB", (size, size), "red").save(file, "PNG")
    return file.getvalue()


def test_one_label_in_plain_words(tmp_path, write_run):
    folder = write_run(
        tmp_path / "my run",
        "single",
        *answers(196, 4),
        ("cat", "dog"),
        data={
            "warnings": ["'Cat' and 'cat' differ by case"],
            "bad": [{"id": "x.jpg", "reason": "empty"}],
        },
    )
    page = report(folder, thumbnails={"197.png": png()}, notes=["A quick try only."])
    assert "Right on 98 of 100 pictures it has never seen" in page.text
    assert "right on 95.0% to 99.2% (95% confidence)" in page.text
    assert "Always answering “cat” would be right on 51.0%" in page.text
    assert "Most often it takes cat for dog: 4 of the 102 pictures of that class" in page.text
    assert "All its 4 mistakes, the surest first" in page.text
    assert "is cat said dog 90.0% sure 197.png" in page.text
    assert page.tags.count("img") == 2  # among the mistakes, and with what is confused
    assert "Of the 3,700,458 numbers in the model, 1,254,618 (33.9%) were trained" in page.text
    assert "3 min 34 s" in page.text
    assert "1,257 for training 270 for validation 270 for test" in page.text
    for words in (
        "A quick try only.",
        "'Cat' and 'cat' differ by case",
        "1 file was skipped",
        "x.jpg",
    ):
        assert words in page.text
    assert f"tfsft predict '{folder}' picture.jpg folder/" in page.text
    assert f"tfsft evaluate '{folder}' --data" in page.text
    assert "keras.models.load_model" in page.text
    assert "learning_rate 0.001" in page.text
    assert page.tags.count("svg") == 4  # two learning curves, confusion matrix, reliability


@pytest.mark.parametrize(
    ("right", "wrong", "words"),
    [
        (17, 3, "Right on 17 of 20 pictures"),
        (100, 0, "Right on 100 of 100 pictures"),
        (1797, 3, "Right on 1,797 of 1,800 pictures"),  # not "100 of 100"
        (1, 0, "Right on 1 of 1 picture it"),
        (0, 300, "Right on 0 of 300 pictures"),
    ],
)
def test_the_headline_hides_no_mistake(tmp_path, write_run, right, wrong, words):
    assert (
        words in report(write_run(tmp_path, "single", *answers(right, wrong), ("cat", "dog"))).text
    )


def test_without_mistakes_it_shows_where_it_was_least_sure(tmp_path, write_run):
    page = report(write_run(tmp_path, "single", *answers(40, 0), ("cat", "dog")))
    assert "It made no mistake" in page.text
    assert "Nothing: every answer was right" in page.text


def test_names_are_shown_not_run(tmp_path, write_run):
    names = ("<script>alert(1)</script>", '"><img src=http://x.example/y.png>', "a & b $x$ {{ 1 }}")
    labels, table = answers(30, 5, names)
    ids = [f"{i}<script>.png" for i in range(35)]
    folder = write_run(tmp_path, "single", labels, table, names, ids=ids)
    path = write_report(folder, notes=["<script>"])
    text = path.read_text("utf-8")
    page = Page(text)
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert "<script>alert(1)</script>" in page.text
    assert "a & b $x$ {{ 1 }}" in page.text
    assert "default-src 'none'" in text


def test_a_careful_colleague_remarks(tmp_path, write_run):
    labels = np.array([0] * 45 + [1] * 5)
    table = np.tile([0.8, 0.15, 0.05], (50, 1))
    folder = write_run(tmp_path, "single", labels, table, ("cat", "dog", "eel"), split="validation")
    page = report(folder)
    assert "it did not train on" in page.text
    for words in (
        "There is no test split",
        "Only 50 pictures were tested",
        "no better than always answering “cat”",
        "better on common classes than on rare ones",
        "It never answers “dog”",
        "no pictures of “eel” to test on",
        "eel 0 – – – –",
    ):
        assert words in page.text, words


def test_overfitting_is_named(tmp_path, write_run):
    folder = write_run(tmp_path, "single", *answers(90, 10), ("cat", "dog"))
    (folder / "history.csv").write_text(
        "phase,epoch,loss,accuracy,val_loss,val_accuracy\nhead,1,0.1,0.99,0.9,0.75\n"
    )
    assert "right on 99.0% of the pictures it was trained on but on 75.0%" in report(folder).text


def test_over_confidence_is_named(tmp_path, write_run):
    labels, table = answers(60, 40)
    assert (
        "surer of itself than it should be"
        in report(write_run(tmp_path, "single", labels, table, ("cat", "dog"))).text
    )


@pytest.mark.parametrize("classes", [1, 1000])
def test_few_and_many_classes(tmp_path, write_run, classes):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, 600)
    table = rng.dirichlet(np.full(classes, 0.1), 600) if classes > 1 else np.ones((600, 1))
    table[np.arange(600), labels] += 0.5
    table /= table.sum(axis=1, keepdims=True)
    names = [f"a name that is long and has no end in sight number {i}" for i in range(classes)]
    page = report(write_run(tmp_path, "single", labels, table, names))
    assert names[-1] in page.text
    assert ("The other 980 classes" in page.text) == (classes == 1000)
    assert (tmp_path / "report.html").stat().st_size < 2_000_000


def test_several_labels(tmp_path, write_run):
    labels = np.array([[1, 1, 0], [0, 0, 0], [1, 0, 0], [0, 1, 0]] * 10)
    table = np.where(labels, 0.9, 0.2)
    table[2::4, 2] = 0.7  # adds sand
    table[0, 0] = 0.4  # misses sun once
    page = report(write_run(tmp_path, "multi", labels, table, ("sun", "sea", "sand")))
    assert "Every label right on 29 of 40 pictures" in page.text
    assert "sand 0 0 10" in page.text
    assert "sun 20 1 0" in page.text
    assert "is sun, sea said sea" in page.text
    assert "is sun said sun, sand" in page.text
    assert "What it mixes up" not in page.text


def test_several_labels_and_all_wrong(tmp_path, write_run):
    labels = np.ones((4, 2), int)
    page = report(write_run(tmp_path, "multi", labels, np.full((4, 2), 0.1), ("a", "b")))
    assert "Every label right on 0 of 4" in page.text
    assert "said nothing" in page.text


def test_a_number(tmp_path, write_run):
    labels = np.array([1.0, 2.0, 3.0, 6.0])
    page = report(write_run(tmp_path, "regression", labels, np.array([[2], [2], [1], [6.0]])))
    assert "Off by 0.750 on average, on pictures it has never seen" in page.text
    assert "true values run from 1 to 6" in page.text
    assert "Always answering the average would be off by 1.500" in page.text
    assert "is 3 said 1 off by −2" in page.text
    assert "R² 0.643" in page.text


def test_one_number_only(tmp_path, write_run):
    page = report(write_run(tmp_path, "regression", np.array([2.0]), np.array([2.5])))
    assert "Off by 0.500" in page.text
    assert "R² –" in page.text


def test_a_bare_run_folder(tmp_path):
    (tmp_path / "config.json").write_text('{"format": 1}')
    (tmp_path / "metrics.json").write_text('{"format": 1}')
    (tmp_path / "task.json").write_text(
        '{"format": 1, "task": "text_classification", "labels": "single"}'
    )
    page = report(tmp_path)
    assert "trained but not measured" in page.text
    assert "texts" in page.text


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(UsageError, match=re.escape("config.json")):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_a_second_report_is_the_same(tmp_path, write_run):
    folder = write_run(tmp_path, "single", *answers(30, 5), ("cat", "dog"))
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first


@pytest.mark.parametrize(
    ("share", "words"),
    [(0, "0%"), (1, "100%"), (0.5, "50.0%"), (0.9996, "99.96%"), (0.0002, "0.02%"), (0.1, "10.0%")],
)
def test_percent_never_rounds_to_all_or_nothing(share, words):
    assert percent(share) == words


def test_wording():
    assert [number(x) for x in (0, 3, 0.1234, -12.34, 1e-5, 12345.6, 3e9)] == [
        "0", "3", "0.123", "−12.3", "1e−05", "12,346", "3,000,000,000",
    ]  # fmt: skip
    assert [duration(x) for x in (0.5, 42, 59.7, 125, 7300)] == [
        "0.5 s", "42 s", "1 min 0 s", "2 min 5 s", "2 h 1 min",
    ]  # fmt: skip
    assert [plain(x) for x in (None, True, 0, [1, 2], {"a": 1}, "x")] == [
        "–", "yes", "0", "1, 2", "a 1", "x",
    ]  # fmt: skip


TOKENS = {
    "train": {"examples": 1257, "tokens": 40_000, "padding_share": 0.071, "truncated": 12,
              "longest": 340, "max_length": 128, "unknown_share": 0.034,
              "lengths": [300, 700, 200, 45, 9, 3], "edges": [0, 20, 40, 80, 120, 200, 340]},
    "test": {"examples": 270, "tokens": 9000, "padding_share": None, "truncated": 1,
             "longest": 130, "max_length": 128, "unknown_share": 0.01,
             "lengths": [100, 120, 49, 1], "edges": [0, 20, 40, 80, 130]},
}  # fmt: skip
LINES = [
    "A film  with\n\ttwo spaces & <b>marks</b>",
    "这部电影真的很好看，剧情紧凑，演员也很出色。",
    "هذا الفيلم رائع جدا, 10/10 (حقا)",
    "loved it 😍👩\u200d💻🏽 ✨",
    "word " * 2000 + "END",
    "x" * 50_000 + "THE-VERY-END",
]


def text_run(folder, write_run, **more):
    labels = np.array([0, 1, 0, 1, 0, 1] * 5)
    table = np.where(np.eye(2)[labels] > 0, 0.1, 0.9)
    table[6:] = 1 - table[6:]
    texts = LINES + [f"text {i}" for i in range(24)]
    ids = [f"reviews.csv:{i + 2}" for i in range(30)]
    names = ("好评 👍", "سلبي")
    return write_run(folder, "single", labels, table, names, ids=ids, texts=texts, **more)


def test_mistakes_as_readable_texts(tmp_path, write_run):
    conflicts = [
        {"ids": ["a.csv:2", "a.csv:9"], "labels": ["good", "bad"], "text": "so <so>"},
        {"ids": ["a.csv:3", "a.csv:8"], "labels": ["bad", "good"]},
    ]
    folder = text_run(tmp_path, write_run, data={"tokens": TOKENS, "conflicts": conflicts})
    page = report(folder)
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "Right on 24 of 30 texts it has never seen" in page.text
    for line in LINES[:4]:  # with every blank of it
        assert f'<div class="passage" dir="auto">{html.escape(line)}</div>' in text
    assert "is سلبي said 好评 👍" in page.text
    assert "reviews.csv:3 90.0% sure" in page.text
    assert "All 10,003 characters" in page.text
    assert "END" in page.words[-1] or "END" in page.text  # folded, but there
    assert "THE-VERY-END" not in page.text
    assert "and 30,012 more, in predictions.csv" in page.text
    assert page.text.count("x" * 600) < 100
    assert f'tfsft predict {folder} "a text"' in page.text
    assert "import keras_hub" in page.text
    assert "13 texts had more than 128 tokens and were cut there; the longest has 340" in page.text
    assert "Up to 3.4% of the tokens are unknown" in page.text
    assert "train 1,257 40,000 12 340 7.1% 3.4% test 270 9,000 1 130 – 1.0%" in page.text
    assert "2 texts with more than one label" in page.text
    assert "so <so> a.csv:2 (good), a.csv:9 (bad)" in page.text
    assert "好评" in "".join(re.findall(r"<text.*?</text>", text, re.DOTALL))


def test_a_number_for_a_text(tmp_path, write_run):
    labels = np.array([1.0, 2.0, 3.0, 6.0])
    outputs = np.array([[2], [2], [1], [6.0]])
    texts = [("first <half>", "second half")] * 4
    page = report(write_run(tmp_path, "regression", labels, outputs, texts=texts))
    assert "is 3 said 1" in page.text
    assert "first <half> second half" in page.text
    assert "Pearson correlation 0.835" in page.text


def marks(path):
    """What is marked in a page, as (kind of mark, words, label)."""
    found = re.findall(
        r'<mark class="(\w+)">(.*?)(?:<small><bdi>(.*?)</bdi></small>)?</mark>',
        path.read_text("utf-8"),
        re.DOTALL,
    )
    return [(kind, html.unescape(words), label) for kind, words, label in found]


TAGGED = [
    ("Ada <3 Paris", [(0, 3, "PER"), (7, 12, "LOC")], [(0, 3, "PER"), (4, 12, "LOC")], 0.9),
    ("زار أحمد القاهرة", [(4, 8, "PER")], [(4, 8, "PER")], 0.8),
    ("王芳在北京", [(0, 2, "PER"), (3, 5, "LOC")], [(0, 2, "PER")], 0.7),
    ("nothing here", [], [], 0.99),
    ("filler " * 300 + "Oslo" + " filler" * 300, [(2100, 2104, "LOC")], [], 0.6),
]


def test_entities_are_marked(tmp_path, write_tag_run):
    page = report(write_tag_run(tmp_path, TAGGED, ("PER", "LOC", "ORG")))
    assert "Finds 3 of 6 entities in texts it has never seen" in page.text
    assert "Of what it marks, 75.0% is right" in page.text
    assert "LOC 3 0% 0%" in page.text
    assert "There were no texts of" not in page.text
    found = marks(tmp_path / "report.html")
    assert found[2:6] == [
        ("right", "Ada", "PER"),
        ("wrong", "Paris", "LOC"),
        ("right", "Ada", "PER"),
        ("wrong", "<3 Paris", "LOC"),
    ]
    assert ("wrong", "北京", "LOC") in found
    assert found.count(("wrong", "Oslo", "LOC")) == 2  # in the excerpt and in the whole text
    assert "… er filler" in page.text or "… filler" in page.text or "…" in page.text
    assert "Right when named" in page.text
    assert "Can its confidence be trusted?" in page.text
    assert "ROC area" not in page.text


def test_no_entities_at_all(tmp_path, write_tag_run):
    page = report(write_tag_run(tmp_path, [("nothing", [], [], 0.9)] * 3))
    assert "There were no entities to find" in page.text
    assert "Where it was least sure" in page.text


LONG_CONTEXT = (
    "Oslo is far. " * 60 + "The capital is New Oslo City, they say. " + "And so on. " * 90
)
ASKED = [
    ("What is\nthe capital?", LONG_CONTEXT, ["New Oslo City"], "Oslo City, they", 0.9),
    ("من؟", "كتب أحمد الكتاب", ["أحمد"], "الكتاب", 0.8),
    ("谁？", "王芳写的。", ["王芳", "芳"], "芳", 0.7),
    ("Why?", "No reason.", [], "No reason", 0.6),
    ("When?", "Nobody knows.", [], "", 0.6),
]


def test_answers_are_marked_in_their_context(tmp_path, write_answer_run):
    folder = write_answer_run(tmp_path, ASKED, scores=[0.1, 0.2, 0.3, 0.9, 0.9])
    page = report(folder)
    assert "Right on 2 of 5 questions it has never seen" in page.text
    assert "2 of them without an answer" in page.text
    assert "All its 3 mistakes" in page.text
    assert "What is the capital?" in page.text
    assert "is no answer said No reason" in page.text
    assert "Told there is none 50.0%" in page.text
    assert "It would be right on 60.0% of these" in page.text
    found = [mark[:2] for mark in marks(tmp_path / "report.html")]
    assert ("right", "New ") in found
    assert ("both", "Oslo City") in found
    assert ("wrong", ", they") in found
    assert {("right", "أحمد"), ("wrong", "الكتاب"), ("wrong", "No reason")} <= set(found)
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "questions.jsonl" in text
    short = re.search(r'<div class="passage" dir="auto">(… .*?)</div>', text, re.DOTALL)[1]
    assert len(re.sub("<.*?>", "", short)) < 650


def frames(pages, widths):
    """A page that lays each report out at each width and writes down how that went."""
    inside = "".join(
        f'<iframe style="width:{width}px;height:900px" srcdoc="{html.escape(page)}"></iframe>'
        for page in pages
        for width in widths
    )
    return f"""<!doctype html><body>{inside}<script>onload = () => {{
      const found = [...document.querySelectorAll("iframe")].map(frame => {{
        const page = frame.contentDocument, window = frame.contentWindow;
        const beyond = [...page.querySelectorAll("main *")].filter(
          element => !element.closest(".scroll, pre, details, svg, .clamp")
            && element.getBoundingClientRect().right > window.innerWidth + 1);
        return {{
          title: page.title, inner: window.innerWidth, scroll: page.documentElement.scrollWidth,
          beyond: beyond.map(element => element.outerHTML.slice(0, 80)),
          loaded: window.performance.getEntriesByType("resource").map(entry => entry.name),
        }};
      }});
      document.body.replaceChildren(Object.assign(
        document.createElement("pre"), {{id: "result", textContent: JSON.stringify(found)}}));
    }}</script>"""


@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
def test_a_browser_lays_it_out_at_any_width(tmp_path, write_run, write_tag_run, write_answer_run):
    rng = np.random.default_rng(0)
    names = ["x" * 90, "two words " * 9, *(f"class {i}" for i in range(14))]
    indices, table = rng.integers(0, 16, 200), rng.dirichlet(np.full(16, 0.3), 200)
    ids = [f"folder/{'very' * 30}{i}.jpg" for i in range(200)]
    pages = []
    for kind, labels, outputs in (
        ("single", indices, table),
        ("multi", np.eye(16, dtype=int)[indices], table),
        ("regression", indices * 1e7, table[:, :1] * 1e9),
    ):
        folder = tmp_path / f"{kind * 20}"
        write_run(folder, kind, labels, outputs, names, ids=ids, settings={"path": "y" * 200})
        path = write_report(folder, thumbnails=dict.fromkeys(ids, png(64)))
        pages.append(path.read_text("utf-8"))
    conflict = {"ids": ["x" * 200] * 2, "labels": ["a", "b"], "text": "y" * 300}
    for folder in (
        text_run(tmp_path / "t", write_run, data={"tokens": TOKENS, "conflicts": [conflict]}),
        write_tag_run(tmp_path / "w" / "x", [*TAGGED, ("w" * 500, [(0, 500, "T" * 60)], [], 0.9)]),
        write_answer_run(tmp_path / "q", [*ASKED, ("q" * 300, "c" * 700, ["c" * 600], "", 0.9)]),
    ):
        pages.append(write_report(folder).read_text("utf-8"))
    (tmp_path / "frames.html").write_text(frames(pages, (360, 768, 1100)), "utf-8")
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
        "--disable-background-networking --disable-component-update --virtual-time-budget=5000"
    )
    result = subprocess.run(
        ["chromium", *flags.split(), f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom",
         (tmp_path / "frames.html").as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    found = re.search(r'<pre id="result">(.*?)</pre>', result.stdout, re.DOTALL)
    assert found, result.stderr[-2000:]
    laid_out = json.loads(html.unescape(found[1]))
    assert len(laid_out) == 18
    for frame in laid_out:
        assert frame["scroll"] <= frame["inner"], frame
        assert frame["beyond"] == [], frame
        assert all(name.startswith("data:") for name in frame["loaded"]), frame
