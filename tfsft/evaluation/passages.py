"""What the report shows of a text: all of a short one, the telling part of a long one, marked."""

import itertools
from collections.abc import Sequence
from typing import Any

from tfsft.evaluation.predictions import Prediction, Span

LONG = 600  # characters; what is longer is folded away
LONGEST = 20_000  # what is longer still is in predictions.csv only
AROUND = 140  # characters before and after a marked place

# A piece of a text: the words, what their mark stands for ("" for none), and its label.
Piece = dict[str, str]


def passages(row: Prediction, kind: str) -> dict[str, Any]:
    """Returns the text of an example as pieces for the report.

    Args:
        row: The example.
        kind: As in task.json; entities are shown twice, as they are and as the model says.

    Returns:
        `question` where there is one; `passages`, a list of `name` ("is", "said" or ""), `pieces`
        and, of a long text, `whole` (its pieces up to `LONGEST`), `length` and `left_out`
        (characters beyond that).
    """
    if kind == "answers":
        question, context = ([*row.text.split("\n", 1), ""])[:2]
        shift = len(question) + 1
        right, said = (
            [(start - shift, end - shift) for start, end, _ in spans if start >= shift]
            for spans in (row.label_spans, row.prediction_spans)
        )
        pieces = _answer_pieces(context, right, said)
        return {"question": question, "passages": [_passage("", context, pieces, right + said)]}
    if kind == "tags":
        wrong = set(row.label_spans) ^ set(row.prediction_spans)
        places = [(start, end) for start, end, _ in sorted(wrong)]
        return {
            "passages": [
                _passage(name, row.text, _entity_pieces(row.text, spans, wrong), places)
                for name, spans in (("is", row.label_spans), ("said", row.prediction_spans))
            ]
        }
    if kind == "chat":
        return {
            "question": row.text,
            "passages": [
                _passage(name, text, [_piece(text)], [])
                for name, text in (("is", str(row.label)), ("said", str(row.prediction)))
            ],
        }
    return {"passages": [_passage("", row.text, [_piece(row.text)], [])]}


def _piece(words: str, mark: str = "", label: str = "") -> Piece:
    return {"words": words, "mark": mark, "label": label}


def _entity_pieces(text: str, spans: Sequence[Span], wrong: set[Span]) -> list[Piece]:
    pieces, place = [], 0
    for span in spans:
        start, end, type_ = span
        if start < place:  # entities of one text do not overlap; were they to, none is lost
            continue
        pieces += [
            _piece(text[place:start]),
            _piece(text[start:end], "wrong" if span in wrong else "right", type_),
        ]
        place = end
    return [*pieces, _piece(text[place:])]


def _answer_pieces(
    text: str, right: Sequence[tuple[int, int]], said: Sequence[tuple[int, int]]
) -> list[Piece]:
    """Returns a text cut wherever the right answer or the model's begins or ends."""
    ends = sorted({0, len(text), *(end for span in (*right, *said) for end in span)})
    pieces = []
    for start, end in itertools.pairwise(ends):
        is_right, is_said = (any(a <= start < b for a, b in spans) for spans in (right, said))
        mark = {(True, True): "both", (True, False): "right", (False, True): "wrong"}
        pieces.append(_piece(text[start:end], mark.get((is_right, is_said), "")))
    return pieces


def _passage(
    name: str, text: str, pieces: Sequence[Piece], places: Sequence[tuple[int, int]]
) -> dict[str, Any]:
    if len(text) <= LONG:
        return {"name": name, "pieces": _cut(pieces, [(0, len(text))])}
    return {
        "name": name,
        "pieces": _cut(pieces, _windows(len(text), places)),
        "whole": _cut(pieces, [(0, min(LONGEST, len(text)))]),
        "length": len(text),
        "left_out": max(0, len(text) - LONGEST),
    }


def _windows(length: int, places: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Returns which parts of a long text to show: around the first places, else its beginning."""
    windows: list[tuple[int, int]] = []
    for start, end in sorted(places):
        start, end = max(0, start - AROUND), min(length, end + AROUND)
        if windows and start <= windows[-1][1]:
            before = windows.pop()
            start, end = before[0], max(end, before[1])
        windows.append((start, min(end, start + 2 * LONG)))
    sizes = itertools.accumulate(end - start for start, end in windows)
    fitting = sum(size <= LONG for size in sizes)
    return windows[: max(1, fitting)] or [(0, LONG)]


def _cut(pieces: Sequence[Piece], windows: Sequence[tuple[int, int]]) -> list[Piece]:
    """Returns what of the pieces lies in the windows, with dots for what is left out."""
    cut, length = [], sum(len(piece["words"]) for piece in pieces)
    last = 0
    for begin, end in windows:
        if begin > last:
            cut.append(_piece(" … " if cut else "… "))
        place = 0
        for piece in pieces:
            words = piece["words"][max(0, begin - place) : max(0, end - place)]
            place += len(piece["words"])
            if words:
                cut.append({**piece, "words": words})
        last = end
    return [*cut, _piece(" …")] if last < length else cut
