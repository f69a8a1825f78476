"""The assistant of a chat run: answers in batches, and many at the same time, piece by piece."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, takewhile
from typing import Any

from tfsft import data, models
from tfsft.errors import UserError
from tfsft.export.chat_predictor import BATCH_SIZE, ChatPredictor, whole_letters
from tfsft.export.serving.problems import Problem
from tfsft.export.serving.served_model import Outputs, Writing, checked_text
from tfsft.export.serving.settings import Settings

IDLE_SESSIONS = 4  # whose attention caches are kept for the next turn of a conversation


@dataclass(frozen=True)
class Prompt:
    """A conversation in tokens, and how many an answer may have."""

    ids: list[int]
    new: int


@dataclass
class Talk:
    """An answer that comes piece by piece.

    `ids` are its tokens so far; `ended` says whether it is over before its limits. The iterator
    must be used in the worker's thread alone.
    """

    prompt: Prompt
    pieces: Iterator[str] = field(repr=False, default=iter(()))
    ids: list[int] = field(default_factory=list)
    ended: bool = False


class Assistant(Writing):
    """Answers conversations; conversations that go on are not computed again from their start."""

    def __init__(self, predictor: ChatPredictor, settings: Settings):
        super().__init__(predictor, settings)
        self.positions = self.task.get("positions")
        self._generator = models.Generator(
            predictor.model,
            stop=predictor.encoder.stop,
            pad=predictor.tokenizer.pad,
            max_length=self.positions,
        )
        self._idle: list[models.Session] = []
        places = data.placeholders(predictor.system_prompt)
        self._begin = [] if places else predictor.begin()
        self.most_new = settings.max_new_tokens
        self.usual_new = min(self.task["max_new_tokens"], self.most_new)

    def prepare(self, example: Mapping[str, Any]) -> Prompt:
        """Returns the tokens of a conversation that begins with this text."""
        (text,) = super().prepare(example)
        return self.prompt([{"role": "user", "content": text}], self.usual_new)

    def size(self, row: Prompt) -> int:
        """Returns its length, in characters or so."""
        return 4 * (len(row.ids) + row.new)

    def prompt(self, messages: Sequence[Mapping[str, Any]], new: int) -> Prompt:
        """Returns the tokens of a conversation; several threads may call it at once.

        Args:
            messages: Of `system`, which may be left out, and `user` and `assistant` in turn;
                several of one role in a row are joined, as in training.
            new: Most tokens of the answer.

        Raises:
            Problem: They are no such conversation, or are too long.
        """
        conversation = _in_turn(messages)
        texts = "".join(message["content"] for message in conversation)
        checked_text(texts, "messages", self.settings)
        if conversation[0]["role"] != "system":
            conversation = [*self._begin, *conversation]
        try:
            ids = self.predictor.encoder.prompt(conversation)
        except UserError as error:  # the template takes no such conversation
            raise Problem(str(error)) from error
        room = new if self.positions is None else min(new, self.positions - len(ids))
        if room < 1:
            raise Problem(
                f"The conversation has {len(ids):,} tokens, and the model sees at most "
                f"{self.positions:,}, the answer included. Begin a new one.",
                "context_length_exceeded",
            )
        return Prompt(ids, room)

    def run(self, rows: Sequence[Prompt]) -> list[Outputs]:
        """Returns the likeliest answers, those of as many tokens together."""
        found: list[Outputs] = [{}] * len(rows)
        order = sorted(range(len(rows)), key=lambda place: rows[place].new)
        for new, places in groupby(order, key=lambda place: rows[place].new):
            places = list(places)
            prompts = [rows[place].ids for place in places]
            answers = self._generator.answer(prompts, max_new_tokens=new, batch_size=BATCH_SIZE)
            for place, answer in zip(places, answers, strict=True):
                text = self.predictor.tokenizer.decode(answer.ids)
                found[place] = {
                    "answer": text.strip(),
                    "text": text,
                    "tokens": len(answer.ids),
                    "stopped": answer.stopped,
                }
        return found

    def talk(self, prompt: Prompt, **sampling: Any) -> Talk:
        """Returns an answer that is computed while its pieces are asked for."""
        talk = Talk(prompt)
        talk.pieces = self._pieces(talk, sampling)
        return talk

    def warm_up(self) -> None:
        """Answers once in each way."""
        prompt = self.prompt([{"role": "user", "content": "Hello!"}], 2)
        self.run([prompt])
        list(self.talk(prompt).pieces)
        list(self.talk(prompt, temperature=1.0).pieces)

    def _pieces(self, talk: Talk, sampling: dict[str, Any]) -> Iterator[str]:
        session = self._session(talk.prompt.ids)
        tokens = session.stream(talk.prompt.ids, max_new_tokens=talk.prompt.new, **sampling)
        try:
            yield from whole_letters(tokens, talk.ids, self.predictor.tokenizer.decode)
            talk.ended = len(talk.ids) < talk.prompt.new
        finally:
            self._idle = [*self._idle, session][-IDLE_SESSIONS:]

    def _session(self, ids: list[int]) -> models.Session:
        """Returns the idle session that has seen most of a conversation, or a new one."""

        def known(session: models.Session) -> int:
            pairs = zip(session.ids, ids, strict=False)
            return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

        best = max(self._idle, key=known, default=None)
        if best is None or (known(best) < len(best.ids) // 2 and len(self._idle) < IDLE_SESSIONS):
            return self._generator.session()
        self._idle.remove(best)
        return best


def _in_turn(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Returns a conversation of user and assistant in turn, which the user ends."""
    turns: list[dict[str, str]] = []
    for message in messages:
        role = {"developer": "system"}.get(message["role"], message["role"])
        text = message["content"].strip()
        if turns and turns[-1]["role"] == role:
            turns[-1] = {"role": role, "content": f"{turns[-1]['content']}\n\n{text}".strip()}
        else:
            turns.append({"role": role, "content": text})
    turns = [turn for turn in turns if turn["content"] or turn["role"] != "system"]
    roles = [turn["role"] for turn in turns if turn["role"] != "system"]
    systems = [place for place, turn in enumerate(turns) if turn["role"] == "system"]
    if systems not in ([], [0]):
        raise Problem("A system message comes first, or not at all.")
    if not roles or roles[0] != "user" or roles[-1] != "user":
        raise Problem("A conversation begins and ends with a message of the user.")
    if not all(turn["content"] for turn in turns):
        raise Problem("A message is empty.")
    return turns
