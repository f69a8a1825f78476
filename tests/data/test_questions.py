"""Questions and answers: SQuAD, flat tables, and answers that are not where they should be."""

import json

import pytest

from tfsft.data.questions import load_questions
from tfsft.errors import UserError

CONTEXT = "In {n} the cat sat on the mat, and the dog sat on the log."


def rows(count=30):
    found = []
    for n in range(count):
        context = CONTEXT.format(n=n)
        found.append(
            {
                "id": f"q{n}",
                "question": f"Where did the cat sit in {n}?",
                "context": context,
                "answers": {"text": ["the mat"], "answer_start": [context.index("the mat")]},
            }
        )
    return found


def write_lines(path, found):
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return str(path)


def content(splits):
    return {
        name: [source.column(c) for c in ("question", "context", "answers", "id")]
        for name, source in splits.sources().items()
    }


def message(data, **options):
    with pytest.raises(UserError) as caught:
        load_questions(data, **options)
    assert caught.value.came
    assert caught.value.expected
    assert caught.value.fix
    return str(caught.value)


def test_the_sample_and_that_contexts_stay_together():
    splits = load_questions("sample")
    seen = {}
    unanswerable = 0
    for name, source in splits.sources().items():
        columns = (source.column(c) for c in ("context", "answers"))
        for context, answers, label in zip(*columns, source.labels, strict=True):
            assert seen.setdefault(context, name) == name
            assert label == bool(answers)
            unanswerable += not answers
            for answer in answers:
                assert context[answer["start"] :].startswith(answer["text"])
    assert len(seen) == 25
    assert len(splits.everything()) == 94
    assert unanswerable == 14
    assert splits.warnings == ()
    assert splits.class_names == ("no answer", "answer")


def test_flat_rows_and_squad_are_the_same(tmp_path):
    flat = load_questions(write_lines(tmp_path / "x.jsonl", rows()))
    listed = [
        row | {"answers": [{"text": "the mat", "start": row["context"].index("the mat")}]}
        for row in rows()
    ]
    paragraphs = [
        {
            "context": row["context"],
            "qas": [
                {
                    "id": row["id"],
                    "question": row["question"],
                    "answers": [
                        {"text": "the mat", "answer_start": row["answers"]["answer_start"][0]}
                    ],
                }
            ],
        }
        for row in rows()
    ]
    (tmp_path / "squad.json").write_text(
        json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]})
    )
    lines = ["id,question,context,answer"]
    lines += [f'{r["id"]},{r["question"]},"{r["context"]}",the mat' for r in rows()]
    (tmp_path / "x.csv").write_text("\n".join(lines))
    assert flat.warnings == ()  # that all have answers is no reason to warn
    for data in [
        write_lines(tmp_path / "y.jsonl", listed),
        tmp_path / "squad.json",
        tmp_path / "x.csv",
    ]:
        assert content(load_questions(str(data))) == content(flat)


def test_answers_a_little_off_are_mended_and_others_are_bad(tmp_path):
    found = rows(40)
    found[3]["answers"]["answer_start"] = [found[3]["answers"]["answer_start"][0] + 4]
    found[4]["answers"] = {"text": ["the mouse"], "answer_start": [5]}
    found[5]["answers"] = {"text": ["the log"], "answer_start": [0]}  # too far away
    data = write_lines(tmp_path / "x.jsonl", found)
    text = message(data)
    assert "q4 has the answer 'the mouse', not in its context near character 5" in text
    assert "q5 has the answer 'the log'" in text
    splits = load_questions(data, on_bad="skip")
    assert [example.id for example in splits.bad] == ["q4", "q5"]
    assert any(note.startswith("1 answers lay a few characters off") for note in splits.notes)
    everything = splits.everything()
    answers = dict(zip(everything.column("id"), everything.column("answers"), strict=True))
    assert answers["q3"] == [{"text": "the mat", "start": rows()[3]["context"].index("the mat")}]


def test_a_table_without_questions(tmp_path):
    data = write_lines(tmp_path / "x.jsonl", [{"text": "a", "label": "b"}] * 5)
    assert "has no column called question" in message(data)
