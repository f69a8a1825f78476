"""OpenAI's own client talks to an assistant."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
import requests
from answers import likeliest as greedy

from tfsft.export import load_predictor

HELLO = [{"role": "user", "content": "Hello there, how are you?"}]
LONG = [
    *HELLO,
    {"role": "assistant", "content": "My name is Ada."},
    {"role": "user", "content": "Two?"},
]


@pytest.fixture(scope="module")
def running(serving):
    return serving("chat", max_new_tokens=24, max_text=2000, streams=3)


@pytest.fixture(scope="module")
def client(running):
    return openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0, timeout=60)


@pytest.fixture(scope="module")
def likeliest(running):
    """Answers by the whole model, one token after another."""
    predictor = load_predictor(running.run)

    def answer(messages, count):
        begin = [] if messages[0]["role"] == "system" else predictor.begin()
        prompt = predictor.encoder.prompt([*begin, *messages])
        new = greedy(predictor, prompt, count)
        return predictor.tokenizer.decode(new), len(prompt), len(new)

    return answer


def ask(client, messages=HELLO, **options):
    return client.chat.completions.create(model="model", messages=messages, **options)


def test_models(client, running):
    (card,) = client.models.list().data
    assert (card.id, card.object) == ("model", "model")
    assert client.models.retrieve("model").id == "model"
    state = requests.get(f"{running.url}/v1/models/model", timeout=30).json()
    assert state["model_version_status"][0]["state"] == "AVAILABLE"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


@pytest.mark.parametrize(
    "messages", [HELLO, LONG, [{"role": "system", "content": "Be kind."}, *HELLO]]
)
def test_whole_and_streamed_answers_are_the_likeliest(client, likeliest, messages):
    text, prompt, tokens = likeliest(messages, 12)
    whole = ask(client, messages, max_tokens=12)
    choice = whole.choices[0]
    assert choice.message.content == text
    assert choice.finish_reason == ("length" if tokens == 12 else "stop")
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (prompt, tokens)
    options = {"include_usage": True}
    chunks = list(
        ask(client, messages, max_completion_tokens=12, stream=True, stream_options=options)
    )
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert "".join(piece or "" for piece in pieces) == text
    assert len([piece for piece in pieces if piece]) > 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == choice.finish_reason
    assert chunks[-1].usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_events_as_they_are(running):
    body = {"model": "model", "messages": HELLO, "stream": True, "max_tokens": 2}
    answer = requests.post(f"{running.url}/v1/chat/completions", json=body, timeout=60)
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert answer.text.endswith("data: [DONE]\n\n")
    for event in answer.text.split("\n\n")[:-2]:
        assert json.loads(event.removeprefix("data: "))["object"] == "chat.completion.chunk"


def test_texts_that_end_an_answer(client, likeliest):
    text, *_ = likeliest(HELLO, 24)
    stop = text[6:9]
    expected = text[: text.index(stop)]
    for options in ({"stop": stop}, {"stop": ["never in there", stop]}):
        whole = ask(client, max_tokens=24, **options).choices[0]
        assert (whole.message.content, whole.finish_reason) == (expected, "stop")
        chunks = list(ask(client, max_tokens=24, stream=True, **options))
        said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert (said, chunks[-1].choices[0].finish_reason) == (expected, "stop")
    never = ask(client, max_tokens=8, stop="never in there", stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in never) == likeliest(HELLO, 8)[0]


def test_draws_are_those_of_their_seed(client):
    def said(**options):
        return ask(client, max_tokens=16, **options).choices[0].message.content

    first = said(temperature=1.5, seed=7)
    assert first == said(temperature=1.5, seed=7)
    assert first != said(temperature=1.5, seed=8)
    assert said(temperature=1.5) != said(temperature=1.5)
    greedy = said()
    assert said(temperature=0) == greedy
    assert said(temperature=1.5, extra_body={"top_k": 1}) == greedy
    assert said(temperature=1e-9, seed=1) == greedy
    assert said(extra_body={"repetition_penalty": 5.0}) != greedy


def test_messages_in_parts_and_twice_in_a_row_are_joined(client):
    parts = [{"type": "text", "text": "Hello there, "}, {"type": "text", "text": "how are you?"}]
    whole = ask(client, max_tokens=8).choices[0].message.content
    assert (
        ask(client, [{"role": "user", "content": parts}], max_tokens=8).choices[0].message.content
        == whole
    )
    twice = [{"role": "user", "content": "Hello"}, {"role": "user", "content": "you"}]
    joined = [{"role": "user", "content": "Hello\n\nyou"}]
    answers = [
        ask(client, messages, max_tokens=8).choices[0].message.content
        for messages in (twice, joined)
    ]
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": 25}, "at most 24"),
        ({"n": 2}, "'n' is not supported"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "'tools' is not supported"),
        ({"logprobs": True}, "'logprobs' is not supported"),
        ({"response_format": {"type": "json_object"}}, "'response_format'"),
        ({"temperature": 3}, "less than or equal to 2"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "begins and ends with"),
        ({"messages": [*HELLO, {"role": "assistant", "content": "x"}]}, "begins and ends with"),
        ({"messages": [*HELLO, {"role": "system", "content": "x"}]}, "comes first"),
        ({"messages": [{"role": "user", "content": " "}]}, "is empty"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "role"),
        ({"messages": []}, "messages"),
        (
            {"messages": [{"role": "user", "content": "x " * 500}]},
            "at most 256, the answer included",
        ),
    ],
)
def test_what_is_refused(client, options, message):
    with pytest.raises(openai.BadRequestError, match=message) as caught:
        client.chat.completions.create(**({"model": "model", "messages": HELLO} | options))
    assert caught.value.type == "invalid_request_error"


def test_other_refusals(client, running):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-4", messages=HELLO)
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.APIStatusError) as caught:
        ask(client, [{"role": "user", "content": "x" * 2001}])
    assert caught.value.status_code == 413
    picture = [{"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}]
    with pytest.raises(openai.BadRequestError, match="text alone"):
        ask(client, [{"role": "user", "content": picture}])


def test_streams_take_turns_and_too_many_are_told_to_come_again(client, running):
    expected = ask(client, max_tokens=24).choices[0].message.content
    streams = [ask(client, max_tokens=24, stream=True) for _ in range(3)]
    for stream in streams:
        next(stream)
    with pytest.raises(openai.InternalServerError) as caught:
        list(ask(client, max_tokens=24, stream=True))
    assert caught.value.status_code == 503
    assert "Retry-After" in caught.value.response.headers

    def read(stream):
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    with ThreadPoolExecutor(3) as readers:
        assert list(readers.map(read, streams)) == [expected] * 3
    assert list(ask(client, max_tokens=2, stream=True))


def test_a_client_that_goes_away_gives_its_place_back(client, running):
    for _ in range(5):
        stream = ask(client, max_tokens=24, stream=True)
        next(stream)
        stream.close()
    deadline = threading.Event()
    for _ in range(100):
        if not running.service._streams:
            break
        deadline.wait(0.1)
    assert running.service._streams == 0
    assert ask(client, max_tokens=4, stream=True)


def test_the_next_turn_computes_what_is_new_alone(running, client):
    assistant = running.service.model
    messages = [{"role": "user", "content": "What is your name? " * 3}]
    said = "".join(
        c.choices[0].delta.content or "" for c in ask(client, messages, max_tokens=4, stream=True)
    )
    before = {id(session): session.computed for session in assistant._idle}
    more = [*messages, {"role": "assistant", "content": said}, {"role": "user", "content": "And?"}]
    list(ask(client, more, max_tokens=1, stream=True))
    prompt = assistant.prompt(more, 1)
    computed = sum(s.computed - before.get(id(s), 0) for s in assistant._idle)
    assert 0 < computed < len(prompt.ids) / 2


def test_the_other_protocols_answer_too(client, running):
    text = HELLO[0]["content"]
    whole = ask(client).choices[0].message.content.strip()
    url = running.url
    plain = requests.post(f"{url}/predict", json={"text": text}, timeout=60).json()
    assert plain["answers"] == [{"prediction": whole}]
    rows = requests.post(
        f"{url}/v1/models/model:predict", json={"instances": [text] * 2}, timeout=60
    )
    assert rows.json() == {"predictions": [whole] * 2}
