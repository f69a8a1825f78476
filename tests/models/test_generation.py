"""Generation, against loops over the whole model without a cache."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from chat_families import tiny_causal_lm

from tfsft import models
from tfsft.errors import UsageError, UserError
from tfsft.models.sampling import drawn, penalised

PROMPTS = [[5, 6, 7], [9], [30, 31, 32, 33, 34, 35], [8, 5, 5]]


@pytest.fixture(scope="module", params=["llama", "gpt2", "qwen2", "mistral"])
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    # Of so many blocks that they are traced once.
    return models.load_causal_lm(str(tiny_causal_lm(folder, request.param, layers=4))).model


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    return models.load_causal_lm(str(tiny_causal_lm(folder))).model


def whole(model, ids):
    ids = np.array([ids], np.int32)
    return np.asarray(model({"token_ids": ids, "padding_mask": np.ones_like(ids)}))[0, -1]


def greedy(model, prompt, new, stop=()):
    ids = list(prompt)
    for _ in range(new):
        token = int(whole(model, ids).argmax())
        if token in stop:
            return ids[len(prompt) :], True
        ids.append(token)
    return ids[len(prompt) :], False


def test_the_likeliest_tokens_are_those_of_the_model_without_cache(model):
    generator = models.Generator(model, stop=[], pad=0)
    expected = [greedy(model, prompt, 8)[0] for prompt in PROMPTS]
    answers = generator.answer(PROMPTS, max_new_tokens=8)
    assert [answer.ids for answer in answers] == expected
    assert not any(answer.stopped for answer in answers)
    # ... whatever is beside them
    assert [generator.answer([p], max_new_tokens=8)[0].ids for p in PROMPTS] == expected
    backwards = generator.answer(PROMPTS[::-1], max_new_tokens=8, batch_size=3)
    assert [answer.ids for answer in backwards] == expected[::-1]


@pytest.mark.parametrize("family", ["llama", "qwen3", "mixtral", "gemma", "gemma2", "gemma3_text"])
def test_blocks_that_are_alike_are_traced_once(tmp_path, family):
    model = models.load_causal_lm(str(tiny_causal_lm(tmp_path / family, family, layers=8))).model
    expected = [greedy(model, prompt, 8)[0] for prompt in PROMPTS]
    generator = models.Generator(model, stop=[], pad=0)
    traced = set()

    def watched(call, number):
        return lambda *args, **kwargs: traced.add(number) or call(*args, **kwargs)

    kinds = (keras.layers.Dense, keras.layers.EinsumDense)
    for number, block in enumerate(model.get_layer("backbone").transformer_layers):
        for layer in block._flatten_layers(include_self=False):
            if isinstance(layer, kinds):
                layer.call = watched(layer.call, number)
    answers = generator.answer(PROMPTS, max_new_tokens=8)
    assert [answer.ids for answer in answers] == expected
    assert 1 <= len(traced) <= 2  # Gemma has two kinds in turn


def test_an_answer_ends_with_a_stop_token(llama):
    stop = [greedy(llama, PROMPTS[0], 8)[0][4], greedy(llama, PROMPTS[2], 8)[0][2]]
    expected = [greedy(llama, prompt, 8, stop) for prompt in PROMPTS]
    answers = models.Generator(llama, stop=stop, pad=0).answer(PROMPTS, max_new_tokens=8)
    assert [(answer.ids, answer.stopped) for answer in answers] == expected
    assert any(answer.stopped for answer in answers)


def test_a_long_prompt_loses_its_beginning(llama):
    generator = models.Generator(llama, stop=[], pad=0, max_length=10)
    long = [5, 6, 7, 8, 9, 10, 11, 12]
    (answer,) = generator.answer([long], max_new_tokens=4)
    assert answer.truncated
    assert answer.ids == greedy(llama, long[-6:], 4)[0]


def test_changed_weights_change_the_answers_and_nothing_is_compiled_again(llama):
    generator = models.Generator(llama, stop=[], pad=0)
    weight = llama.get_layer("backbone").token_embedding.embeddings
    before = np.array(weight)
    first = generator.answer(PROMPTS, max_new_tokens=6)
    try:
        weight.assign(before[::-1])
        expected = [greedy(llama, prompt, 6)[0] for prompt in PROMPTS]
        second = generator.answer(PROMPTS, max_new_tokens=6)
    finally:
        weight.assign(before)
    assert [answer.ids for answer in second] == expected
    assert [answer.ids for answer in first] != expected
    (loop,) = generator._loops.values()
    assert loop.experimental_get_tracing_count() == 1


def test_low_rank_updates_take_part(tmp_path):
    model = models.load_causal_lm(str(tiny_causal_lm(tmp_path / "llama"))).model
    models.add_lora(model, 2, targets=["all"])
    for weight in model.trainable_weights:
        weight.assign(np.random.default_rng(0).normal(0, 0.3, weight.shape))
    answers = models.Generator(model, stop=[], pad=0).answer(PROMPTS, max_new_tokens=6)
    assert [a.ids for a in answers] == [greedy(model, prompt, 6)[0] for prompt in PROMPTS]


def test_a_seed_draws_the_same_in_any_company(llama):
    generator = models.Generator(llama, stop=[], pad=0)
    options = {"max_new_tokens": 8, "temperature": 1.0, "top_k": 20, "top_p": 0.9}
    first = [a.ids for a in generator.answer(PROMPTS, seed=1, **options)]
    assert [a.ids for a in generator.answer(PROMPTS, seed=1, batch_size=1, **options)] == first
    assert [a.ids for a in generator.answer(PROMPTS, seed=2, **options)] != first
    assert [a.ids for a in generator.answer(PROMPTS[:2], seed=1, **options)] == first[:2]


def numpy_shares(logits, temperature, top_k, top_p):
    """The probabilities that are left, as the usual rules have it."""
    order = np.argsort(-logits, kind="stable")
    logits = logits / temperature
    if top_k:
        logits = np.where(np.isin(np.arange(len(logits)), order[:top_k]), logits, -np.inf)
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    kept, total = [], 0.0
    for token in order:
        if kept and total >= top_p:
            break
        kept.append(token)
        total += shares[token]
    left = np.where(np.isin(np.arange(len(shares)), kept), shares, 0)
    return left / left.sum(), order


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, 0, 1.0), (0.5, 5, 1.0), (2.0, 0, 0.7), (0.8, 8, 0.6), (1.0, 1, 1.0), (1.0, 0, 1e-6)],
)
def test_tokens_are_drawn_as_often_as_they_are_likely(temperature, top_k, top_p):
    logits = np.random.default_rng(0).normal(size=12).astype("float32")
    shares, order = numpy_shares(logits.astype("float64"), temperature, top_k, top_p)
    chances = ((np.arange(4000) + 0.5) / 4000).astype("float32")
    tokens = drawn(tf.constant(np.tile(logits, (4000, 1))), chances, temperature, top_k, top_p)
    found = np.bincount(tokens, minlength=12) / 4000
    np.testing.assert_allclose(found, shares, atol=6e-4)
    ranks = np.argsort(order)[tokens.numpy()]
    assert (np.diff(ranks) >= 0).all()


def test_what_came_before_is_penalised():
    logits = tf.constant([[1.0, -1.0, 2.0, 0.5], [1.0, -1.0, 2.0, 0.5]])
    seen = tf.constant([[0, 1, 1], [2, -1, -1]])
    found = penalised(logits, seen, 2.0).numpy()
    np.testing.assert_allclose(found, [[0.5, -2.0, 2.0, 0.5], [1.0, -1.0, 1.0, 0.5]])


def test_a_penalty_acts_on_prompt_and_answer(llama):
    answers = models.Generator(llama, stop=[], pad=0).answer(
        PROMPTS, max_new_tokens=6, repetition_penalty=1.5
    )
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        ids = list(prompt)
        for token in answer.ids:
            logits = whole(llama, ids).copy()
            for known in set(ids):
                logits[known] = logits[known] / 1.5 if logits[known] > 0 else logits[known] * 1.5
            assert token == logits.argmax()
            ids.append(token)


def test_a_session_computes_every_token_once(model):
    generator = models.Generator(model, stop=[], pad=0)
    session = generator.session()
    first = list(session.stream(PROMPTS[2], max_new_tokens=6))
    assert first == greedy(model, PROMPTS[2], 6)[0]
    assert session.computed == len(PROMPTS[2]) + 5
    longer = [*PROMPTS[2], *first, 40, 41]
    second = list(session.stream(longer, max_new_tokens=5))
    assert second == greedy(model, longer, 5)[0]
    # the last token of the first answer, the new ones, and all but the last of the second answer
    assert session.computed == len(longer) + 4


def test_a_session_goes_back_where_the_conversation_changes(llama):
    session = models.Generator(llama, stop=[], pad=0).session()
    list(session.stream([5, 6, 7, 8], max_new_tokens=5))
    before = session.computed
    changed = [5, 6, 9, 10]
    assert list(session.stream(changed, max_new_tokens=5)) == greedy(llama, changed, 5)[0]
    assert session.computed - before == 2 + 4


def test_an_answer_that_is_left_leaves_the_session_good(llama):
    session = models.Generator(llama, stop=[], pad=0).session()
    stream = session.stream([5, 6, 7, 8], max_new_tokens=9)
    begun = [next(stream), next(stream)]
    stream.close()
    again = [5, 6, 7, 8, *begun, 50]
    assert list(session.stream(again, max_new_tokens=4)) == greedy(llama, again, 4)[0]


def test_a_session_outgrows_its_cache(llama, monkeypatch):
    monkeypatch.setattr("tfsft.models.generation.FIRST_ROOM", 4)
    session = models.Generator(llama, stop=[], pad=0).session()
    assert list(session.stream([5, 6, 7], max_new_tokens=12)) == greedy(llama, [5, 6, 7], 12)[0]


def test_limits_and_wrong_options_are_said(llama):
    generator = models.Generator(llama, stop=[], pad=0, max_length=6)
    assert len(list(generator.session().stream([5, 6, 7], max_new_tokens=50))) == 3
    with pytest.raises(UserError, match="has 6 tokens"):
        next(generator.session().stream([5] * 6))
    for option in ({"temperature": -1}, {"top_p": 0}, {"top_k": -1}, {"repetition_penalty": 0}):
        with pytest.raises(UsageError, match=next(iter(option))):
            generator.answer([[5]], **option)
