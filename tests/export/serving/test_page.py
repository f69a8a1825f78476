"""The page in a real Chromium: every path clicked, by keyboard alone, narrow, without errors.

Needs `pip install playwright` and Debian's chromium (`apt install chromium`); skipped without.
"""

import json
import shutil
import time

import numpy as np
import pytest
from PIL import Image
from text_runs import TASKS

from tfsft.models import load_tokenizer  # noqa: F401  (imports TensorFlow before the servers do)

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium"),
]
EVIL = "😀 <img src=x onerror=alert(1)> fox & <b>dog</b>, mail ada@b.de"


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as running:
        found = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser):
    """A page that must say nothing in the console, and ask nobody but its server."""
    context = browser.new_context(viewport={"width": 320, "height": 640})
    made = context.new_page()
    made.set_default_timeout(20_000)
    said, asked = [], []
    made.on("console", lambda message: said.append(message.text))
    made.on("pageerror", lambda error: said.append(str(error)))
    made.on("dialog", lambda dialog: said.append(dialog.message))
    made.on("request", lambda request: asked.append(request.url))
    made.expected = []
    yield made
    assert [text for text in said if not any(e in text for e in made.expected)] == []
    hosts = {url.split("/")[2] for url in asked if url.startswith("http")}
    assert len(hosts) == 1
    assert made.evaluate("document.documentElement.scrollWidth") <= 320
    assert made.evaluate("document.querySelector('main img[src=x], main b') === null")
    context.close()


@pytest.fixture
def opened(page, serving, tmp_path_factory):
    """Opens the page of a run; returns a reader of the last row of feedback."""

    def open_page(name, **settings):
        path = tmp_path_factory.mktemp(name) / "feedback.jsonl"
        running = serving(name, feedback=path, **settings)
        page.goto(running.url)
        page.wait_for_selector("#ask:not([hidden])")
        return lambda: json.loads(path.read_text(encoding="utf-8").splitlines()[-1])

    return open_page


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)


def in_sight(page, selector):
    """Tells whether the whole of something can be seen without scrolling."""
    box = page.locator(selector).first.bounding_box()
    return box["y"] >= 0 and box["y"] + box["height"] <= page.viewport_size["height"]


def test_a_text_by_keyboard_alone(page, opened):
    row = opened("texts")
    page.keyboard.type(EVIL)  # the field has the focus from the start
    press(page, "Tab", "Enter")
    page.wait_for_selector(".bars")
    shares = [float(x.removesuffix("%")) for x in page.locator(".share").all_inner_texts()]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=0.2)
    widths = page.evaluate(
        "[...document.querySelectorAll('.fill')]"
        ".map((e) => (100 * e.offsetWidth) / e.parentElement.offsetWidth)"
    )
    np.testing.assert_allclose(widths, shares, atol=0.5)
    first = page.locator(".bars li.first span").first.inner_text()
    press(page, "Tab", "Tab", "Enter")  # behind Why?: Right
    page.wait_for_selector(".thanks")
    assert row() == {"text": EVIL.replace("ada@b.de", "[e-mail]"), "label": first}

    page.locator("#send").focus()
    press(page, "Enter")
    page.wait_for_selector(".feedback button")
    press(page, "Tab", "Tab", "Tab", "Enter")  # Not right: the labels get the focus
    page.keyboard.type("weather")
    press(page, "Tab", "Enter")
    page.wait_for_selector(".thanks")
    assert row()["label"] == "weather"


def test_several_labels(page, opened):
    row = opened("pairs")
    page.fill("#input-text", "the fox")
    page.fill("#input-pair", "the dog")
    page.click("#send")
    page.click("text=Not right")
    for name in TASKS["pairs"]["class_names"]:
        page.get_by_role("checkbox", name=name).set_checked(name != "weather")
    page.click("text=Save")
    page.wait_for_selector(".thanks")
    assert row() == {"text": "the fox", "pair": "the dog", "label": ["天气", "طقس"]}


def test_numbers(page, opened):
    row = opened("numbers")
    page.fill("#input-text", "the fox")
    page.click("#send")
    assert float(page.inner_text(".number"))
    page.click("text=Not right")
    page.fill("input[type=number]", "12.5")
    page.click("text=Save")
    page.wait_for_selector(".thanks")
    assert row()["label"] == 12.5


def test_tagged_spans(page, opened, serving):
    row = opened("tags")
    page.fill("#input-text", EVIL)
    page.click("#send")
    page.wait_for_selector(".feedback")
    shown = page.locator("#answer p.text")
    said = "".join(
        shown.evaluate("e => [...e.childNodes].map((n) => n.firstChild?.data ?? n.data ?? '')")
    )
    assert said == EVIL
    marks = page.locator("mark").count()
    page.click("text=Not right")
    assert page.locator(".feedback [type=checkbox]").count() == marks
    for box in page.locator(".feedback [type=checkbox]").all():
        box.uncheck()
    page.fill("[aria-label='Words that were missed']", "fox")
    page.select_option("[aria-label='What they are']", "PER")
    page.click("text=Save")
    page.wait_for_selector(".thanks")
    assert row()["text"] == EVIL.replace("ada@b.de", "[e-mail]")
    start = row()["text"].index("fox")
    assert row()["spans"] == [{"start": start, "end": start + 3, "label": "PER"}]


def test_words_that_are_marked_are_not_marked_again(page, opened):
    """Words that were missed are the first such that no mark has."""
    row = opened("tags")
    text = "😀 Ada met Ada"
    first = {"type": "PER", "text": "Ada", "start": 2, "end": 5, "probability": 1.0}
    answer = {"prediction": "PER: Ada", "probability": 1.0, "entities": [first]}
    body = json.dumps({"answers": [answer]})
    page.route("**/predict", lambda route: route.fulfill(body=body))
    page.fill("#input-text", text)
    page.click("#send")
    page.click("text=Not right")
    for words, message in (("Bob", "do not stand"), ("😀 A", "marked already"), ("Ada", "")):
        page.fill("[aria-label='Words that were missed']", words)
        page.select_option("[aria-label='What they are']", "PER")
        page.click("text=Save")
        page.wait_for_selector("#message:not(:empty)" if message else ".thanks")
        assert message in page.inner_text("#message")
    assert row()["spans"] == [
        {"start": start, "end": start + 3, "label": "PER"} for start in (2, 10)
    ]


def test_an_answer_in_its_context(page, opened):
    row = opened("questions")
    context = "😀 The train from Ankara was late again; Ada did not mind."
    page.keyboard.type("Who was late?")
    press(page, "Tab")
    page.keyboard.type(context)
    press(page, "Tab", "Enter")
    page.wait_for_selector(".feedback")
    said = page.inner_text(".number")
    if said != "No answer":
        assert page.inner_text("mark") == said
    page.click("text=Not right")
    page.fill(".feedback textarea", "Ada")
    page.click("text=Save")
    page.wait_for_selector(".thanks")
    assert row()["answers"] == {"text": ["Ada"], "answer_start": [context.index("Ada")]}
    page.click("#send")
    page.click("text=Not right")
    page.fill(".feedback textarea", "not in there")
    page.expected = ["400 (Bad Request)"]
    page.click("text=Save")
    page.wait_for_selector("#message:not(:empty)")
    assert page.inner_text("#message") == "The answer is a piece of the context."


def test_a_picture_chosen_and_dropped(page, opened, tmp_path):
    row = opened("pictures")
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (30, 1500, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("hello")
    assert page.evaluate("document.activeElement.id") == "file"
    page.set_input_files("#file", tmp_path / "a.png")
    page.wait_for_selector(".bars")
    assert page.evaluate("document.querySelector('.picture img').naturalWidth") == 1500
    page.click("text=👍 Right")
    page.wait_for_selector(".thanks")
    assert row()["image"].startswith("feedback-pictures/")
    dropped = page.evaluate_handle(
        """async (bytes) => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], "c.png", {type: "image/png"}));
          return data;
        }""",
        list((tmp_path / "a.png").read_bytes()),
    )
    page.dispatch_event(".drop", "drop", {"dataTransfer": dropped})
    page.wait_for_selector("img[alt='c.png']")
    page.expected = ["400 (Bad Request)"]
    page.set_input_files("#file", tmp_path / "b.png")
    page.wait_for_selector("#message:not(:empty)")
    assert "it seems to be text" in page.inner_text("#message")


def test_a_conversation(page, opened, serving):
    row = opened("chat", max_new_tokens=16)
    page.keyboard.type("Hello <b>there</b>")
    press(page, "Shift+Enter")
    page.keyboard.type("mail ada@b.de")
    press(page, "Enter")
    page.wait_for_selector(".said.assistant .feedback")
    assert page.inner_text(".said.user") == "Hello <b>there</b>\nmail ada@b.de"
    first = page.locator(".said.assistant > div").first.inner_text()
    assert first
    page.keyboard.type("And now?")
    press(page, "Enter")
    page.wait_for_selector(".said.assistant >> nth=1")
    page.locator(".said.assistant .feedback").nth(1).wait_for()
    assert in_sight(page, "#input-chat")
    last = page.locator(".said.assistant").nth(1)
    last.get_by_text("Not right").click()
    assert in_sight(page, ".said.assistant:last-child form textarea")
    assert in_sight(page, ".said.assistant:last-child form button")
    last.locator("textarea").fill("A better one.")
    last.get_by_text("Save").click()
    page.wait_for_selector(".thanks")
    messages = row()["messages"]
    assert [m["role"] for m in messages] == ["user", "assistant"] * 2
    assert "[e-mail]" in messages[0]["content"]
    assert messages[-1]["content"] == "A better one."
    page.click("text=New conversation")
    assert page.locator(".said").count() == 0
    assert page.evaluate("document.activeElement.id") == "input-chat"


def test_an_answer_is_stopped_and_the_conversation_goes_on(page, opened, serving, monkeypatch):
    running = serving("chat", max_new_tokens=24)
    talk = running.service.model.talk

    def slowly(pieces):
        for piece in pieces:
            time.sleep(0.5)
            yield piece

    def slow_talk(*given, **sampling):
        found = talk(*given, **sampling)
        found.pieces = slowly(found.pieces)
        return found

    monkeypatch.setattr(running.service.model, "talk", slow_talk)
    page.goto(running.url)
    page.wait_for_selector("#ask:not([hidden])")
    page.keyboard.type("Hello")
    press(page, "Enter")
    page.wait_for_selector(".said.assistant > div:not(:empty)")
    page.click("text=Stop")
    page.wait_for_selector("text=New conversation")
    assert page.inner_text("#message") == ""
    until = time.monotonic() + 20
    while running.service._streams:
        assert time.monotonic() < until
        time.sleep(0.1)
    monkeypatch.undo()
    page.keyboard.type("And now?")
    press(page, "Enter")
    page.wait_for_selector(".said.assistant >> nth=1 >> div:not(:empty)")


def test_a_server_with_a_token(page, serving):
    running = serving("texts", token="secret")
    page.expected = ["401 (Unauthorized)"]
    page.goto(running.url)
    page.wait_for_selector("#login:not([hidden])")
    page.keyboard.type("wrong")
    press(page, "Enter")
    page.wait_for_selector("#message:not(:empty)")
    assert page.inner_text("#message") == "This is not the token."
    page.fill("#token", "secret")
    press(page, "Enter")
    page.wait_for_selector("#ask:not([hidden])")
    page.fill("#input-text", "the fox")
    page.click("#send")
    page.wait_for_selector(".bars")
    assert page.locator(".feedback").count() == 0  # it takes none


def test_what_can_be_asked(page, opened):
    opened("texts")
    page.click("text=For programs")
    page.wait_for_selector("h2")
    assert "POST /predict" in page.locator("h2").all_inner_texts()
    page.click("text=Try it")
    page.wait_for_selector("#ask:not([hidden])")


def held(page, path):
    """Keeps the answers to a path back; returns what lets them go."""
    waiting = []
    page.route(f"**/{path}", lambda route: waiting.append(route))

    def free():
        while waiting:
            waiting.pop().continue_()
        page.unroute(f"**/{path}")

    return free


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_waiting_is_seen(page, opened, tmp_path, scheme):
    """Something turns on what was pressed, dropped or said, and ends with the answer."""
    page.emulate_media(color_scheme=scheme)
    turning = "document.getAnimations().filter((a) => a.playState === 'running').length"
    opened("pictures")
    Image.new("RGB", (30, 20), "red").save(tmp_path / "a.png")
    for path, start, end in (
        ("predict", lambda: page.set_input_files("#file", tmp_path / "a.png"), ".bars"),
        ("explain", lambda: page.click("text=Why?"), ".why .legend"),
    ):
        free = held(page, path)
        start()
        page.wait_for_selector("[aria-busy=true]")
        assert page.evaluate(turning) == 1
        assert page.locator(end).count() == 0
        free()
        page.wait_for_selector(end)
        assert page.evaluate(turning) == 0
        assert page.locator("[aria-busy=true]").count() == 0


def test_a_question_is_seen_at_once_and_given_back_where_it_fails(page, opened):
    opened("chat", max_new_tokens=4)
    held(page, "v1/chat/completions")
    page.keyboard.type("the fox")
    press(page, "Enter")
    page.wait_for_selector(".said.assistant [aria-busy=true]")
    assert page.inner_text(".said.user") == "the fox"
    page.click("text=Stop")
    page.wait_for_selector("text=New conversation")
    assert page.locator(".said").count() == 0
    assert page.input_value("#input-chat") == "the fox"


def test_a_model_that_loads(page, serving, monkeypatch):
    running = serving("texts")
    monkeypatch.setattr(running.service, "ready", False)
    page.goto(running.url)
    page.wait_for_selector("#what[aria-busy=true]")
    assert page.inner_text("#what").startswith("The model is loading")
    monkeypatch.undo()
    page.wait_for_selector("#ask:not([hidden])")
    assert page.locator("[aria-busy=true]").count() == 0


def test_a_picture_pasted_and_the_same_one_again(page, opened, tmp_path):
    opened("pictures")
    Image.new("RGB", (30, 20), "red").save(tmp_path / "a.png")
    page.evaluate(
        """(bytes) => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], "p.png", {type: "image/png"}));
          const pasted = {clipboardData: data, bubbles: true};
          document.body.dispatchEvent(new ClipboardEvent("paste", pasted));
        }""",
        list((tmp_path / "a.png").read_bytes()),
    )
    page.wait_for_selector("img[alt='p.png']")
    for _ in range(2):
        page.set_input_files("#file", tmp_path / "a.png")
        page.wait_for_selector("img[alt='a.png']")
        page.evaluate("document.querySelector('#answer').replaceChildren()")


def explain(page):
    """Asks why by keyboard alone: the button has the focus, and then what was found."""
    page.get_by_role("button", name="Why?").last.focus()
    press(page, "Enter")
    page.wait_for_selector(".why .legend", timeout=120_000)
    assert page.evaluate("document.activeElement.classList.contains('legend')")


def test_why_a_text(page, opened):
    opened("texts")
    page.keyboard.type(EVIL)
    press(page, "Tab", "Enter")
    page.wait_for_selector(".bars")
    press(page, "Tab")
    assert page.evaluate("document.activeElement.textContent") == "Why?"
    explain(page)
    assert page.locator(".shaded").inner_text() == EVIL
    colours = page.locator(".shaded span").evaluate_all("e => e.map((x) => x.style.background)")
    assert any("0, 114, 178" in c or "213, 94, 0" in c for c in colours)


def test_why_a_picture(page, opened, tmp_path):
    opened("pictures")
    Image.new("RGB", (300, 200), "red").save(tmp_path / "a.png")
    page.set_input_files("#file", tmp_path / "a.png")
    explain(page)
    widths = page.locator(".views img").evaluate_all("e => e.map((x) => x.naturalWidth)")
    assert len(widths) >= 2
    assert min(widths) > 0


def test_why_spans_and_answers(page, opened):
    opened("tags")
    page.fill("#input-text", "the fox jumps over")
    page.click("#send")
    page.get_by_role("button", name="Why?").click()
    page.wait_for_selector(".why .legend", timeout=120_000)
    assert page.locator(".shaded").first.inner_text() == "the fox jumps over"


def test_why_an_answer_of_an_assistant(page, opened):
    opened("chat", max_new_tokens=4)
    page.keyboard.type("the fox")
    press(page, "Enter")
    page.wait_for_selector(".said.assistant .why, #other:text('New conversation')")
    if page.locator(".why").count():  # a random model may say nothing
        explain(page)
        assert "the fox" in page.locator(".shaded").inner_text()


def test_wrong_without_the_right_answer(page, serving, tmp_path):
    path = tmp_path / "feedback.jsonl"
    page.goto(serving("texts", feedback=path).url)
    page.wait_for_selector("#ask:not([hidden])")
    page.fill("#input-text", "a fox")
    page.click("#send")
    page.click("text=Not right")
    page.click("text=I do not know")
    page.wait_for_selector(".thanks")
    assert path.read_text() == ""
    wrong = (tmp_path / "feedback-wrong.jsonl").read_text().splitlines()
    assert [json.loads(row)["text"] for row in wrong] == ["a fox"]
