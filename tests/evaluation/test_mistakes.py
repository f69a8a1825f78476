"""Mistakes as TensorBoard shows them."""

import html
import re

from tfsft.evaluation import Prediction, mistakes_as_markdown


def row(label, prediction, text, **more):
    return Prediction("id", label, prediction, **{"probability": 0.9, **more}, text=text)


def shown(markdown):
    """The cells of the table as TensorBoard makes it."""
    from tensorboard.plugin_util import markdown_to_safe_html

    page = markdown_to_safe_html(markdown)
    rows = re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", cells, re.DOTALL) for cells in rows]


def test_every_letter_means_itself():
    awkward = "a | b\n# *c* _d_ `e` [f](http://x.example) <script>&amp; \\| سلام 猫 😀\r\n1. x"
    table = shown(mistakes_as_markdown([row("x|y", "", awkward)]))
    assert table[0] == ["text", "is", "said", "sure"]
    assert len(table) == 2
    assert not [cell for cell in table[1] if "<" in cell]  # no markup came of it
    said = [html.unescape(cell) for cell in table[1]]
    assert said == [" ".join(awkward.split()), "x|y", "nothing", "90.0%"]


def test_only_mistakes_and_only_some():
    rows = [row("a", "b", f"text {i}") for i in range(50)] + [row("a", "a", "right")]
    rows += [row(None, "a", "unknown")]
    table = shown(mistakes_as_markdown(rows, limit=3))
    assert [cells[0] for cells in table[1:]] == ["text 0", "text 1", "text 2"]
    assert mistakes_as_markdown(rows[50:]) == "No mistakes."
    long = shown(mistakes_as_markdown([row("a", "b", "word " * 1000)]))[1][0]
    assert len(long) <= 300
    assert "…" in long


def test_numbers_say_how_far_off():
    rows = [row(3.0, 1.0, "a text", error=-2.0, probability=None)]
    assert shown(mistakes_as_markdown(rows))[1] == ["a text", "3", "1", "−2"]
