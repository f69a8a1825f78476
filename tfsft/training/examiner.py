"""What a language model knew before a run, how it gets on, and what it has forgotten after."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from tfsft import evaluation
from tfsft.data.text_feed import TextPipeline
from tfsft.training.answering import (
    Answerer,
    Conversation,
    last_turn,
    score_chats,
    spread,
    token_scores,
)
from tfsft.training.callbacks.answers import Answers, keep_answers
from tfsft.training.run import Run


class Examiner:
    """Asks the same questions before, during and after the training of one run.

    Args:
        run: Whose folder, metrics and strategy are used.
        model: A causal language model.
        encoder: A `data.ChatEncoder`.
        prompts: Fixed prompts to read the answers of, conversations that end with the user.
        pipelines: The held-out conversations by split, "validation" and "test"; None where there
            is none.
        sources: The same, for their texts.
        max_new_tokens: Most tokens of an answer.
        answers: How many conversations of a split are answered; None answers all.
    """

    def __init__(
        self,
        run: Run,
        model: keras.Model,
        encoder: Any,
        prompts: Sequence[Conversation],
        pipelines: Mapping[str, TextPipeline | None],
        sources: Mapping[str, Any],
        *,
        max_new_tokens: int,
        answers: int | None = None,
    ):
        self.run = run
        self.model = model
        self.encoder = encoder
        self.prompts = list(prompts)
        self.pipelines = pipelines
        self.sources = sources
        self.max_new_tokens = max_new_tokens
        self.limit = answers
        self._retained: tuple[str, TextPipeline] | None = None
        self._before: dict[str, Any] = {}
        self._answerers: dict[tuple[type, ...], Answerer] = {}

    def retain(self, name: str, pipeline: TextPipeline) -> None:
        """Measures general conversations before and after as well."""
        self._retained = name, pipeline

    def before(self) -> None:
        """Measures the pretrained model; of a run that goes on, what was measured then counts."""
        self._before = self.run.remember("before", self._measure_before)
        keep_answers(
            self.run.dir, self.names, self._before["prompts"], step=0, epoch=0, phase="pretrained"
        )

    def callback(self, phase: str) -> Answers:
        """Returns what asks at the end of each epoch of a phase."""
        answerer = self._answerer()
        validation = self.sources["validation"]
        turns = [
            last_turn(conversation)
            for conversation in validation.column("messages", spread(len(validation), self.limit))
        ]

        def score() -> dict[str, float | None]:
            prompts = [prompt for prompt, _ in turns]
            answers, found = answerer.answer(prompts, self._progress("Answering validation"))
            return evaluation.generation_metrics(
                [reference for _, reference in turns],
                answers,
                stopped=[answer.stopped for answer in found],
                lengths=[len(answer.ids) for answer in found],
            )

        return Answers(
            self.run.dir,
            self.names,
            lambda: answerer.answer(self.prompts)[0],
            score,
            self.run.updates,
            phase,
        )

    def after(self) -> None:
        """Measures the trained model, and what has changed; writes metrics.json."""
        answerer = self._answerer()

        def score(_: Any, pipeline: TextPipeline, source: Any, **options: Any) -> tuple:
            return score_chats(
                self.model,
                pipeline,
                source,
                answerer=answerer,
                limit=self.limit,
                progress=self._progress("Answering"),
                **options,
            )

        run = self.run
        rows = run.evaluate(self.model, self.pipelines, score, self.sources)
        split = self._split()
        run.metrics["before"] = {split: self._before["scores"]}
        known = self._before["answers"]
        pairs = [(row.label, row.prediction, known[row.id]) for row in rows if row.id in known]
        if pairs:
            low, high = evaluation.bootstrap_chrf(*zip(*pairs, strict=True))
            rise = run.metrics[split]["chrf"] - self._before["scores"]["chrf"]
            run.metrics["change"] = {"chrf": rise, "chrf_low": low, "chrf_high": high}
            run.say(
                f"chrF on {split}: {self._before['scores']['chrf']:.1f} before, "
                f"{run.metrics[split]['chrf']:.1f} after; the rise lies between {low:.1f} and "
                f"{high:.1f} (95%)."
            )
        if self._retained is not None:
            name, pipeline = self._retained
            scores = token_scores(self.model, pipeline, run.strategy)
            first = self._before["retained"]
            run.metrics["retained"] = {"name": name, "before": first, "after": scores}
            change = scores["perplexity"] / first["perplexity"] - 1
            run.say(
                f"Perplexity of the retained conversations ({name}): {first['perplexity']:.2f} "
                f"before, {scores['perplexity']:.2f} after ({change:+.1%})."
            )

    @property
    def names(self) -> list[str]:
        """What the fixed prompts are called in the report."""
        return [prompt[-1]["content"] for prompt in self.prompts]

    def _measure_before(self) -> dict[str, Any]:
        answerer, split = self._answerer(), self._split()
        scores, rows = score_chats(
            self.model,
            self.pipelines[split],
            self.sources[split],
            answerer=answerer,
            limit=self.limit,
            strategy=self.run.strategy,
            progress=self._progress(f"Answering {split} as before training"),
        )
        found = {
            "scores": scores,
            "answers": {row.id: row.prediction for row in rows},
            "prompts": answerer.answer(self.prompts)[0],
        }
        if self._retained is not None:
            found["retained"] = token_scores(self.model, self._retained[1], self.run.strategy)
        return found

    def _progress(self, title: str) -> Callable[[int, int], None]:
        return self.run.console.quiet_reporter(title, "conversations")

    def _split(self) -> str:
        return "test" if self.pipelines.get("test") is not None else "validation"

    def _answerer(self) -> Answerer:
        # What one has compiled goes on with weights that change, but not with other layers, as
        # those with low-rank updates are. Without these, before and after the training are alike.
        kinds = tuple(type(layer) for layer in self.model._flatten_layers())
        if kinds not in self._answerers:
            self._answerers[kinds] = Answerer(
                self.model, self.encoder, max_new_tokens=self.max_new_tokens
            )
        return self._answerers[kinds]
