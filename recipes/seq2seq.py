"""Sequence to sequence: a BART or T5 that summarises, translates or rewrites texts as yours are.

The data is a text and what should come of it in each row, in two columns of a table. The encoder
reads the text once, the decoder writes the result token by token, and all weights train; the loss
is the mean over the tokens of the results. At each evaluation the model also writes results
itself, which are compared with yours, before training and after.

    tfsft run recipes/seq2seq.py --data articles.jsonl --max-length 1024 --max-target-length 128
    tfsft run recipes/seq2seq.py --data pairs.csv --input-column en --target-column de
    tfsft run recipes/seq2seq.py --data articles.jsonl --backbone my_t5 --prefix "summarize: "

Then give it texts: tfsft predict RUN "a text"
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import keras

from tfsft import data, models, training
from tfsft.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of one run; each field is an option on the command line.

    Args:
        data: A JSONL, JSON, CSV, TSV or Parquet file with a text and what should come of it in
            each row; a folder of such files called train, validation and test; `tfds:NAME`; or
            `chatterbot`, small talk in English, to try the recipe with.
        input_column: Column with the text (source, document, article, text, input); found by
            itself if empty.
        target_column: Column with what should come of it (target, summary, translation, output);
            found by itself if empty.
        group_column: Column whose equal values (an author, a document) stay on one side of the
            split.
        prefix: Text before every input, such as "summarize: ", which a T5 knows its tasks by.
        validation_fraction: Share held out to choose the best epoch, where the data has no split of
            its own.
        test_fraction: Share held out for the final figures, where the data has no split of its own.
        replay_share: With --from, the share of that run's examples among those of training.
        limit: Use about so many examples, for a quick try; 0 is all.
        on_bad: What to do about a row that lacks one of the texts.
        tfds_dir: Folder of prepared tensorflow-datasets; empty for their own default.
        backbone: `auto`, a name from KerasHub, a kaggle:// or hf:// handle, or a local folder.
        max_length: Most tokens of an input; what is longer loses its end.
        max_target_length: Most tokens of a target, which loses its end, too.
        epochs: Passes over the data.
        max_steps: Most updates; 0 is no limit.
        batch_size: Examples in one update.
        accumulate: Parts a batch is computed in: same result, less memory.
        learning_rate: Highest rate.
        optimizer: How gradients become updates.
        weight_decay: Decoupled weight decay, never on biases and normalisation.
        momentum: Momentum of sgd.
        schedule: Course of the rate after the warm-up.
        warmup: Share of the updates during which the rate rises.
        clip_norm: Largest norm of the gradients; 0 does not clip.
        monitor: What the best epoch is judged by on the validation split; all but loss and accuracy
            compare generated results.
        patience: Epochs without a better one until training ends; 0 trains them all.
        answers: Held-out inputs whose results are generated at each evaluation, and for the final
            figures; 0 takes all.
        max_new_tokens: Most tokens of a generated result.
        seed: Of splits and order.
    """

    data: str = "chatterbot"
    input_column: str = ""
    target_column: str = ""
    group_column: str = ""
    prefix: str = ""
    validation_fraction: Annotated[float, ">0..<1"] = 0.1
    test_fraction: Annotated[float, "0..<1"] = 0.1
    replay_share: Annotated[float, "0..<1"] = 0.5
    limit: Annotated[int, "0.."] = 0
    on_bad: Literal["stop", "skip"] = "stop"
    tfds_dir: str = ""
    backbone: str = "auto"
    max_length: Annotated[int, "8.."] = 512
    max_target_length: Annotated[int, "2.."] = 128
    epochs: Annotated[int, "1.."] = 3
    max_steps: Annotated[int, "0.."] = 0
    batch_size: Annotated[int, "1.."] = 8
    accumulate: Annotated[int, "1.."] = 1
    learning_rate: Annotated[float, ">0.."] = 5e-5
    optimizer: Literal["adam", "adamw", "sgd", "lion", "muon"] = "adamw"
    weight_decay: Annotated[float, "0.."] = 0.01
    momentum: Annotated[float, "0..<1"] = 0.9
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    warmup: Annotated[float, "0..<1"] = 0.05
    clip_norm: Annotated[float, "0.."] = 1.0
    monitor: Literal["loss", "accuracy", "chrf", "bleu", "rougeL", "exact_match"] = "loss"
    patience: Annotated[int, "0.."] = 0
    answers: Annotated[int, "0.."] = 64
    max_new_tokens: Annotated[int, "1.."] = 128
    seed: Annotated[int, "0.."] = 0


def load_data(config: Config) -> data.Splits:
    """Returns the training, validation and test examples, as conversations of one turn."""
    return data.load_chats(
        config.data,
        prompt_column=config.input_column or None,
        answer_column=config.target_column or None,
        group_column=config.group_column or None,
        pair=data.REWRITING,
        validation_fraction=config.validation_fraction,
        test_fraction=config.test_fraction,
        seed=config.seed,
        limit=config.limit or None,
        on_bad=config.on_bad,
        tfds_dir=config.tfds_dir or None,
    )


def build_model(backbone: str | models.Seq2SeqLM = "auto") -> keras.Model:
    """Returns a sequence-to-sequence model: KerasHub's, from tokens to logits.

    Args:
        backbone: See `Config`, or what `models.load_seq2seq_lm` returned.

    Returns:
        An uncompiled model from `encoder_token_ids`, `encoder_padding_mask`, `decoder_token_ids`
        and `decoder_padding_mask`, int32 `[batch, tokens]`, to logits `[batch, decoder tokens,
        vocabulary]` of each next token.
    """
    if isinstance(backbone, str):
        backbone = models.load_seq2seq_lm(backbone)
    return backbone.model


def main(config: Config, run: training.Run) -> None:
    """Trains, evaluates, saves and reports."""
    # What can be wrong with the settings is found before any data is read.
    earlier = run.task.get("backbone", {}).get("name")  # what `auto` was when the run began
    name, reason = models.resolve(earlier or config.backbone, kind="seq2seq")
    run.say(f"Backbone {reason}")

    # Data
    splits = run.load(load_data, config)
    for note in splits.notes:
        run.say(note)
    with run.strategy.scope():
        backbone = models.load_seq2seq_lm(name)
    _check(config, backbone)
    settings = {
        "max_length": config.max_length,
        "max_target_length": config.max_target_length,
        "start": backbone.start,
        "end": backbone.end,
        "decoder_start": backbone.decoder_start,
        "prefix": config.prefix,
    }
    encoder = data.Seq2SeqEncoder(backbone.tokenizer, **settings)
    feeds = {
        name: data.Seq2SeqFeed(
            source, encoder, progress=run.progress(f"Tokenising {name} texts", "texts")
        )
        for name, source in splits.sources().items()
    }
    train = feeds["train"].pipeline(config.batch_size, seed=config.seed, shuffle=True)
    held_out = {
        name: feeds[name].pipeline(config.batch_size) if name in feeds else None
        for name in ("validation", "test")
    }
    tokens = data.token_facts(feeds, train, held_out)
    run.say(data.describe_tokens(tokens))
    cut = sum(feed.table.facts["cut_targets"] for feed in feeds.values())
    if cut:
        run.say(f"{cut:,} targets have more than {config.max_target_length} tokens and were cut.")

    # Model
    with run.strategy.scope():
        model = build_model(backbone)
        run.take_over(model)
        trained = models.unfreeze(model, "all")
    run.say(f"Trains {trained.trainable:,} of {trained.total:,} parameters.")
    run.begin(
        model,
        task={
            "task": "text_generation",
            "labels": "chat",
            "class_names": [],
            "max_new_tokens": config.max_new_tokens,
            "tokenizer": "tokenizer",
            "backbone": {"name": name, "reason": reason},
            **settings,
        },
        data=splits.facts() | {"tokens": tokens},
    )

    # What it writes: of a few held-out inputs for reading, and of more for the figures
    validation = feeds["validation"].source
    shown = validation.column("messages", training.spread(len(validation), 8))
    examiner = training.Examiner(
        run,
        model,
        encoder,
        [training.last_turn(conversation)[0] for conversation in shown],
        held_out,
        {name: feed.source for name, feed in feeds.items()},
        max_new_tokens=config.max_new_tokens,
        answers=config.answers or None,
    )
    examiner.before()

    # Training
    with run.strategy.scope():
        tuner = training.FineTuner(
            models.with_token_loss(model),
            accumulate=config.accumulate,
            clip_norm=config.clip_norm or None,
        )
        tuner.compile(
            optimizer=_optimizer(config, train.steps),
            loss=training.token_loss,
            weighted_metrics=training.token_metrics(),
        )
    tuner.fit(
        train,
        validation_data=held_out["validation"],
        epochs=config.epochs,
        callbacks=[examiner.callback("finetune")],
        phase=run.phase(
            "finetune",
            monitor=f"val_{config.monitor}",
            patience=config.patience or None,
            max_updates=config.max_steps or None,
        ),
    )

    # What it leaves
    examiner.after()
    run.save(model, backbone.tokenizer)
    run.report()


def _check(config: Config, backbone: models.Seq2SeqLM) -> None:
    positions = backbone.max_length
    for option, length in (
        ("--max-length", config.max_length),
        ("--max-target-length", config.max_target_length + len(backbone.decoder_start) - 1),
    ):
        if positions is not None and length > positions:
            raise UsageError(
                f"{option} needs {length} places.",
                f"{backbone.name} has positions for {positions} tokens.",
                f"Give a smaller {option}.",
            )


def _optimizer(config: Config, steps: int) -> keras.Optimizer:
    total = min(steps * config.epochs, config.max_steps or steps * config.epochs)
    schedule = training.make_schedule(
        config.schedule,
        config.learning_rate,
        total,
        warmup_steps=round(config.warmup * total),
    )
    return training.make_optimizer(
        config.optimizer,
        schedule,
        weight_decay=config.weight_decay,
        momentum=config.momentum,
    )
