"""Damaged files of tagged words."""

import json

from causes import BAD_TAGS, ENCODE, UNPACK, damage, unusable, write

from tfsft import data

NAMES = "".join(f"Ada{n} B-PER\nlives O\nin O\nBonn{n} B-LOC\n. O\n\n" for n in range(8))


def conll(folder, more, text=NAMES):
    return write(folder, "names.conll", text + more)


@damage(data.load_tags, "DIR/names.conll is empty.", "A word and its tag in each line.", "Fill it.")
def tags_of_no_bytes(folder):
    return conll(folder, "", "")


@damage(data.load_tags, "DIR/names.conll is empty.", "A word and its tag in each line.", "Fill it.")
def tags_of_empty_lines(folder):
    return conll(folder, "\n\n \n", "")


@damage(
    data.load_tags,
    unusable(
        "1 of 9 sentences in DIR/names.conll",
        "names.conll:49 has 3 columns and not 2 in line 49: Ada NNP B-PER",
    ),
    *BAD_TAGS,
)
def tags_with_a_column_too_many(folder):
    return conll(folder, "Ada NNP B-PER\nlives O\n")


@damage(
    data.load_tags,
    unusable("1 of 9 sentences in DIR/names.conll", "names.conll:49 has no tag in line 50: lives"),
    *BAD_TAGS,
)
def tag_missing(folder):
    return conll(folder, "Ada B-PER\nlives\n")


@damage(
    data.load_tags,
    unusable("1 of 9 sentences in DIR/names.conll", "names.conll:49 has no tag in line 49: B-PER"),
    *BAD_TAGS,
)
def word_missing(folder):
    return conll(folder, " B-PER\nlives O\n")


@damage(
    data.load_tags,
    unusable("1 of 9 sentences in DIR/names.conll", "names.conll:49 has an empty word"),
    *BAD_TAGS,
)
def word_missing_before_a_tab(folder):
    return conll(folder, "\tB-PER\nlives\tO\n", NAMES.replace(" ", "\t"))


@damage(
    data.load_tags,
    unusable(
        "1 of 9 sentences in DIR/names.conll", "names.conll:49 has no tag in line 49: Ada B-PER"
    ),
    *BAD_TAGS,
)
def space_instead_of_tab(folder):
    return conll(folder, "Ada B-PER\nlives\tO\n", NAMES.replace(" ", "\t"))


@damage(
    data.load_tags,
    "The tags follow no known scheme: PER beside B-LOC, B-PER.",
    "O and tags marked B-, I- (IOB2), with L-, U- (BILOU) or E-, S- (IOBES); or no marks.",
    "Correct these tags.",
)
def tag_outside_of_the_scheme(folder):
    return conll(folder, "Ada PER\nlives O\n")


@damage(
    data.load_tags,
    "The tags follow no known scheme: B-LOC, B-PER, E-PER, U-PER.",
    "O and tags marked B-, I- (IOB2), with L-, U- (BILOU) or E-, S- (IOBES); or no marks.",
    "Correct these tags.",
)
def tags_of_two_schemes(folder):
    return conll(folder, "Ada U-PER\nKing E-PER\n")


@damage(
    data.load_tags,
    unusable(
        "1 of 9 sentences in DIR/names.conll",
        "names.conll:49 is not valid IOB2: line 50, 'King I-PER', follows 'the O'; a "
        "span begins with B- (IOB1 is not read)",
    ),
    *BAD_TAGS,
)
def span_without_beginning(folder):
    return conll(folder, "the O\nKing I-PER\n")


@damage(
    data.load_tags,
    unusable(
        "1 of 9 sentences in DIR/names.conll",
        "names.conll:49 is not valid BILOU: line 50, 'King I-PER', leaves a span open",
    ),
    *BAD_TAGS,
)
def span_without_end(folder):
    text = NAMES.replace("B-", "U-")
    return conll(folder, "Ada B-PER\nKing I-PER\n", text)


@damage(data.load_tags, "DIR/names.conll is no text but binary data.", *UNPACK)
def tags_in_a_binary_file(folder):
    return conll(folder, "Ada\0 B-PER\n")


@damage(
    data.load_tags,
    unusable(
        "1 of 2 sentences in DIR/names.conll",
        "names.conll:3 has 2 columns and not 4 in line 3: Kurt too",
    ),
    *BAD_TAGS,
)
def sentences_without_tags(folder):
    return conll(folder, "", "Ada lives in Bonn\n\nKurt too\n")


@damage(
    data.load_tags,
    "Too few different sentences in DIR/names.conll to split them: all of them.",
    "At least 3 different sentences of each class, one for every split.",
    "Add sentences, remove these classes, or make fewer splits: --test-fraction 0.",
)
def one_sentence(folder):
    return conll(folder, "", "Ada B-PER\nlives O\n")


@damage(
    data.load_tags,
    "DIR/names.conll is text in an encoding that is not known, or ends early.",
    *ENCODE,
)
def tags_in_half_utf_16(folder):
    return write(folder, "names.conll", NAMES.encode("utf-16")[:-1])


@damage(
    data.load_tags,
    unusable("1 of 2 sentences in DIR/names.conll", "names.conll:1 has no tag in line 2: lives"),
    *BAD_TAGS,
)
def only_tags_outside_of_spans(folder):
    return conll(folder, "Ada B-PER\nlives\n\nAda O\nlives O\n", "")


@damage(
    data.load_tags,
    "DIR/names.conll holds no tagged sentences.",
    "A tag on each word.",
    "Check the file.",
)
def no_tags_but_outside(folder):
    return conll(folder, "Ada O\nlives O\n\n" * 4, "")


def rows(folder, *found):
    good = [{"tokens": [f"Ada{n}", "lives"], "ner_tags": ["B-PER", "O"]} for n in range(8)]
    text = "".join(json.dumps(row) + "\n" for row in [*good, *found])
    return write(folder, "names.jsonl", text)


@damage(
    data.load_tags,
    unusable("1 of 9 sentences in DIR/names.jsonl", "names.jsonl:9 has 2 words and 1 tags"),
    *BAD_TAGS,
)
def more_words_than_tags(folder):
    return rows(folder, {"tokens": ["Ada", "lives"], "ner_tags": ["B-PER"]})


@damage(
    data.load_tags,
    unusable("1 of 9 sentences in DIR/names.jsonl", "names.jsonl:9 has an empty word"),
    *BAD_TAGS,
)
def empty_word(folder):
    return rows(folder, {"tokens": ["Ada", ""], "ner_tags": ["B-PER", "O"]})


@damage(
    data.load_tags,
    unusable("1 of 9 sentences in DIR/names.jsonl", "names.jsonl:9 has no words"),
    *BAD_TAGS,
)
def null_as_words(folder):
    return rows(folder, {"tokens": None, "ner_tags": ["B-PER", "O"]})


@damage(
    data.load_tags,
    unusable("1 of 9 sentences in DIR/names.jsonl", "names.jsonl:9 has no tags"),
    *BAD_TAGS,
)
def null_as_tags(folder):
    return rows(folder, {"tokens": ["Ada", "lives"], "ner_tags": None})


@damage(
    data.load_tags,
    unusable("1 of 9 sentences in DIR/names.jsonl", "names.jsonl:9 has an empty tag"),
    *BAD_TAGS,
)
def null_as_a_tag(folder):
    return rows(folder, {"tokens": ["Ada", "lives"], "ner_tags": ["B-PER", None]})


@damage(
    data.load_tags,
    "DIR/names.jsonl has no column that is clearly the one with lists of tags.",
    "A column called ner_tags, tags, labels, ner or the like; there are: ner_tags, x.",
    "Name it with --label-column.",
)
def tags_without_words(folder):
    return write(folder, "names.jsonl", '{"ner_tags": ["O"], "x": 1}\n' * 3)


def spans(folder, *found, text="Ada lives in Bonn."):
    good = [{"text": f"Ada{n} lives.", "spans": [[0, 4, "PER"]]} for n in range(8)]
    keys = ("start", "end", "label")
    content = [
        row | {"spans": [dict(zip(keys, span, strict=False)) for span in row["spans"]]}
        for row in [*good, {"text": text, "spans": list(found)}]
    ]
    return write(folder, "names.jsonl", "".join(json.dumps(row) + "\n" for row in content))


@damage(
    data.load_tags,
    unusable(
        "1 of 9 sentences in DIR/names.jsonl",
        "names.jsonl:9 has a span 'Ad' that cuts a word: ... Ada lives in Bonn. ...",
    ),
    *BAD_TAGS,
)
def span_that_cuts_a_word(folder):
    return spans(folder, (0, 2, "PER"))


@damage(
    data.load_tags,
    unusable(
        "1 of 9 sentences in DIR/names.jsonl",
        "names.jsonl:9 has a span 13 to 99, but 18 characters",
    ),
    *BAD_TAGS,
)
def span_beyond_the_text(folder):
    return spans(folder, (13, 99, "LOC"))


@damage(
    data.load_tags,
    unusable(
        "1 of 9 sentences in DIR/names.jsonl",
        "names.jsonl:9 has a span 'Ada lives' that overlaps another one",
    ),
    *BAD_TAGS,
)
def spans_that_overlap(folder):
    return spans(folder, (0, 3, "PER"), (0, 9, "LOC"))


@damage(
    data.load_tags,
    unusable(
        "1 of 9 sentences in DIR/names.jsonl",
        "names.jsonl:9 has a span without start, end and label: {'start': 0, 'end': 3, "
        "'label': None}",
    ),
    *BAD_TAGS,
)
def span_without_label(folder):
    return spans(folder, (0, 3))


@damage(
    data.load_tags,
    unusable("1 of 9 sentences in DIR/names.jsonl", "names.jsonl:9 has no text"),
    *BAD_TAGS,
)
def span_of_no_text(folder):
    return spans(folder, (0, 3, "PER"), text=" ")
