"""Finished runs that answer with a text: a conversation, or a text made of another."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tfsft import data, models, training
from tfsft.errors import UsageError
from tfsft.evaluation.predictions import Prediction, order
from tfsft.export.predictor import Predictor, Progress
from tfsft.export.text_predictors import typed_texts

BATCH_SIZE = 16


class WritingPredictor(Predictor):
    """What the predictors have in common that answer a text with a text.

    `example` is what one may look like.
    """

    example = "your question"

    def __init__(self, run: Path, task: dict[str, Any]):
        import keras_hub  # noqa: F401  (knows the layers)

        super().__init__(run, task)
        self.tokenizer = models.load_tokenizer(run / task["tokenizer"])
        self.model = self.load_model()
        self.encoder = self.make_encoder()

    def make_encoder(self) -> Any:
        """Returns what makes tokens of texts."""
        raise NotImplementedError

    def read_table(self, table: str) -> tuple[list, list[str]]:
        """Returns the conversations of a file, and what to call each."""
        raise NotImplementedError

    def begin(self) -> list[dict[str, str]]:
        """Returns what a conversation begins with."""
        return []

    def feed(self, source: Any) -> data.TextFeed:
        """Returns what makes batches of conversations."""
        raise NotImplementedError

    def read(self, inputs: Sequence[str], table: str | None = None) -> dict[str, list]:
        """Returns the conversations that are meant, each with a name.

        Args:
            inputs: Prompts; `-` for one in each line of the standard input; text files.
            table: A file with a column of prompts, or of messages.
        """
        chats: list = []
        ids: list[str] = []
        if table is not None:
            chats, ids = self.read_table(table)
        for word in inputs:
            for name, text in typed_texts(word):
                chats.append([*self.begin(), {"role": "user", "content": text}])
                ids.append(name)
        if not chats:
            raise UsageError(
                "No INPUT was given.",
                "Prompts in quotes, text files, or a table with --csv.",
                f'tfsft predict {self.run} "{self.example}"',
            )
        return {"chats": chats, "ids": ids}

    def answer(
        self, examples: dict[str, list], progress: Progress = None
    ) -> tuple[list[dict[str, Any]], list[data.BadExample]]:
        """Answers each conversation."""
        texts, found = self.answerer().answer(examples["chats"], progress)
        return [
            {
                "id": name,
                "prediction": text,
                "prompt": chat[-1]["content"],
                "stopped": answer.stopped,
                "tokens": len(answer.ids),
            }
            for name, chat, text, answer in zip(
                examples["ids"], examples["chats"], texts, found, strict=True
            )
        ], []

    def evaluate(
        self, source: Any, progress: Progress = None
    ) -> tuple[dict[str, Any], list[Prediction]]:
        """Returns the metrics on conversations, and the answers, worst first."""
        feed = self.feed(source)
        metrics, rows = training.score_chats(
            self.model,
            feed.pipeline(BATCH_SIZE),
            feed.source,
            answerer=self.answerer(),
            progress=progress,
        )
        return metrics, order(rows)

    def measure(self, source: Any) -> dict[str, Any]:
        """Returns how well the right answers are foreseen, which needs none to be written."""
        pipeline = self.feed(source).pipeline(BATCH_SIZE)
        return training.token_scores(self.model, pipeline)

    def answerer(self, most: int | None = None) -> training.Answerer:
        """Returns what answers, with so many new tokens as the run says and at most `most`."""
        new = self.task["max_new_tokens"]
        return training.Answerer(
            self.model,
            self.encoder,
            max_new_tokens=new if most is None else min(new, most),
            batch_size=BATCH_SIZE,
        )


class ChatPredictor(WritingPredictor):
    """Answers prompts as the assistant of a run, with the system prompt it was trained with."""

    nouns = ("conversation", "conversations")
    options = ("prompt_column", "answer_column", *Predictor.options)

    def __init__(self, run: Path, task: dict[str, Any]):
        super().__init__(run, task)
        self.system_prompt = task["system_prompt"]

    def make_encoder(self) -> data.ChatEncoder:
        """Returns what makes tokens of conversations."""
        template = data.make_template(self.task["template"], self.tokenizer)
        return data.ChatEncoder(
            self.tokenizer, template, self.task["max_length"], train_on=self.task["train_on"]
        )

    def read_table(self, table: str) -> tuple[list, list[str]]:
        """Returns the conversations of a file, and what to call each."""
        return data.read_questions(table, system_prompt=self.system_prompt)

    def begin(self) -> list[dict[str, str]]:
        """Returns what a conversation begins with: the system prompt, if the run has one.

        Raises:
            UsageError: It has placeholders, which only a table can fill.
        """
        names = data.placeholders(self.system_prompt)
        if names:
            raise UsageError(
                f"The system prompt of {self.run} has places for {', '.join(names)}.",
                "Something to put there.",
                "Give a table with these columns by --csv; in a chat, type /system with the text.",
            )
        text = data.fill_prompt(self.system_prompt, {})
        return [{"role": "system", "content": text}] if text else []

    def load(self, given: str, **options: Any) -> data.Splits:
        """Loads conversations with their answers."""
        return data.load_chats(
            given,
            system_prompt=self.system_prompt,
            validation_fraction=0.0,
            test_fraction=0.0,
            **options,
        )

    def feed(self, source: Any) -> data.TextFeed:
        """Returns what makes batches of conversations that have an answer."""
        return data.chat_feed(source, self.encoder, on_bad="skip")

    def chat(self) -> "Chat":
        """Returns a conversation of many turns."""
        return Chat(self)


class Rewriter(WritingPredictor):
    """Summarises, translates, or whatever else a run has learned to do with a text."""

    nouns = ("text", "texts")
    options = ("prompt_column", "answer_column", *Predictor.options)
    setting_names: Mapping[str, str] = {
        "prompt_column": "input_column",
        "answer_column": "target_column",
    }
    example = "a text"

    def make_encoder(self) -> data.Seq2SeqEncoder:
        """Returns what makes tokens of texts and of what should come of them."""
        names = ("max_length", "max_target_length", "start", "end", "decoder_start", "prefix")
        return data.Seq2SeqEncoder(self.tokenizer, **{name: self.task[name] for name in names})

    def read_table(self, table: str) -> tuple[list, list[str]]:
        """Returns the texts of a file, and what to call each."""
        return data.read_questions(table, pair=data.REWRITING)

    def load(self, given: str, **options: Any) -> data.Splits:
        """Loads texts with what should come of them."""
        return data.load_chats(
            given,
            pair=data.REWRITING,
            validation_fraction=0.0,
            test_fraction=0.0,
            **options,
        )

    def feed(self, source: Any) -> data.Seq2SeqFeed:
        """Returns what makes batches of texts."""
        return data.Seq2SeqFeed(source, self.encoder)


class Chat:
    """One conversation with the assistant of a run; the attention cache is kept over its turns.

    `messages` is what was said so far.
    """

    def __init__(self, predictor: ChatPredictor):
        self._predictor = predictor
        self._encoder = predictor.encoder
        generator = models.Generator(
            predictor.model, stop=self._encoder.stop, pad=predictor.tokenizer.pad
        )
        self._session = generator.session()
        self.messages: list[dict[str, str]] = []
        self.reset()

    def reset(self) -> None:
        """Begins anew, with the run's system prompt where it needs no filling in."""
        self.messages = (
            [] if data.placeholders(self._predictor.system_prompt) else (self._predictor.begin())
        )

    def system(self, text: str) -> None:
        """Begins anew with another system prompt; an empty one is none."""
        self.messages = [{"role": "system", "content": text}] if text else []

    def say(self, text: str, **sampling: Any) -> Iterator[str]:
        """Says something and yields the answer piece by piece, in whole letters.

        An answer that is left in the middle counts as said up to there.

        Args:
            text: What the user says.
            **sampling: As for `models.Session.stream`.
        """
        self.messages.append({"role": "user", "content": text})
        ids: list[int] = []
        decode = self._predictor.tokenizer.decode
        try:
            tokens = self._session.stream(self._encoder.prompt(self.messages), **sampling)
            yield from whole_letters(tokens, ids, decode)
        finally:
            self.messages.append({"role": "assistant", "content": decode(ids)})


def whole_letters(
    tokens: Iterable[int], ids: list[int], decode: Callable[[list[int]], str]
) -> Iterator[str]:
    """Yields a text piece by piece while its tokens come.

    Args:
        tokens: They.
        ids: Is filled with those that have come.
        decode: Returns the text of tokens.
    """
    shown = ""
    for token in tokens:
        ids.append(token)
        now = decode(ids)
        if now.endswith("\ufffd"):
            continue  # half a letter, of which the rest will come
        yield now[len(shown) :]
        shown = now
    yield decode(ids)[len(shown) :]
