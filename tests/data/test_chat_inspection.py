"""A look at conversations: counts, lengths, copies and questions with several answers."""

import json

from tfsft import data


def load(tmp_path, chats, **options):
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
    return data.load_chats(str(path), **options)


def chat(*texts):
    roles = ("user", "assistant")
    return [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]


def test_counts_lengths_and_problems(tmp_path):
    chats = [chat(f"question {n:02}", f"answer {n:02}") for n in range(40)]
    chats.append(chats[3])  # line 41
    chats.append(chat("question 05", "another answer"))
    chats.append(chat("one", "two", "three", "four!"))
    chats.append(chat("caf\u00c3\u00a9", "ok"))
    chats.append(chat("Polly", "polly"))
    system = {"role": "system", "content": "s"}
    chats.append([system, *chat("question 07", "a different answer")])
    chats.append(chat("no answer"))
    found = data.inspect(load(tmp_path, chats, on_bad="list"))
    assert sum(part[""] for part in found.counts.values()) == 46
    assert found.messages == {"system": 1, "user": 47, "assistant": 47}
    assert found.turns == (1, 1, 2)
    assert found.characters["user"] == (3, 11, 11)
    assert found.characters["assistant"] == (2, 9, 18)
    assert found.systems == (1, 1)
    assert [set(ids) for ids in found.duplicates] == [{"x.jsonl:4", "x.jsonl:41"}]
    # Under another system message it is another question.
    assert [set(ids) for ids in found.several_answers] == [{"x.jsonl:6", "x.jsonl:42"}]
    assert found.garbled == ("x.jsonl:44",)
    assert found.echoes == ("x.jsonl:45",)
    assert [bad.id for bad in found.bad] == ["x.jsonl:47"]
    assert found.leaks == ()
    problems = " ".join(found.problems())
    for part in ["exact copies", "different answers", "wrong encoding", "repeats", "has no answer"]:
        assert part in problems
    assert any("1 conversations have a system message" in line for line in found.summary())
    assert any("1 to 2" in line for line in found.summary())


def test_nothing_to_say(tmp_path):
    splits = load(tmp_path, [chat(f"one two {n}", "three") for n in range(60)])
    calls = []
    found = data.inspect(splits, progress=lambda done, total: calls.append((done, total)))
    assert found.problems() == []
    assert calls[-1] == (60, 60)
    assert "No conversation has a system message." in found.summary()
