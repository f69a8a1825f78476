"""Damaged files of questions about texts."""

import json

from causes import BAD_QUESTIONS, MEND_LINE, damage, unusable, write

from tfsft import data

CONTEXT = "Ada was born in London in 1815."


def squad(folder, *more, context=CONTEXT):
    good = {
        "question": "Where was Ada born?",
        "answers": [{"text": "London", "answer_start": 16}],
    }
    paragraphs = [{"context": f"{n}. {CONTEXT}", "qas": [good | {"id": f"q{n}"}]} for n in range(8)]
    for paragraph in paragraphs:
        paragraph["qas"][0]["answers"] = [{"text": "London", "answer_start": 19}]
    paragraphs.append({"context": context, "qas": [good | {"id": "bad"} | row for row in more]})
    content = {"version": "v2.0", "data": [{"title": "Ada", "paragraphs": paragraphs}]}
    return write(folder, "questions.json", json.dumps(content))


@damage(
    data.load_questions,
    unusable(
        "1 of 9 questions in DIR/questions.json",
        "bad has the answer 'Paris', not in its context near character 16",
    ),
    *BAD_QUESTIONS,
)
def answer_that_is_not_there(folder):
    return squad(folder, {"answers": [{"text": "Paris", "answer_start": 16}]})


@damage(
    data.load_questions,
    unusable(
        "1 of 9 questions in DIR/questions.json",
        "bad has the answer '1815', not in its context near character 0",
    ),
    *BAD_QUESTIONS,
)
def answer_far_from_its_place(folder):
    return squad(folder, {"answers": [{"text": "1815", "answer_start": 0}]})


@damage(
    data.load_questions,
    unusable("1 of 9 questions in DIR/questions.json", "bad has an empty answer"),
    *BAD_QUESTIONS,
)
def answer_without_text(folder):
    return squad(folder, {"answers": [{"text": " ", "answer_start": 0}]})


@damage(
    data.load_questions,
    unusable(
        "1 of 9 questions in DIR/questions.json",
        "bad has the answer 'London', not in its context near character early",
    ),
    *BAD_QUESTIONS,
)
def answer_at_no_number(folder):
    return squad(folder, {"answers": [{"text": "London", "answer_start": "early"}]})


@damage(
    data.load_questions,
    unusable(
        "1 of 9 questions in DIR/questions.json",
        "bad has the answer 'London', not in its context near character inf",
    ),
    *BAD_QUESTIONS,
)
def answer_at_infinity(folder):
    return squad(folder, {"answers": [{"text": "London", "answer_start": float("inf")}]})


@damage(
    data.load_questions,
    unusable(
        "1 of 9 questions in DIR/questions.json", "bad has no answer, and is_impossible is not true"
    ),
    *BAD_QUESTIONS,
)
def no_answer_and_not_impossible(folder):
    return squad(folder, {"answers": []})


@damage(
    data.load_questions,
    unusable(
        "1 of 9 questions in DIR/questions.json", "bad has no answer, and is_impossible is not true"
    ),
    *BAD_QUESTIONS,
)
def answers_that_are_missing(folder):
    return squad(folder, {"answers": None})


@damage(
    data.load_questions,
    unusable(
        "1 of 9 questions in DIR/questions.json", "bad has the answer '7', not in its context"
    ),
    *BAD_QUESTIONS,
)
def answers_that_are_a_number(folder):
    return squad(folder, {"answers": 7})


@damage(
    data.load_questions,
    unusable("1 of 9 questions in DIR/questions.json", "bad has no question"),
    *BAD_QUESTIONS,
)
def question_that_is_missing(folder):
    return squad(folder, {"question": None})


@damage(
    data.load_questions,
    unusable("1 of 9 questions in DIR/questions.json", "bad has no question"),
    *BAD_QUESTIONS,
)
def question_that_is_a_number(folder):
    return squad(folder, {"question": 7})


@damage(
    data.load_questions,
    unusable("1 of 9 questions in DIR/questions.json", "bad has no context"),
    *BAD_QUESTIONS,
)
def context_that_is_missing(folder):
    return squad(folder, {}, context=None)


@damage(
    data.load_questions,
    "DIR/questions.json is not laid out as SQuAD is: 'list' object has no attribute 'get'.",
    'As SQuAD: {"data": [{"paragraphs": [{"context": "...", "qas": [{"question": '
    '"...", "answers": [{"text": "...", "answer_start": 0}]}]}]}]}',
    "Mend it.",
)
def article_that_is_a_list(folder):
    content = {"data": [{"paragraphs": [["a"]]}]}
    return write(folder, "questions.json", json.dumps(content))


@damage(
    data.load_questions,
    "DIR/questions.json is not laid out as SQuAD is: 'int' object has no attribute 'get'.",
    'As SQuAD: {"data": [{"paragraphs": [{"context": "...", "qas": [{"question": '
    '"...", "answers": [{"text": "...", "answer_start": 0}]}]}]}]}',
    "Mend it.",
)
def articles_that_are_numbers(folder):
    content = {"data": [{"paragraphs": []}, 7]}
    return write(folder, "questions.json", json.dumps(content))


@damage(
    data.load_questions,
    "DIR/questions.json has no questions.",
    'As SQuAD: {"data": [{"paragraphs": [{"context": "...", "qas": [{"question": '
    '"...", "answers": [{"text": "...", "answer_start": 0}]}]}]}]}',
    "Fill it.",
)
def squad_without_questions(folder):
    content = {"data": [{"title": "Ada", "paragraphs": [{"context": "Ada.", "qas": []}]}]}
    return write(folder, "questions.json", json.dumps(content))


@damage(
    data.load_questions,
    "DIR/questions.json has no column called question.",
    "Columns question, context and answers; there are: title.",
    "Rename the columns.",
)
def squad_without_paragraphs(folder):
    return write(folder, "questions.json", json.dumps({"data": [{"title": "Ada"}]}))


@damage(
    data.load_questions,
    "DIR/questions.json does not parse as JSON, line 1: Unterminated string "
    'starting at: {"version": "v2.0", "data": [{"title": "Ada", "paragraphs": '
    '[{"context": "0. ...',
    *MEND_LINE,
)
def squad_that_ends_early(folder):
    path = squad(folder)
    with open(path) as file:
        content = file.read()
    return write(folder, "questions.json", content[:-40])


@damage(
    data.load_questions,
    "DIR/questions.csv has no column called context.",
    "Columns question, context and answers; there are: question, answer.",
    "Rename the columns.",
)
def table_without_context(folder):
    return write(folder, "questions.csv", "question,answer\nWho?,Ada\n")


@damage(
    data.load_questions,
    unusable(
        "1 of 7 questions in DIR/questions.csv",
        "questions.csv:8 has the answer 'Kurt', not in its context",
    ),
    *BAD_QUESTIONS,
)
def question_table_with_another_answer(folder):
    text = "question,context,answer\n" + "".join(f"Who {n}?,Ada {n},Ada\n" for n in range(6))
    return write(folder, "questions.csv", f"{text}Who?,Ada was born.,Kurt\n")


@damage(
    data.load_questions,
    unusable(
        "1 of 9 questions in DIR/questions.json",
        "questions.json:9 has half a character (a surrogate)",
    ),
    *BAD_QUESTIONS,
)
def question_with_half_a_character(folder):
    return squad(folder, {"question": "Where \ud83d?"})
