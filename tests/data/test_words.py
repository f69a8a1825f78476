"""Where words of raw text begin and end."""

import pytest

from tfsft.data.words import split_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Berlin, 3 pm.", ["Berlin", ",", "3", "pm", "."]),
        ("don't_stop", ["don", "'", "t", "_", "stop"]),
        ("我在北京 ok", ["我", "在", "北", "京", "ok"]),
        ("こんにちは", list("こんにちは")),
        ("서울에서", ["서울에서"]),
        ("نص عربيّ", ["نص", "عربيّ"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("e\u0301te\u0301", ["e\u0301te\u0301"]),
        ("ok👩‍👩‍👧❤️!", ["ok", "👩‍👩‍👧", "❤️", "!"]),
        (" \t\n", []),
        ("", []),
    ],
)
def test_words(text, words):
    spans = split_words(text)
    assert [text[start:end] for start, end in spans] == words
