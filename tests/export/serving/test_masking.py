"""What could lead to a person goes, and what else looks alike stays."""

import time

import pytest

from tfsft.export.serving.masking import masked

TAKEN = [
    ("Write to ada.lovelace+x@mail.example.co.uk, please", "Write to [e-mail], please"),
    ("root@localhost", "[e-mail]"),
    ("ä.müller@firma.de!", "[e-mail]!"),
    ("call +49 30 901820", "call [phone]"),
    ("call (030) 90 18 20-0.", "call [phone]."),
    ("Tel. 030/901820, daily", "Tel. [phone], daily"),
    ("0171 2345678", "[phone]"),
    ("001-555-123-4567", "[phone]"),
    ("555-123-4567", "[phone]"),
    ("+14155552671", "[phone]"),
    ("card 4111 1111 1111 1111 ok", "card [card] ok"),
    ("4111111111111111", "[card]"),
    ("DE89 3704 0044 0532 0130 00.", "[account]."),
    ("GB29NWBK60161331926819", "[account]"),
    ("from 192.168.17.42:80", "from [IP address]:80"),
    ("2001:0db8:85a3:0000:0000:8a2e:0370:7334", "[IP address]"),
    ("078-05-1120", "[social security number]"),
    ("ftp://ada:secret@host.example/x", "ftp://[password]@host.example/x"),
    ("a@b.de and c@d.de", "[e-mail] and [e-mail]"),
]
KEPT = [
    "",
    "The year 2026, and 1999-2003.",
    "on 2026-11-26 and 26.11.2026 at 10:30",
    "1,234,567 people, 1 234 567 more, 3.14159265 and 0.00012345",
    "ISO 9001, room 12 34, version 10.2.1",
    "12345 Berlin",
    "me @ home, @ada, #12",
    "It costs 1299.00 EUR",
    "123456",
]


@pytest.mark.parametrize(("text", "expected"), TAKEN)
def test_taken(text, expected):
    assert masked(text).text == expected


@pytest.mark.parametrize("text", KEPT)
def test_kept(text):
    assert masked(text).text == text


def test_places_move_with_the_text():
    text = "Ada (ada@b.de) met Bob at 555-123-4567 in Rome."
    clean = masked(text)
    assert clean.text == "Ada ([e-mail]) met Bob at [phone] in Rome."
    for word in ("Ada", "met", "Bob", "Rome"):
        start = text.index(word)
        now = clean.span(start, start + len(word))
        assert clean.text[slice(*now)] == word
    start = text.index("ada@")
    for part in ((0, 8), (0, 3), (4, 8), (2, 5)):  # a part of what was taken is all of it
        now = clean.span(start + part[0], start + part[1])
        assert clean.text[slice(*now)] == "[e-mail]"


@pytest.mark.parametrize("piece", ["1", "a", "a@", "1-", "1 ", "DE12 ABCD ", "a.", "1.", "://a:"])
def test_no_text_takes_long(piece):
    start = time.monotonic()
    masked(piece * (20_000 // len(piece)))
    assert time.monotonic() - start < 2
