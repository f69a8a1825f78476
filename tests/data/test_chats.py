"""Conversations from files to splits: system prompts, groups, bad rows, what is shipped."""

import csv
import itertools
import json

import pytest

from tfsft import data
from tfsft.data.chat_prompts import check_placeholders
from tfsft.errors import UsageError, UserError


def chat(prompt, answer, system=None):
    found = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return [{"role": "system", "content": system}, *found] if system else found


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def rows(count=40):
    return [{"messages": chat(f"q{n}", f"a{n}"), "goal": f"g{n}"} for n in range(count)]


def content(splits):
    return {name: source.column("messages") for name, source in splits.sources().items()}


def prompts(source):
    return {
        next(m["content"] for m in messages if m["role"] == "user")
        for messages in source.column("messages")
    }


def message(given, **options):
    with pytest.raises(UserError) as caught:
        data.load_chats(given, **options)
    assert caught.value.came
    assert caught.value.expected
    assert caught.value.fix
    return str(caught.value)


def test_formats_give_the_same_splits(tmp_path):
    first = data.load_chats(write(tmp_path / "x.jsonl", rows()))
    assert [len(source) for source in first.sources().values()] == [32, 4, 4]
    assert first.class_names == ()
    assert first.warnings == ()
    assert first.notes == (
        "Conversations are column 'messages' of x.jsonl (UTF-8); not used: goal.",
    )
    with open(tmp_path / "x.csv", "w", newline="") as file:
        csv.writer(file).writerows([("q", "a"), *((f"q{n}", f"a{n}") for n in range(40))])
    second = data.load_chats(str(tmp_path / "x.csv"))
    assert content(second) == content(first)
    assert first.fingerprint == second.fingerprint
    assert sorted(second.everything().ids)[0] == "x.csv:10"
    assert "x.csv:41" in list(second.everything().ids)
    assert content(data.load_chats(str(tmp_path / "x.csv"), seed=1)) != content(first)
    assert len(data.load_chats(str(tmp_path / "x.csv"), limit=20).everything()) == 20


def test_a_question_with_several_answers_stays_on_one_side(tmp_path):
    path = write(
        tmp_path / "x.jsonl",
        [{"messages": chat(f"q{n // 4}", f"a{n}", f"s{n % 3}")} for n in range(120)],
    )
    splits = data.load_chats(path)
    for one, other in itertools.combinations(splits.sources().values(), 2):
        assert not prompts(one) & prompts(other)
    assert len(splits.everything()) == 120


def test_groups_and_questions_stay_on_one_side_together(tmp_path):
    given = [
        {"prompt": prompt, "answer": f"a{customer}", "customer": f"c{customer}"}
        for n in range(40)
        # Two customers ask the same question, and one of them asks another.
        for prompt, customer in [(f"q{n}", 2 * n), (f"q{n}", 2 * n + 1), (f"r{n}", 2 * n)]
    ]
    splits = data.load_chats(write(tmp_path / "x.jsonl", given), group_column="customer")
    side = {}
    for name, source in splits.sources().items():
        for row in source.ids:
            cells = given[int(row.split(":")[1]) - 1]
            assert side.setdefault(cells["prompt"], name) == name
            assert side.setdefault(cells["customer"], name) == name
    assert len(splits.sources()) == 3


def test_own_files_lose_copies_from_training(tmp_path):
    train = [*rows(), {"messages": chat("v1", "other answer")}]
    write(tmp_path / "train.jsonl", [*train, {"messages": chat("v0", "w")}])
    write(tmp_path / "validation.jsonl", [{"messages": chat(f"v{n}", "w")} for n in range(5)])
    write(tmp_path / "test.jsonl", [{"messages": chat(f"t{n}", "w")} for n in range(5)])
    splits = data.load_chats(str(tmp_path))
    assert [len(source) for source in splits.sources().values()] == [41, 5, 5]
    assert any("1 training examples are also in validation" in w for w in splits.warnings)
    assert any(
        "1 training conversations begin with the same question" in w and "train.jsonl:41" in w
        for w in splits.warnings
    )
    (tmp_path / "validation.jsonl").unlink()
    splits = data.load_chats(str(tmp_path))
    assert len(splits.validation) == 4
    assert len(splits.test) == 5
    assert splits.warnings == ()


def test_bad_rows(tmp_path):
    given = rows()
    given[2] = {"messages": [{"role": "user", "content": "q"}]}
    given[5]["messages"][1]["content"] = ""
    path = write(tmp_path / "x.jsonl", given)
    with open(path, "a") as file:
        file.write("\n{broken\n")
    text = message(path)
    assert "3 of 41 conversations" in text
    unusable = write(tmp_path / "y.jsonl", given[2:3])
    assert "y.jsonl:1 has no answer" in message(unusable, on_bad="list")
    assert "x.jsonl:3 has no answer" in text
    assert "x.jsonl:6 has an empty answer (message 2)" in text
    assert "x.jsonl:42 does not parse as JSON: {broken" in text
    splits = data.load_chats(path, on_bad="skip")
    assert [bad.id for bad in splits.bad] == ["x.jsonl:3", "x.jsonl:6", "x.jsonl:42"]
    assert len(splits.everything()) == 38


def test_what_was_mended_is_counted(tmp_path):
    given = rows()
    given[1]["messages"].append({"role": "user", "content": "more?"})
    given[2]["messages"].insert(0, {"role": "assistant", "content": "Welcome"})
    given[3]["messages"].insert(0, {"role": "user", "content": "Oh"})
    given[4]["messages"][1]["weight"] = 0
    notes = data.load_chats(write(tmp_path / "x.jsonl", given)).notes
    assert [note.split(" conversations")[0] for note in notes[1:]] == ["1"] * 4
    for part in ["joined", "begin with the assistant", "end with a message", "weight 0"]:
        assert any(part in note for note in notes), part


def test_system_prompt_from_columns(tmp_path):
    given = rows()
    given[0]["messages"] = chat("q0", "a0", "my own")
    given[1]["goal"] = None
    path = write(tmp_path / "x.jsonl", given)
    splits = data.load_chats(path, system_prompt="Goal: {goal}. {{kept}}")
    assert splits.notes[0] == "Conversations are column 'messages' of x.jsonl (UTF-8)."
    everything = splits.everything()
    found = dict(zip(everything.ids, everything.column("messages"), strict=True))
    assert found["x.jsonl:1"][0] == {"role": "system", "content": "my own"}
    assert found["x.jsonl:2"][0]["content"] == "Goal: . {kept}"
    assert found["x.jsonl:3"][0] == {"role": "system", "content": "Goal: g2. {kept}"}
    assert found["x.jsonl:3"][1:] == chat("q2", "a2")
    assert any("1 conversations have a system message of their own" in n for n in splits.notes)
    other = data.load_chats(path, system_prompt="Goal: {goal}!")
    assert other.fingerprint != splits.fingerprint
    # The sides depend on the question and not on the prompt.
    assert list(other.test.ids) == list(splits.test.ids)
    assert "Did you mean 'goal'" in message(path, system_prompt="{gaol}")
    prompt = tmp_path / "persona.txt"
    prompt.write_text("You are {goal}.\n")
    filled = data.load_chats(path, system_prompt=str(prompt)).train.column("messages")[3]
    assert filled[0]["content"].startswith("You are g")


def test_prompts():
    assert data.fill_prompt("{a} {{a}} {b}", {"a": "{b}", "b": 1.0}) == "{b} {a} 1"
    assert data.fill_prompt("{a}", {"a": ["x", 2]}) == "x, 2"
    assert data.placeholders("{b} {{c}} { a } {b}") == ["b", "a"]
    assert data.fill_prompt("no braces", {}) == "no braces"
    for wrong in ["a { b", "a } b", "{}"]:
        with pytest.raises(UsageError, match="brace that encloses no name"):
            data.placeholders(wrong)
    with pytest.raises(UsageError, match="there is no column 'x'"):
        data.fill_prompt("{x}", {"y": 1})
    check_placeholders("{x}", ["x"])
    assert data.read_prompt("You are kind.") == "You are kind."
    assert data.read_prompt("") == ""
    with pytest.raises(UsageError, match="no such file"):
        data.read_prompt("persona.txt")


@pytest.mark.parametrize("given", ["chatterbot", "chatterbot:italian"])
def test_chatterbot(given):
    splits = data.load_chats(given)
    assert splits.warnings == ()
    chats = [tuple(map(str, m)) for m in splits.everything().column("messages")]
    assert len(set(chats)) == len(chats)
    for one, other in itertools.combinations(splits.sources().values(), 2):
        assert not prompts(one) & prompts(other)
    if given == "chatterbot":
        everything = splits.everything().column("messages")
        assert max(map(len, everything)) > 10
        # Lines of this file are answers to its first one.
        assert chat("What is a microprocessor?", "The brain of a computer, to put it simply.") in (
            everything
        )


def test_names_that_are_not_there(tmp_path):
    assert "Did you mean 'italian'" in message("chatterbot:italien")
    assert "Did you mean 'chatterbot'?" in message(str(tmp_path / "chaterbot"))
    assert "Did you mean 'prompt'" in message(
        write(tmp_path / "x.jsonl", [{"prompt": "a", "answer": "b"}] * 9), prompt_column="promt"
    )


def test_shipped_questions():
    said = []
    sources = [data.read_chats(name, say=said.append) for name in ("general", "general-replay")]
    assert [len(source) for source in sources] == [60, 158]
    assert not prompts(sources[0]) & prompts(sources[1])
    assert sum(map(len, map(prompts, sources))) == 218
    assert sources[0].ids[0] == "general.jsonl:1"
    assert len(said) == 2


def test_one_file_in_its_order(tmp_path):
    path = write(tmp_path / "x.jsonl", [*rows(30), {"messages": []}])
    with pytest.raises(UserError, match="has a 'messages' that is empty"):
        data.read_chats(path)
    said = []
    source = data.read_chats(path, on_bad="skip", limit=7, say=said.append)
    assert source.column("messages") == [chat(f"q{n}", f"a{n}") for n in range(7)]
    assert "1 rows" in said[-1]


def test_questions_for_a_finished_model(tmp_path):
    (tmp_path / "one.csv").write_text('prompt\n"Well, hello"\nBye\n')
    chats, ids = data.read_questions(str(tmp_path / "one.csv"), system_prompt="Be kind.")
    assert [m["content"] for m in chats[0]] == ["Be kind.", "Well, hello"]
    assert ids == ["one.csv:2", "one.csv:3"]
    path = write(tmp_path / "x.jsonl", [{"messages": [*chat("a", "b"), *chat("c", "d")[:1]]}])
    assert [m["content"] for m in data.read_questions(path)[0][0]] == ["a", "b", "c"]
    with pytest.raises(UserError, match="row 1 ends with an answer"):
        data.read_questions(write(tmp_path / "y.jsonl", rows()))


def test_tfds(tmp_path):
    import tensorflow_datasets as tfds

    class TinyChats(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """Conversations as ShareGPT has them."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            text = tfds.features.Text()
            features = {
                "conversations": tfds.features.Sequence({"from": text, "value": text}),
                "topic": text,
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
            )

        def _split_generators(self, _):
            return {"train": self._generate_examples("r"), "test": self._generate_examples("t")}

        def _generate_examples(self, name):
            for n in range(20):
                said = [{"from": "human", "value": f"{name}{n}"}, {"from": "gpt", "value": "yes"}]
                yield n, {"conversations": said, "topic": f"topic {n}"}

    TinyChats(data_dir=str(tmp_path)).download_and_prepare()
    splits = data.load_chats(
        "tfds:tiny_chats", tfds_dir=str(tmp_path), system_prompt="About {topic}."
    )
    assert [len(source) for source in splits.sources().values()] == [18, 2, 20]
    assert splits.test.column("messages")[3] == chat("t3", "yes", "About topic 3.")


def test_a_file_with_the_name_of_what_is_shipped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chatterbot").mkdir()
    assert any("give ./chatterbot" in w for w in data.load_chats("chatterbot").warnings)
