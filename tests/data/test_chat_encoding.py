"""Chat templates and what is learned of conversations; expected strings are those of transformers'
`apply_chat_template` on the same templates.
"""

import itertools
import json

import numpy as np
import pytest
from chat_families import CONTROL, TEMPLATE, byte_pairs
from stateful import stateful_operations

from tfsft.data import TEMPLATES, ChatEncoder, TextFeed, chat_feed, choose_template, read_chats
from tfsft.data.chat_templates import ChatTemplate
from tfsft.data.packing import pack
from tfsft.data.text_feed import shared_start
from tfsft.errors import UserError
from tfsft.models.chat_tokenizer import from_hugging_face

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " Hi <|im_end|> "},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "More"},
    {"role": "assistant", "content": "Yes."},
]
# A template that trims, refuses a system message, and ends turns with the end of the text.
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'system' %}{{ raise_exception('no') }}"
    "{% elif m['role'] == 'user' %}{{ '[INST] ' + m['content'] | trim + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)


@pytest.fixture(scope="module")
def tokenizer():
    options = {"eos_token": CONTROL[2], "pad_token": CONTROL[2], "unk_token": CONTROL[0]}
    return from_hugging_face(json.loads(byte_pairs().to_str()), options, "tiny")


def text(pieces):
    return "".join(piece.text for piece in pieces)


def test_a_rendering_is_that_of_transformers(tokenizer):
    template = choose_template("auto", TEMPLATE, tokenizer)
    assert text(template.pieces(TALK)) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\n Hi <|im_end|> <|im_end|>\n"
        "<|im_start|>assistant\nHello!<|im_end|>\n"
        "<|im_start|>user\nMore<|im_end|>\n"
        "<|im_start|>assistant\nYes.<|im_end|>\n"
    )
    assert text(template.pieces(TALK[:4], generate=True)).endswith(
        "<|im_start|>user\nMore<|im_end|>\n<|im_start|>assistant\n"
    )
    assert template.ends == ("<|im_end|>",)


def test_a_template_that_trims_and_takes_no_system_message():
    template = ChatTemplate(MISTRAL, control=["<s>", "</s>"], begin="<s>", end="</s>")
    assert text(template.pieces(TALK)) == (
        "<s>[INST] Be brief.\n\nHi <|im_end|> [/INST] Hello! </s>[INST] More [/INST] Yes. </s>"
    )
    answers = [(p.text, p.control) for p in template.pieces(TALK) if p.answer == 4]
    # What stands between the prompt and its answer is what the model has to write.
    assert answers == [(" ", False), ("Yes.", False), (" ", False), ("</s>", True)]
    assert text(template.pieces(TALK[:4], generate=True)).endswith("[INST] More [/INST]")


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_ends_its_answers(tokenizer, name):
    template = choose_template(name, None, tokenizer)
    pieces = template.pieces(TALK)
    for number in (2, 4):
        answer = [piece for piece in pieces if piece.answer == number]
        assert text(answer[:1]) == TALK[number]["content"]
        assert answer[-1].control
        assert answer[-1].text in template.ends
    prompt = text(template.pieces(TALK[:4], generate=True))
    assert text(pieces).startswith(prompt)
    assert prompt.count("Be brief.") == prompt.count("More") == 1


def test_templates_run_in_a_sandbox():
    for source in (
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% include '/etc/passwd' %}",
        "{% for i in range(10**9) %}x{% endfor %}",
        "{{ messages.append(1) }}",
    ):
        with pytest.raises(UserError, match="refuses a conversation"):
            ChatTemplate(source).pieces(TALK)
    with pytest.raises(UserError, match="no Jinja template"):
        ChatTemplate("{% for %}")
    with pytest.raises(UserError, match="leaves the assistant's last answer out"):
        ChatTemplate("{{ messages[0]['content'] }}").pieces(TALK)


@pytest.mark.parametrize(
    ("train_on", "expected"),
    [
        ("completion", ["Hello!<|im_end|>", "Yes.<|im_end|>"]),
        ("last", ["Yes.<|im_end|>"]),
        ("all", None),
    ],
)
def test_what_is_learned(tokenizer, train_on, expected):
    template = choose_template("chatml", None, tokenizer)
    encoder = ChatEncoder(tokenizer, template, 512, train_on=train_on)
    columns, rows, facts = encoder.encode({"messages": [TALK]}, 0)
    ids, targets = columns["token_ids"].values, columns["targets"].values
    # A target is the token that follows.
    learned = targets >= 0
    np.testing.assert_array_equal(targets[:-1][learned[:-1]], ids[1:][learned[:-1]])
    if expected is None:
        assert learned.all()
    else:
        spans = np.split(targets, np.flatnonzero(np.diff(learned.astype(int))) + 1)
        said = [tokenizer.decode(span, control=True) for span in spans if span[0] >= 0]
        assert said == expected
    assert facts["trained"] == rows["trained"][0] == learned.sum()
    # The text of a person forges no control token.
    assert (ids == tokenizer.control["<|im_end|>"]).sum() == 5
    prompt = encoder.prompt(TALK[:4])
    assert ids[: len(prompt)].tolist() == prompt
    assert encoder.stop == (tokenizer.control["<|im_end|>"],)


def write(path, answers):
    import json

    with open(path, "w") as file:
        for i, answer in enumerate(answers):
            row = {"prompt": f"Question {i}?", "completion": answer}
            file.write(json.dumps(row) + "\n")
    return str(path)


def test_batches_have_targets_as_inputs(tokenizer, tmp_path):
    source = read_chats(write(tmp_path / "a.jsonl", ["yes", "no way, never", "maybe"]))
    encoder = ChatEncoder(tokenizer, choose_template("chatml", None, tokenizer), 128)
    feed = TextFeed(source, encoder)
    assert stateful_operations(feed.pipeline(2).epoch()) == set()
    (batch,) = feed.pipeline(4).epoch()
    inputs, y, weights = (part for part in batch)
    assert set(inputs) == {"token_ids", "padding_mask", "targets"}
    np.testing.assert_array_equal(weights.numpy() > 0, inputs["targets"].numpy() >= 0)
    assert y.shape == weights.shape == inputs["targets"].shape
    assert weights.numpy()[3].sum() == 0  # filler
    assert weights.numpy().sum() == feed.table.facts["trained"]


def test_packed_rows_hold_every_conversation_once(tokenizer, tmp_path):
    answers = ["yes " * (1 + i % 5) for i in range(30)]
    source = read_chats(write(tmp_path / "a.jsonl", answers))
    encoder = ChatEncoder(tokenizer, choose_template("chatml", None, tokenizer), 128)
    single = TextFeed(source, encoder)
    rows = [single.table.padded("token_ids", np.array([i]), int(n), 0)[0].tolist()
            for i, n in enumerate(single.table.lengths)]  # fmt: skip
    feed = TextFeed(source, encoder)
    pipeline = feed.pipeline(4, packing=True, shuffle=True, seed=3)
    found, tokens, places = [], 0, 0
    for inputs, _, weights in pipeline.epoch(1):
        for ids, segments, targets, weight in zip(
            inputs["token_ids"].numpy(),
            inputs["padding_mask"].numpy(),
            inputs["targets"].numpy(),
            weights.numpy(),
            strict=True,
        ):
            if not weight.any():
                continue
            places += len(ids)
            for number in range(1, segments.max() + 1):
                inside = segments == number
                found.append(ids[inside].tolist())
                tokens += inside.sum()
                assert targets[inside][-1] in (-1, *encoder.stop)
    assert sorted(found) == sorted(rows)
    assert tokens / places > 0.85
    again = [inputs["token_ids"].numpy().tolist() for inputs, _, _ in pipeline.epoch(1)]
    later = [inputs["token_ids"].numpy().tolist() for inputs, _, _ in pipeline.epoch(2)]
    assert again != later


def test_packing_is_tight_and_never_too_full():
    lengths = np.random.default_rng(0).integers(5, 60, 500)
    packs = pack(lengths, 128)
    sums = [lengths[row].sum() for row in packs]
    assert sorted(packs.values.tolist()) == list(range(500))
    assert max(sums) <= 128
    assert len(packs) <= 1.02 * np.ceil(lengths.sum() / 128)


def test_what_all_conversations_begin_with(tokenizer, tmp_path):
    encoder = ChatEncoder(tokenizer, choose_template("chatml", None, tokenizer), 512)

    def feed(name, system, questions):
        rows = [
            [
                {"role": "system", "content": system},
                {"role": "user", "content": question},
                {"role": "assistant", "content": "yes"},
            ]
            for question in questions
        ]
        path = tmp_path / name
        path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
        return TextFeed(read_chats(str(path)), encoder)

    def ids(feed):
        table = feed.table
        return [
            table.tokens["token_ids"][start : start + length].tolist()
            for start, length in zip(table.offsets[:-1], table.lengths, strict=True)
        ]

    feeds = [
        feed("a.jsonl", "You are kind.", ["apples", "and pears"]),
        feed("b.jsonl", "You are kind.", ["apples and plums", "a"]),
    ]

    def common(rows):
        alike = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*rows, strict=False))
        return [column[0] for column in alike]

    expected = common(ids(feeds[0]) + ids(feeds[1]))
    assert len(expected) > 10
    assert shared_start(feeds) == len(expected)
    assert feeds[0].table.start().tolist() == common(ids(feeds[0]))
    # Of the same conversation twice, a token is left to each.
    same = feed("c.jsonl", "You are kind.", ["apples", "apples"])
    assert shared_start([same]) == len(ids(same)[0]) - 1
    # Others begin otherwise, but for what the template writes.
    other = [*feeds, feed("d.jsonl", "Be brief.", ["apples", "and"])]
    assert shared_start(other) == len(common([row for part in other for row in ids(part)]))
    # A start that is too short to matter.
    assert shared_start([feed("e.jsonl", "a", ["apples " * 50, "pears " * 50])]) == 0


def test_a_lost_answer_stops_or_is_left_out(tokenizer, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"prompt": "' + "word " * 200 + '", "completion": "lost"}\n'
        '{"prompt": "Hi", "completion": "there"}\n'
    )
    source = read_chats(str(path))
    encoder = ChatEncoder(tokenizer, choose_template("chatml", None, tokenizer), 64)
    with pytest.raises(UserError, match=r"1 of 2 conversations .* \(a.jsonl:1\)") as raised:
        chat_feed(source, encoder)
    need = int(str(raised.value).split("--max-length ")[-1].split()[0])
    longer = ChatEncoder(tokenizer, choose_template("chatml", None, tokenizer), need)
    assert len(chat_feed(source, longer).table) == 2
    said = []
    feed = chat_feed(source, encoder, on_bad="skip", say=said.append)
    assert len(feed.table) == 1
    assert "left out" in said[0]
