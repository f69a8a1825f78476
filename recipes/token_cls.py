"""Tagging words: fine-tune a pretrained encoder on sentences with a tag for each word.

    tfsft run recipes/token_cls.py
    tfsft run recipes/token_cls.py --data ner/ --epochs 3
    tfsft run recipes/token_cls.py --data train.conll --backbone bert_base_en_uncased
    tfsft run recipes/token_cls.py --data tfds:conll2003

Named entities, parts of speech, slots of an assistant, anything that words are marked with. The
default data is a small sample that shows the format.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import keras

from tfsft import data, models, training
from tfsft.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of one run; each field is an option on the command line.

    Args:
        data: A file of CoNLL columns; a JSONL, JSON or Parquet file with words and tags, or with a
            text and spans; a folder of such files called train, validation and test; `tfds:NAME`;
            or `sample`, some sentences with people, places and organisations.
        text_column: Column with the words or the text; found by itself if empty.
        label_column: Column with the tags or the spans; found by itself if empty.
        group_column: Column whose equal values (an author, a document) stay on one side of the
            split.
        validation_fraction: Share held out to choose the best epoch, where the data has no split of
            its own.
        test_fraction: Share held out for the final figures, where the data has no split of its own.
        replay_share: With --from, the share of that run's examples among those of training.
        limit: Use about so many sentences, for a quick try; 0 is all.
        on_bad: What to do about a sentence without words or tags.
        tfds_dir: Folder of prepared tensorflow-datasets; empty for their own default.
        backbone: `auto`, a starter (minilm), a name from KerasHub, a kaggle:// or hf:// handle, or
            a local folder.
        max_length: Most tokens the network sees at once; longer texts are seen in windows.
        stride: Tokens that two neighbouring windows share.
        dropout: Share of the features of each word dropped in training.
        backbone_dropout: Share dropped inside of what trains of the backbone, or before its
            low-rank updates.
        unfreeze: What is trained besides the head: `all`; `auto`, the last quarter of the layers;
            `none`; or the prefix of the first layer to train. Anything but `all` trains the head
            alone first.
        gradual: Open so many stages one after another, a phase each, instead of `unfreeze` at once;
            0 does not.
        lora_rank: Train low-rank updates of so many dimensions instead of the backbone's weights;
            0 trains the weights.
        lora_alpha: Scale of these updates, divided by the rank.
        lora_variant: `rslora` divides by the root of the rank, which keeps high ranks learning;
            `dora` trains the length of each output's weights apart from their direction.
        lora_targets: Projections that get one, with commas: query, key, value, output,
            feedforward; or all.
        epochs: Passes over the data in each phase.
        max_steps: Most updates in each phase; 0 is no limit.
        batch_size: Sentences in one update.
        batch_tokens: Tokens in one update, padding included, instead of `batch_size`; 0 goes by
            sentences.
        accumulate: Parts a batch is computed in: same result, less memory.
        learning_rate: Highest rate once the backbone is trained with the head.
        head_learning_rate: Highest rate while the head is trained alone.
        layer_decay: Factor on the rate for each block further from the output; 1 is the same rate
            for all.
        optimizer: How gradients become updates.
        weight_decay: Decoupled weight decay, never on biases and normalisation.
        momentum: Momentum of sgd.
        schedule: Course of the rate after the warm-up.
        warmup: Share of the updates during which the rate rises.
        decay_factor: step, exponential: factor on the rate every `decay_every`.
        decay_every: step, exponential, inverse_time: the unit of their time.
        decay_unit: Whether `decay_every` counts epochs or steps.
        decay_rate: inverse_time: b in a0 (1 / (1 + b t)) ** (1 / w).
        decay_power: inverse_time: w.
        clip_norm: Largest norm of the gradients; 0 does not clip.
        ema: Momentum of a moving average of the weights, which is then what is kept; 0 keeps none.
        monitor: What the best epoch is judged by on the validation split, over words.
        patience: Epochs without a better one until a phase ends; 0 trains them all.
        label_smoothing: Share of certainty taken from the tag and spread over all tags.
        seed: Of splits, order, initial weights and dropout.
    """

    data: str = "sample"
    text_column: str = ""
    label_column: str = ""
    group_column: str = ""
    validation_fraction: Annotated[float, ">0..<1"] = 0.15
    test_fraction: Annotated[float, "0..<1"] = 0.15
    replay_share: Annotated[float, "0..<1"] = 0.5
    limit: Annotated[int, "0.."] = 0
    on_bad: Literal["stop", "skip"] = "stop"
    tfds_dir: str = ""
    backbone: str = "auto"
    max_length: Annotated[int, "4.."] = 128
    stride: Annotated[int, "0.."] = 32
    dropout: Annotated[float, "0..<1"] = 0.1
    backbone_dropout: Annotated[float, "0..<1"] = 0.1
    unfreeze: str = "all"
    gradual: Annotated[int, "0.."] = 0
    lora_rank: Annotated[int, "0.."] = 0
    lora_alpha: Annotated[float, ">0.."] = 16.0
    lora_variant: Literal["lora", "rslora", "dora"] = "lora"
    lora_targets: str = "query,value"
    epochs: Annotated[int, "1.."] = 4
    max_steps: Annotated[int, "0.."] = 0
    batch_size: Annotated[int, "1.."] = 16
    batch_tokens: Annotated[int, "0.."] = 0
    accumulate: Annotated[int, "1.."] = 1
    learning_rate: Annotated[float, ">0.."] = 1e-4
    head_learning_rate: Annotated[float, ">0.."] = 2e-3
    layer_decay: Annotated[float, ">0..1"] = 1.0
    optimizer: Literal["adam", "adamw", "sgd", "lion", "muon"] = "adamw"
    weight_decay: Annotated[float, "0.."] = 0.01
    momentum: Annotated[float, "0..<1"] = 0.9
    schedule: Literal["constant", "linear", "cosine", "step", "exponential", "inverse_time"] = (
        "linear"
    )
    warmup: Annotated[float, "0..<1"] = 0.1
    decay_factor: Annotated[float, ">0..1"] = 0.1
    decay_every: Annotated[int, "1.."] = 1
    decay_unit: Literal["epochs", "steps"] = "epochs"
    decay_rate: Annotated[float, "0.."] = 1.0
    decay_power: Annotated[float, ">0.."] = 1.0
    clip_norm: Annotated[float, "0.."] = 1.0
    ema: Annotated[float, "0..<1"] = 0.0
    monitor: Literal["accuracy", "loss"] = "accuracy"
    patience: Annotated[int, "0.."] = 0
    label_smoothing: Annotated[float, "0..<1"] = 0.0
    seed: Annotated[int, "0.."] = 0


def load_data(config: Config, tags: tuple[str, ...] | None = None) -> data.Splits:
    """Returns the training, validation and test sentences."""
    return data.load_tags(
        config.data,
        text_column=config.text_column or None,
        label_column=config.label_column or None,
        group_column=config.group_column or None,
        validation_fraction=config.validation_fraction,
        test_fraction=config.test_fraction,
        seed=config.seed,
        limit=config.limit or None,
        on_bad=config.on_bad,
        tfds_dir=config.tfds_dir or None,
        tags=tags,
    )


def build_model(
    num_tags: int, backbone: str | models.TextBackbone = "auto", dropout: float = 0.1
) -> keras.Model:
    """Returns a tagger of tokens: backbone, dropout, output.

    Args:
        num_tags: Number of outputs for each token.
        backbone: See `Config`, or what `models.load_text_backbone` returned.
        dropout: Share of the features of each token dropped in training.

    Returns:
        An uncompiled model from a dict of int32 `[batch, tokens]` (`token_ids`, `padding_mask` and,
        where the backbone has them, `segment_ids`) to `[batch, tokens, num_tags]`.
    """
    if isinstance(backbone, str):
        backbone = models.load_text_backbone(backbone)

    tokens = {name: keras.Input((None,), dtype="int32", name=name) for name in backbone.inputs}
    x = backbone.sequence(tokens)
    x = keras.layers.Dropout(dropout, name="dropout")(x)
    outputs = keras.layers.Dense(
        num_tags, activation="softmax", dtype="float32", name="predictions"
    )(x)
    return keras.Model(tokens, outputs, name="tagger")


def main(config: Config, run: training.Run) -> None:
    """Trains, evaluates, saves and reports."""
    # What can be wrong with the settings is found before any data is read.
    _check(config)
    earlier = run.task.get("backbone", {}).get("name")  # what `auto` was when the run began
    name, reason = models.resolve(earlier or config.backbone, kind="text")
    run.say(f"Backbone {reason}")

    # Data
    splits = run.load(load_data, config)
    for note in splits.notes:
        run.say(note)
    with run.strategy.scope():
        backbone = models.load_text_backbone(name)
    length = min(config.max_length, backbone.max_length or config.max_length)
    encoder = data.TagEncoder(
        backbone.tokenizer,
        length,
        stride=config.stride,
    )
    feeds = {
        name: data.TextFeed(
            source,
            encoder,
            num_outputs=len(splits.tags),
            progress=run.progress(f"Tokenising {name} sentences", "sentences"),
        )
        for name, source in splits.sources().items()
    }
    train = feeds["train"].pipeline(
        config.batch_size,
        batch_tokens=config.batch_tokens,
        multiple=run.strategy.num_replicas_in_sync * config.accumulate,
        seed=config.seed,
        shuffle=True,
    )
    held_out = {
        name: feeds[name].pipeline(config.batch_size, like=train) if name in feeds else None
        for name in ("validation", "test")
    }
    tokens = data.token_facts(feeds, train, held_out)
    run.say(data.describe_tokens(tokens))

    # Model
    with run.strategy.scope():
        model = build_model(len(splits.tags), backbone, dropout=config.dropout)
        run.take_over(model)
        if config.lora_rank:
            models.add_lora(
                model,
                config.lora_rank,
                config.lora_alpha,
                models.parse_targets(config.lora_targets),
                dropout=config.backbone_dropout,
                seed=config.seed,
                variant=config.lora_variant,
            )
    run.begin(
        model,
        task={
            "task": "token_classification",
            "labels": "tags",
            "class_names": list(splits.class_names),
            "tags": list(splits.tags),
            "max_length": encoder.max_length,
            "stride": encoder.stride,
            "tokenizer": "tokenizer",
            "backbone": {"name": name, "reason": reason},
        },
        data=splits.facts() | {"tokens": tokens},
    )

    # Training: the head alone first, unless everything is trained at once
    for name, unfreeze in _phases(config, model):
        if not config.lora_rank:  # which has frozen the backbone already
            models.unfreeze(model, unfreeze, dropout=config.backbone_dropout)
        network, phase_train, phase_validation = training.skip_frozen(
            run, model, train, held_out["validation"]
        )
        with run.strategy.scope():
            tuner = training.FineTuner(
                network, accumulate=config.accumulate, clip_norm=config.clip_norm or None
            )
            tuner.compile(
                optimizer=_optimizer(config, model, name, phase_train.steps),
                loss=keras.losses.CategoricalCrossentropy(label_smoothing=config.label_smoothing),
                weighted_metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
            )
        tuner.fit(
            phase_train,
            validation_data=phase_validation,
            epochs=config.epochs,
            phase=run.phase(
                name,
                monitor=f"val_{config.monitor}",
                patience=config.patience or None,
                max_updates=config.max_steps or None,
            ),
        )

    # What it leaves
    if config.lora_rank:
        models.save_adapter(model, run.dir / "adapter", base=run.base(backbone.name))
        models.merge_lora(model)
    score = partial(training.score_tags, tags=splits.tags, class_names=splits.class_names)
    run.evaluate(model, held_out, score, splits.sources())
    run.save(model, backbone.tokenizer)
    run.report()


def _check(config: Config) -> None:
    models.parse_targets(config.lora_targets)
    if config.lora_rank and (config.gradual or config.unfreeze != "all"):
        raise UsageError(
            "--lora-rank was given with --unfreeze or --gradual.",
            "LoRA trains its own updates of a backbone that stays as it is.",
            "Leave one of them out.",
        )


def _phases(config: Config, model: keras.Model) -> list[tuple[str, str]]:
    """Names of the phases, each with what it trains besides the head."""
    if config.gradual:
        stages = models.stages(model.get_layer("backbone"))[-config.gradual :]
        opened = [(f"stage {i}", stage[0]) for i, stage in enumerate(reversed(stages), 1)]
        return [("head", "none"), *opened]
    if config.lora_rank:
        return [("lora", "lora")]
    if config.unfreeze == "all":
        return [("finetune", "all")]
    if config.unfreeze == "none":
        return [("head", "none")]
    return [("head", "none"), ("unfrozen", config.unfreeze)]


def _optimizer(config: Config, model: keras.Model, phase: str, steps: int) -> keras.Optimizer:
    total = min(steps * config.epochs, config.max_steps or steps * config.epochs)
    schedule = training.make_schedule(
        config.schedule,
        config.head_learning_rate if phase == "head" else config.learning_rate,
        total,
        warmup_steps=round(config.warmup * total),
        decay_factor=config.decay_factor,
        decay_every=config.decay_every * (steps if config.decay_unit == "epochs" else 1),
        decay_rate=config.decay_rate,
        decay_power=config.decay_power,
    )
    depths = models.weight_depths(model)
    return training.make_optimizer(
        config.optimizer,
        schedule,
        weight_decay=config.weight_decay,
        momentum=config.momentum,
        ema=config.ema,
        rate_factors={path: config.layer_decay**depth for path, depth in depths.items()},
        exclude_layers=("predictions",),
    )
