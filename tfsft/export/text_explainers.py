"""Which words an answer about a text rests on."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfsft import models
from tfsft.data.encoding import tokens_of_words, windows
from tfsft.data.plain_texts import PlainTexts
from tfsft.data.ragged import Ragged
from tfsft.data.words import split_words
from tfsft.evaluation.explanations import Explanation, Piece, Reason
from tfsft.evaluation.predictions import Prediction
from tfsft.export.attribution import Attribution, integrated_gradients
from tfsft.export.explainer import (
    Explainer,
    check_count,
    check_length,
    explained_labels,
    output_said,
    output_slopes,
    reason,
)
from tfsft.export.text_predictors import AnswerFinder, Tagger, TextClassifier, TextPredictor
from tfsft.export.token_pieces import pieces_of, sums, token_spans, words_coloured

BATCH = 16
MOST_MARKS = 12  # each takes as long as a whole text


class TokenExplainer(Explainer):
    """What the explainers of texts have in common: gradients at the embeddings of tokens."""

    predictor: TextPredictor
    ranks: tuple[int, ...] = ()

    def __init__(self, predictor: TextPredictor):
        super().__init__(predictor)
        tokenizer = predictor.tokenizer
        self.below, above = models.cut_at_tokens(predictor.model)
        self.slopes = output_slopes(above, self.score, *self.ranks)
        self.special = {*tokenizer.start, *tokenizer.separator, *tokenizer.end}
        found = [x for x in (tokenizer.mask, tokenizer.pad) if x is not None]
        self.blank = found[0]
        token = "mask" if tokenizer.mask is not None else "padding"
        self.baseline = f"the same text with the {token} token in place of each token"

    def read(self, inputs: Sequence[str], table: str | None = None) -> tuple[PlainTexts, list]:
        """Returns the texts that are meant."""
        examples, bad = super().read(inputs, table)
        check_count(len(examples), "texts")
        for name, *texts in zip(
            examples.ids, *map(examples.column, self.predictor.columns), strict=True
        ):
            for text in texts:
                check_length(text, name)
        return examples, bad

    def chosen(self, source: Any, rows: np.ndarray) -> PlainTexts:
        """Returns some labelled texts, with the words they came with."""
        names = (*self.predictor.columns, "starts", "ends")
        columns = {name: source.column(name, rows) for name in names if source.has(name)}
        ids = [source.ids[int(row)] for row in rows]
        return PlainTexts(columns, ids, self.predictor.class_names)

    def explain(
        self,
        examples: PlainTexts,
        known: Mapping[str, Prediction] | None = None,
        said: Sequence[Mapping[str, Any]] | None = None,
    ) -> Iterator[Explanation]:
        """Yields why each text is answered as it is."""
        for place, name in enumerate(examples.ids):
            cells = {
                column: examples.column(column, np.array([place]))
                for column in self.predictor.encoder.columns
            }
            answer = said[place] if said else None
            yield self.explanation(name, cells, (known or {}).get(name), answer)

    def explanation(
        self,
        name: str,
        cells: Mapping[str, list],
        known: Prediction | None,
        said: Mapping[str, Any] | None,
    ) -> Explanation:
        """Returns why one text is answered as it is.

        Args:
            name: Of the example.
            cells: What the encoder takes, one example.
            known: What is right, if somebody knows.
            said: What was answered, if it is known.
        """
        raise NotImplementedError

    def inputs(self, tokens: np.ndarray, second: int) -> dict[str, np.ndarray]:
        """Returns a row of tokens as the model takes it.

        Args:
            tokens: `[tokens]`.
            second: Where the second text begins.
        """
        made = {
            "token_ids": tokens,
            "padding_mask": np.ones_like(tokens),
            "segment_ids": np.arange(len(tokens)) >= second,
        }
        names = {tensor.name for tensor in self.predictor.model.inputs}
        return {name: row[None].astype("int32") for name, row in made.items() if name in names}

    @staticmethod
    def score(y: tf.Tensor, *chosen: tf.Tensor) -> tf.Tensor:
        """Returns what is explained, `[k]`.

        Args:
            y: Outputs `[k, ...]` of the model.
            *chosen: Which of them; their ranks are `ranks`.
        """
        raise NotImplementedError

    def attribute(
        self, inputs: Mapping[str, np.ndarray], *chosen: Any
    ) -> tuple[Attribution, np.ndarray]:
        """Returns what an output owes to a row of tokens, and each of them, `[tokens]`.

        Args:
            inputs: Of the model.
            *chosen: As `score` takes it.
        """
        tokens = inputs["token_ids"]
        blank = np.where(np.isin(tokens, list(self.special)), tokens, self.blank)
        point, *rest = tf.nest.flatten(self.below(inputs))
        start, *_ = tf.nest.flatten(self.below({**inputs, "token_ids": blank.astype("int32")}))
        found = integrated_gradients(
            self.slopes,
            tf.cast(point[0], tf.float32).numpy(),
            tf.cast(start[0], tf.float32).numpy(),
            *rest,
            *(tf.constant(part, tf.int32) for part in chosen),
            batch=BATCH,
            most=self.most,
            until=self.until,
        )
        return found, found.values


class TextExplainer(TokenExplainer):
    """Explains classes and numbers of texts, token by token."""

    predictor: TextClassifier
    ranks = (0,)

    @staticmethod
    def score(y: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
        """Returns one output, `[k]`."""
        return y[:, place]

    def explanation(
        self,
        name: str,
        cells: Mapping[str, list],
        known: Prediction | None,
        said: Mapping[str, Any] | None,
    ) -> Explanation:
        """Returns why one text is answered as it is."""
        predictor = self.predictor
        rows, facts, _ = predictor.encoder.encode(cells, 0)
        tokens, second = rows["token_ids"][0], int(facts["second"][0])
        inputs = self.inputs(tokens, second)
        if said is None:
            output = np.asarray(predictor.model(inputs, training=False))
        else:
            output = output_said(said, predictor.class_names)

        def why(title: str, place: int) -> Reason:
            found, weights = self.attribute(inputs, place)
            passages = self._passages(cells, weights, second)
            return reason(title, found, passages=passages)

        return explained_labels(name, output, predictor, known, why)

    def _passages(
        self, cells: Mapping[str, list], weights: np.ndarray, second: int
    ) -> tuple[tuple[str, tuple[Piece, ...]], ...]:
        tokenizer, columns = self.predictor.tokenizer, self.predictor.encoder.columns
        stop = len(weights) - len(tokenizer.end)
        bounds = [(len(tokenizer.start), stop)]
        if len(columns) > 1:
            bounds = [(len(tokenizer.start), second - len(tokenizer.separator)), (second, stop)]
        shown = []
        for column, (first, last) in zip(columns, bounds, strict=True):
            text = cells[column][0]
            spans = token_spans(tokenizer, text)
            total = spans[-1][3] if spans else 0
            kept = Ragged.of([np.arange(total)], "int64").shortened(
                np.array([last - first]), self.predictor.encoder.truncate
            )
            pieces = pieces_of(text, spans, dict(zip(kept[0].tolist(), weights[first:last],
                                                     strict=True)))  # fmt: skip
            shown.append((column if len(columns) > 1 else "", pieces))
        return tuple(shown)


class TagExplainer(TokenExplainer):
    """Explains each entity of a text, word by word."""

    predictor: Tagger
    unit = "the mean probability of the tags of its words"
    ranks = (1, 1)

    @staticmethod
    def score(y: tf.Tensor, places: tf.Tensor, tags: tf.Tensor) -> tf.Tensor:
        """Returns the mean probability of tags at places, `[k]`."""
        chosen = tf.gather(y, places, axis=1)
        return tf.reduce_mean(tf.reduce_sum(chosen * tf.one_hot(tags, y.shape[-1]), -1), -1)

    def explanation(
        self,
        name: str,
        cells: Mapping[str, list],
        known: Prediction | None,
        said: Mapping[str, Any] | None,
    ) -> Explanation:
        """Returns why the words of one text are tagged as they are."""
        predictor = self.predictor
        columns = {column: cells[column] for column in ("text", "starts", "ends")}
        answer = said or predictor.answer(PlainTexts(columns, [name]))[0][0]
        rows, _, _ = predictor.encoder.encode(cells, 0)
        starts = np.array(cells["starts"][0])
        found = []
        for entity in answer["entities"]:
            inside = (starts >= entity["start"]) & (starts < entity["end"])
            found.append((f"{entity['type']}: {entity['text']}", np.flatnonzero(inside)))
        notes = () if found else ("It marks nothing in this text.",)
        if len(found) > MOST_MARKS:
            notes = (f"It marks {len(found)} places; the first {MOST_MARKS} are explained.",)
            found = found[:MOST_MARKS]
        if not found and len(starts):
            found = [self._nearest(rows, cells)]
        return Explanation(
            id=name,
            prediction=answer["prediction"],
            probability=answer["probability"],
            label=None if known is None else str(known.label),
            reasons=tuple(self._reason(title, words, rows, cells) for title, words in found),
            notes=notes,
        )

    def _reason(
        self, title: str, words: np.ndarray, rows: Mapping[str, Ragged], cells: Mapping[str, list]
    ) -> Reason:
        encoder = self.predictor.encoder
        window = next(i for i in range(len(rows["words"])) if words[0] in rows["words"][i])
        counted = rows["words"][window]
        places = np.flatnonzero(np.isin(counted, words))
        inputs = self.inputs(rows["token_ids"][window], len(counted))
        output = np.asarray(self.predictor.model(inputs, training=False))[0]
        tags = output[places].argmax(axis=-1)
        if not tags.any():  # the nearest to a mark that is none
            tags = output[places][:, 1:].argmax(axis=-1) + 1

        attribution, weights = self.attribute(inputs, places, tags)
        ids, word = (part[0] for part in tokens_of_words(encoder.tokenizer, cells))
        begin, end = windows(len(ids), encoder.room, encoder.stride)[window]
        head = len(encoder.tokenizer.start)
        by_word = sums(word[begin:end], weights[head : head + end - begin])
        pieces = words_coloured(cells["text"][0], cells["starts"][0], cells["ends"][0], by_word)
        return reason(title, attribution, passages=(("", pieces),))

    def _nearest(
        self, rows: Mapping[str, Ragged], cells: Mapping[str, list]
    ) -> tuple[str, np.ndarray]:
        """Returns the word that is nearest to being marked."""
        best = (-1.0, 0, 0)
        for window in range(len(rows["words"])):
            counted = rows["words"][window]
            inputs = self.inputs(rows["token_ids"][window], len(counted))
            output = np.asarray(self.predictor.model(inputs, training=False))[0]
            for place in np.flatnonzero(counted >= 0):
                tag = int(output[place, 1:].argmax()) + 1
                best = max(best, (float(output[place, tag]), int(counted[place]), tag))
        _, word, tag = best
        start, end = cells["starts"][0][word], cells["ends"][0][word]
        name = self.predictor.task["tags"][tag]
        return f"Nearest to a mark: {cells['text'][0][start:end]} as {name}", np.array([word])


class AnswerExplainer(TokenExplainer):
    """Explains the answer to a question by the words of question and context."""

    predictor: AnswerFinder
    unit = "the logarithm of the probability of the answer's two ends"
    ranks = (1,)

    @staticmethod
    def score(y: tf.Tensor, ends: tf.Tensor) -> tf.Tensor:
        """Returns the log-probability of two ends, `[k]`."""
        chances = tf.nn.log_softmax(y, axis=-1)
        return chances[:, 0, ends[0]] + chances[:, 1, ends[1]]

    def explanation(
        self,
        name: str,
        cells: Mapping[str, list],
        known: Prediction | None,
        said: Mapping[str, Any] | None,
    ) -> Explanation:
        """Returns why one question is answered as it is."""
        predictor = self.predictor
        rows, facts, _ = predictor.encoder.encode(cells, 0)
        question, context = cells["question"][0], cells["context"][0]
        words = split_words(context)
        columns = {column: cells[column] for column in predictor.columns}
        answer = said or predictor.answer(PlainTexts(columns, [name]))[0][0]
        logits = []
        for window in range(len(rows["words"])):
            inputs = self.inputs(rows["token_ids"][window], int(facts["second"][window]))
            logits.append(np.asarray(predictor.model(inputs, training=False)))
        window, ends = _where(logits, rows["words"], _words_between(words, answer))
        inputs = self.inputs(rows["token_ids"][window], int(facts["second"][window]))

        found, weights = self.attribute(inputs, ends)
        passages = self._passages(question, context, words, weights, window, facts, cells)
        text = answer["prediction"]
        title = f"Why “{text}”" if text else "Why no answer"
        return Explanation(
            id=name,
            prediction=text or "no answer",
            probability=answer["probability"],
            label=None if known is None else str(known.label) or "no answer",
            reasons=(reason(title, found, passages=passages),),
        )

    def _passages(
        self,
        question: str,
        context: str,
        words: Sequence[tuple[int, int]],
        weights: np.ndarray,
        window: int,
        facts: Mapping[str, np.ndarray],
        cells: Mapping[str, list],
    ) -> tuple[tuple[str, tuple[Piece, ...]], ...]:
        encoder, tokenizer = self.predictor.encoder, self.predictor.tokenizer
        second, head = int(facts["second"][window]), len(tokenizer.start)
        of_question = weights[head : second - len(tokenizer.separator)]
        starts, ends = ([span[side] for span in words] for side in (0, 1))
        of_context = {"text": [context], "starts": [starts], "ends": [ends]}
        ids, word = (part[0] for part in tokens_of_words(tokenizer, of_context))
        room = encoder.max_length - second - len(tokenizer.end)
        begin, end = windows(len(ids), room, encoder.stride)[window]
        by_word = sums(word[begin:end], weights[second : second + end - begin])
        return (
            ("question", pieces_of(question, token_spans(tokenizer, question),
                                   dict(enumerate(of_question)))),
            ("context", words_coloured(context, starts, ends, by_word)),
        )  # fmt: skip


def _words_between(words: Sequence[tuple[int, int]], answer: Mapping[str, Any]) -> tuple[int, int]:
    """Returns the first and the last word of an answer; negative where there is none."""
    if answer["start"] is None:
        return -1, -1
    begin, end = answer["start"], answer["end"]
    inside = [i for i, word in enumerate(words) if word[0] < end and begin < word[1]]
    return inside[0], inside[-1]


def _where(
    logits: Sequence[np.ndarray], words: Ragged, span: tuple[int, int]
) -> tuple[int, tuple[int, int]]:
    """Returns the window and the tokens in it where a span of words has its highest score.

    Args:
        logits: `[1, 2, tokens]` of each window.
        words: The place of each token's word, of each window.
        span: First and last word; negative for "no answer", which is the start token in the window
            where it is least likely.
    """
    best: tuple[float, int, tuple[int, int]] | None = None
    for window, (found,) in enumerate(logits):
        if span[0] < 0:
            options = [(-float(found[0, 0] + found[1, 0]), (0, 0))]
        else:
            sides = [np.flatnonzero(words[window] == word) for word in span]
            options = [
                (float(found[0, i] + found[1, j]), (int(i), int(j)))
                for i, j in itertools.product(*sides)
                if i <= j
            ]
        for value, ends in options:
            if best is None or value > best[0]:
                best = value, window, ends
    return best[1], best[2]
