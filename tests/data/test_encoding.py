"""Packing, truncation and windows, against what a person works out by hand."""

import numpy as np
import pytest
from word_tokenizer import WordTokenizer

from tfsft.data import encoding
from tfsft.data.encoding import (
    QuestionEncoder,
    TagEncoder,
    TextEncoder,
    encode_source,
    most_context,
    windows,
)
from tfsft.data.plain_texts import PlainTexts
from tfsft.data.ragged import Ragged, joined
from tfsft.errors import UsageError

TOKENS = WordTokenizer()


def ids(text):
    return TOKENS.encode([text])[0].tolist()


def rows_of(chunk, name="token_ids"):
    return [chunk[0][name][i].tolist() for i in range(len(chunk[0][name]))]


def test_ragged_rows_are_joined_row_by_row():
    a, b = Ragged.of([[1, 2], [], [3]], "int32"), Ragged.of([[4], [5, 6], []], "int32")
    both = joined([[0], a, [9, 9], b])
    assert [both[i].tolist() for i in range(3)] == [
        [0, 1, 2, 9, 9, 4], [0, 9, 9, 5, 6], [0, 3, 9, 9],
    ]  # fmt: skip
    assert [a.shortened(np.array([1, 1, 0]))[i].tolist() for i in range(3)] == [[1], [], []]


def test_a_text_is_packed_and_truncated():
    texts = ["one two", "", "a b c d e f"]
    chunk = TextEncoder(TOKENS, 6).encode({"text": texts}, first=7)
    assert rows_of(chunk) == [
        [1, *ids("one two"), 2], [1, 2], [1, *ids("a b c d"), 2],
    ]  # fmt: skip
    assert chunk[1]["full_length"].tolist() == [4, 2, 8]
    assert chunk[1]["example"].tolist() == [7, 8, 9]
    assert chunk[2] == {"examples": 3, "pieces": 8, "unknown": 0, "too_long": 1}


@pytest.mark.parametrize(
    ("count", "expected"), [(0, ""), (1, "a"), (2, "ae"), (3, "abe"), (4, "abde"), (5, "abcde")]
)
def test_the_middle_is_what_a_long_text_loses(count, expected):
    rows = Ragged.of([list(b"abcde"), list(b""), list(b"xyzabcde"), list(b"ab")], "uint8")
    kept = rows.shortened(np.array([count, 3, 4, 4]), "middle")
    assert [bytes(kept[row]).decode() for row in range(4)] == [expected, "", "xyde", "ab"]


def test_of_a_pair_the_longer_text_is_truncated_first():
    # Room for 7 tokens beside start, separator and end.
    cells = {
        "text": ["a b", "a b c d e f", "a b c d e f", "a"],
        "pair": ["u v w x y z", "u v", "u v w x y z", ""],
    }
    chunk = TextEncoder(TOKENS, 10, pair=True).encode(cells, 0)
    assert rows_of(chunk) == [
        [1, *ids("a b"), 2, *ids("u v w x y"), 2],
        [1, *ids("a b c d e"), 2, *ids("u v"), 2],
        [1, *ids("a b c d"), 2, *ids("u v w"), 2],  # of an odd room the first has one more
        [1, *ids("a"), 2, 2],
    ]
    assert chunk[1]["second"].tolist() == [4, 7, 6, 3]


@pytest.mark.parametrize(
    ("length", "room", "stride", "expected"),
    [
        (5, 5, 2, [(0, 5)]),
        (6, 5, 2, [(0, 5), (1, 6)]),
        (11, 5, 2, [(0, 5), (3, 8), (6, 11)]),
        (12, 5, 2, [(0, 5), (3, 8), (6, 11), (7, 12)]),
        (0, 5, 2, [(0, 0)]),
    ],
)
def test_windows_cover_everything(length, room, stride, expected):
    assert windows(length, room, stride) == expected


def test_each_token_counts_where_it_has_most_context():
    # Windows 0-4 and 3-7: 3 is one from the edge of the first and at the edge of the second.
    assert most_context(8, [(0, 5), (3, 8)]).tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def words_of(text):
    starts, place = [], 0
    for word in text.split():
        starts.append(text.index(word, place))
        place = starts[-1] + len(word)
    return starts, [s + len(w) for s, w in zip(starts, text.split(), strict=True)]


def test_a_tag_is_on_the_first_token_of_its_word():
    text = "Angela Merkel in Berlin"  # Ange la, Merk el, in, Berl in
    starts, ends = words_of(text)
    cells = {"text": [text], "starts": [starts], "ends": [ends], "tags": [[1, 2, 0, 3]]}
    chunk = TagEncoder(TOKENS, 16, stride=4).encode(cells, 0)
    assert rows_of(chunk) == [[1, *ids(text), 2]]
    assert rows_of(chunk, "targets") == [[-1, 1, -1, 2, -1, 0, 3, -1, -1]]
    assert rows_of(chunk, "words") == [[-1, 0, -1, 1, -1, 2, 3, -1, -1]]


def test_in_windows_every_word_counts_once():
    random = np.random.default_rng(0)
    text = " ".join("x" * random.integers(1, 12) for _ in range(60))
    starts, ends = words_of(text)
    tags = random.integers(0, 5, 60).tolist()
    cells = {"text": [text], "starts": [starts], "ends": [ends], "tags": [tags]}
    tokens, rows, facts = TagEncoder(TOKENS, 22, stride=8).encode(cells, 0)
    words, targets = tokens["words"].values, tokens["targets"].values
    counted = words[words >= 0]
    assert sorted(counted) == list(range(60))
    assert [tags[word] for word in counted] == targets[targets >= 0].tolist()
    assert (rows["full_length"] == len(ids(text)) + 2).all()
    assert facts["too_long"] == 1
    assert all(len(row) <= 22 for row in rows_of((tokens,)))


def test_a_word_without_tokens_keeps_its_tag():
    class Deaf(WordTokenizer):
        @staticmethod
        def pieces(word):
            return [] if word == "mute" else WordTokenizer.pieces(word)

    text = "a mute b"
    starts, ends = words_of(text)
    cells = {"text": [text], "starts": [starts], "ends": [ends], "tags": [[1, 2, 3]]}
    chunk = TagEncoder(Deaf(), 16, stride=4).encode(cells, 0)
    assert rows_of(chunk) == [[1, *ids("a"), TOKENS.unknown, *ids("b"), 2]]
    assert rows_of(chunk, "targets") == [[-1, 1, 2, 3, -1]]


def test_the_answer_is_found_in_the_windows_that_hold_all_of_it(monkeypatch):
    monkeypatch.setattr(encoding, "QUESTION_TOKENS", 4)
    context = " ".join("abcdefghijklmnop")  # 16 words of one token
    cells = {
        "question": ["who is it"],
        "context": [context],
        "answers": [[{"text": "g h", "start": context.index("g")}]],
    }
    # Question, start, separator and end take 6 of 14 tokens: windows of 8 at 0, 5 and 8.
    chunk = QuestionEncoder(TOKENS, 14, stride=3).encode(cells, 0)
    assert rows_of(chunk, "words") == [
        [-1] * 5 + list(range(start, start + 8)) + [-1] for start in (0, 5, 8)
    ]
    # "g h" are words 6 and 7: in the first window at 5 + 6, in the second at 5 + 1.
    assert chunk[1]["answer_start"].tolist() == [11, 6, 0]
    assert chunk[1]["answer_end"].tolist() == [12, 7, 0]
    assert chunk[1]["second"].tolist() == [5, 5, 5]


def test_an_answer_within_a_word_is_that_word():
    cells = {
        "question": ["q", "q"],
        "context": ["the 1990s-era house", "nothing"],
        "answers": [[{"text": "1990", "start": 4}], []],
    }
    chunk = QuestionEncoder(TOKENS, 100, stride=3).encode(cells, 0)
    start, end = (int(chunk[1][name][0]) for name in ("answer_start", "answer_end"))
    assert chunk[0]["token_ids"][0][start : end + 1].tolist() == ids("1990s")
    assert [int(chunk[1][name][1]) for name in ("answer_start", "answer_end")] == [0, 0]


@pytest.mark.parametrize("encoder", [TextEncoder, TagEncoder, QuestionEncoder])
def test_too_little_room_is_said(encoder):
    with pytest.raises(UsageError, match="max-length"):
        encoder(TOKENS, 4 if encoder is not TextEncoder else 2)


class Counted(PlainTexts):
    """Texts with a place in the cache, that count how often they are read."""

    fingerprint = "counted"
    reads = 0

    def column(self, name, rows=None):
        type(self).reads += 1
        return super().column(name, rows)


def test_the_second_time_comes_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TFSFT_CACHE", str(tmp_path))
    monkeypatch.setattr(encoding, "ROWS_PER_JOB", 3)
    texts = [f"text number {i} " + "x " * i for i in range(20)]
    source = Counted({"text": texts}, [str(i) for i in range(20)], ("a",))
    seen = []
    first = encode_source(source, TextEncoder(TOKENS, 16), lambda *done: seen.append(done))
    assert seen[-1] == (20, 20)
    assert Counted.reads == 7
    second = encode_source(source, TextEncoder(TOKENS, 16))
    assert Counted.reads == 7
    for row, text in enumerate(texts):
        expected = ([1, *ids(text)[:14], 2] + [0] * 16)[:16]
        for table in (first, second):
            assert table.padded("token_ids", np.array([row]), 16, 0)[0].tolist() == expected
    # Other settings are another table.
    assert encode_source(source, TextEncoder(TOKENS, 8)).lengths.max() == 8
    assert Counted.reads == 14


def test_what_was_killed_on_the_way_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("TFSFT_CACHE", str(tmp_path))
    source = Counted({"text": ["a"] * 2000}, ["0"] * 2000, ("a",))

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_source(source, TextEncoder(TOKENS, 16), stop)
    assert list((tmp_path / "tokens").iterdir()) == []
