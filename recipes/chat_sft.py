"""A personal assistant: fine-tune a language model on examples of how yours should answer.

    tfsft run recipes/chat_sft.py
    tfsft run recipes/chat_sft.py --data my_chats.jsonl --epochs 3
    tfsft run recipes/chat_sft.py --data facts.csv --system-prompt persona.txt
    tfsft run recipes/chat_sft.py --data my_chats.jsonl --replay general-replay
    tfsft run recipes/chat_sft.py --data my_chats.jsonl --backbone gemma3_instruct_1b

Then talk to it: tfsft chat RUN
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
        data: Conversations as JSONL, JSON, CSV, TSV or Parquet: OpenAI messages, ShareGPT, Alpaca,
            prompt and completion, or two columns; a folder of such files called train, validation
            and test; `tfds:NAME`; or `chatterbot`, small talk in English (`chatterbot:german` and
            others in other languages).
        prompt_column: Column with what is asked, of a table; found by itself if empty.
        answer_column: Column with what should be answered; found by itself if empty.
        group_column: Column whose equal values (a customer, a document) stay on one side of the
            split.
        system_prompt: What the assistant is told first, or a text file with it; {column} stands for
            what that column of the row says. It goes with the run.
        template: How conversations are written down: `auto`, the model's own; chatml, llama3,
            gemma, alpaca, plain; or a file with a Jinja template.
        train_on: Which tokens are learned: the `completion`, that is every answer; only the `last`
            answer; or `all`.
        replay: General conversations to mix in, so that they are not forgotten: a file, or
            `general-replay`; empty mixes in none.
        replay_share: Share of these among the training conversations; with --from, that of the
            conversations of that run.
        retain: General conversations that are scored before and after: a file, or `general`; empty
            scores none.
        prompts: File with a prompt in each line, answered at every evaluation; empty takes a few of
            the validation and of the general conversations.
        validation_fraction: Share held out to choose the best epoch, where the data has no split of
            its own.
        test_fraction: Share held out for the final figures, where the data has no split of its own.
        limit: Use about so many conversations, for a quick try; 0 is all.
        on_bad: What to do about a row that is no conversation.
        tfds_dir: Folder of prepared tensorflow-datasets; empty for their own default.
        backbone: `auto`, a starter (smollm2), a name from KerasHub, a kaggle:// or hf:// handle, or
            a local folder.
        max_length: Most tokens of a conversation the network sees; what is longer loses its end.
        packing: Several conversations in one row, which do not see each other.
        lora_rank: Train low-rank updates of so many dimensions instead of the backbone's weights;
            0 trains the weights.
        lora_alpha: Scale of these updates, divided by the rank.
        lora_variant: `rslora` divides by the root of the rank, which keeps high ranks learning;
            `dora` trains the length of each output's weights apart from their direction.
        lora_targets: Projections that get one, with commas: query, key, value, output,
            feedforward; or all.
        dropout: Share dropped before the low-rank updates in training.
        unfreeze: Without low-rank updates: `all`; `auto`, the last quarter of the layers; or the
            prefix of the first layer to train.
        epochs: Passes over the data.
        max_steps: Most updates; 0 is no limit.
        batch_size: Conversations in one update, on average: each learns about as many tokens, so
            that those of short conversations do not count for more.
        batch_tokens: Tokens in one update, padding included, instead of `batch_size`; 0 goes by
            conversations.
        accumulate: Parts a batch is computed in: same result, less memory.
        learning_rate: Highest rate.
        layer_decay: Factor on the rate for each block further from the output; 1 is the same rate
            for all.
        optimizer: How gradients become updates.
        weight_decay: Decoupled weight decay, never on biases and normalisation.
        momentum: Momentum of sgd.
        schedule: Course of the rate after the warm-up.
        warmup: Share of the updates during which the rate rises.
        clip_norm: Largest norm of the gradients; 0 does not clip.
        monitor: What the best epoch is judged by on the validation split; all but loss and accuracy
            compare generated answers.
        patience: Epochs without a better one until training ends; 0 trains them all.
        answers: Held-out conversations that are answered at each evaluation, and for the final
            figures; 0 answers all.
        max_new_tokens: Most tokens of an answer.
        seed: Of splits, order, initial weights and dropout.
    """

    data: str = "chatterbot"
    prompt_column: str = ""
    answer_column: str = ""
    group_column: str = ""
    system_prompt: str = ""
    template: str = "auto"
    train_on: Literal["completion", "all", "last"] = "completion"
    replay: str = ""
    replay_share: Annotated[float, "0..<1"] = 0.2
    retain: str = "general"
    prompts: str = ""
    validation_fraction: Annotated[float, ">0..<1"] = 0.1
    test_fraction: Annotated[float, "0..<1"] = 0.1
    limit: Annotated[int, "0.."] = 0
    on_bad: Literal["stop", "skip"] = "stop"
    tfds_dir: str = ""
    backbone: str = "auto"
    max_length: Annotated[int, "8.."] = 512
    packing: bool = False
    lora_rank: Annotated[int, "0.."] = 8
    lora_alpha: Annotated[float, ">0.."] = 16.0
    lora_variant: Literal["lora", "rslora", "dora"] = "lora"
    lora_targets: str = "query,value"
    dropout: Annotated[float, "0..<1"] = 0.0
    unfreeze: str = "all"
    epochs: Annotated[int, "1.."] = 3
    max_steps: Annotated[int, "0.."] = 0
    batch_size: Annotated[int, "1.."] = 8
    batch_tokens: Annotated[int, "0.."] = 0
    accumulate: Annotated[int, "1.."] = 1
    learning_rate: Annotated[float, ">0.."] = 5e-4
    layer_decay: Annotated[float, ">0..1"] = 1.0
    optimizer: Literal["adam", "adamw", "sgd", "lion", "muon"] = "adamw"
    weight_decay: Annotated[float, "0.."] = 0.0
    momentum: Annotated[float, "0..<1"] = 0.9
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    warmup: Annotated[float, "0..<1"] = 0.05
    clip_norm: Annotated[float, "0.."] = 1.0
    monitor: Literal["loss", "accuracy", "chrf", "bleu", "rougeL", "exact_match"] = "loss"
    patience: Annotated[int, "0.."] = 0
    answers: Annotated[int, "0.."] = 64
    max_new_tokens: Annotated[int, "1.."] = 128
    seed: Annotated[int, "0.."] = 0


def load_data(config: Config) -> data.Splits:
    """Returns the training, validation and test conversations."""
    return data.load_chats(
        config.data,
        prompt_column=config.prompt_column or None,
        answer_column=config.answer_column or None,
        group_column=config.group_column or None,
        system_prompt=data.read_prompt(config.system_prompt),
        validation_fraction=config.validation_fraction,
        test_fraction=config.test_fraction,
        seed=config.seed,
        limit=config.limit or None,
        on_bad=config.on_bad,
        tfds_dir=config.tfds_dir or None,
    )


def build_model(backbone: str | models.CausalLM = "auto") -> keras.Model:
    """Returns a causal language model: KerasHub's, from tokens to logits.

    Args:
        backbone: See `Config`, or what `models.load_causal_lm` returned.

    Returns:
        An uncompiled model from `token_ids` and `padding_mask`, int32 `[batch, tokens]`, to logits
        `[batch, tokens, vocabulary]` of each next token.
    """
    if isinstance(backbone, str):
        backbone = models.load_causal_lm(backbone)
    return backbone.model


def main(config: Config, run: training.Run) -> None:
    """Trains, evaluates, saves and reports."""
    # What can be wrong with the settings is found before any data is read.
    _check(config)
    earlier = run.task.get("backbone", {}).get("name")  # what `auto` was when the run began
    name, reason = models.resolve(earlier or config.backbone, kind="chat")
    run.say(f"Backbone {reason}")

    # Data
    splits = run.load(load_data, config)
    for note in splits.notes:
        run.say(note)
    with run.strategy.scope():
        backbone = models.load_causal_lm(name)
    tokenizer = backbone.tokenizer
    template = data.choose_template(config.template, backbone.template, tokenizer)
    length = min(config.max_length, backbone.max_length or config.max_length)
    encoder = data.ChatEncoder(tokenizer, template, length, train_on=config.train_on)
    sources = dict(splits.sources())
    if config.replay:
        general = data.read_chats(config.replay)
        sources["train"] = data.mix_in(
            sources["train"], general, config.replay_share, seed=config.seed
        )
        run.say(
            f"{len(sources['train']) - len(splits.train)} conversations of {config.replay} are "
            "mixed in."
        )
    feeds = {
        name: data.chat_feed(
            source,
            encoder,
            on_bad=config.on_bad,
            say=run.say,
            progress=run.progress(f"Tokenising {name} conversations", "conversations"),
        )
        for name, source in sources.items()
    }
    run.show_tokens(encoder, feeds["train"].source)
    train = feeds["train"].pipeline(
        config.batch_size,
        batch_tokens=config.batch_tokens,
        even=True,
        multiple=run.strategy.num_replicas_in_sync * config.accumulate,
        packing=config.packing,
        seed=config.seed,
        shuffle=True,
    )
    held_out = {
        name: feeds[name].pipeline(config.batch_size, like=train) if name in feeds else None
        for name in ("validation", "test")
    }
    tokens = data.token_facts(feeds, train, held_out)
    run.say(data.describe_tokens(tokens))
    # Packed rows have several starts, and dropout differs from row to row.
    shared = 0 if config.packing or config.dropout else data.shared_start(feeds.values())

    # Model
    with run.strategy.scope():
        model = build_model(backbone)
        run.take_over(model)
        if config.packing:
            models.allow_packing(model.get_layer("backbone"))
        if config.lora_rank:
            trained = models.add_lora(
                model,
                config.lora_rank,
                config.lora_alpha,
                models.parse_targets(config.lora_targets),
                dropout=config.dropout,
                seed=config.seed,
                variant=config.lora_variant,
            )
        else:
            trained = models.unfreeze(model, config.unfreeze)
    run.say(f"Trains {trained.trainable:,} of {trained.total:,} parameters.")
    run.begin(
        model,
        task={
            "task": "chat",
            "labels": "chat",
            "class_names": [],
            "system_prompt": data.read_prompt(config.system_prompt),
            "template": template.source,
            "train_on": config.train_on,
            "max_length": length,
            "positions": backbone.max_length,
            "max_new_tokens": config.max_new_tokens,
            "tokenizer": "tokenizer",
            "backbone": {"name": name, "reason": reason},
        },
        data=splits.facts() | {"tokens": tokens},
    )

    # What it answers: to fixed prompts, to held-out ones, and to general ones it should not forget
    general = data.read_chats(config.retain) if config.retain else None
    examiner = training.Examiner(
        run,
        model,
        encoder,
        _prompts(config, feeds["validation"].source, general),
        held_out,
        {name: feed.source for name, feed in feeds.items()},
        max_new_tokens=config.max_new_tokens,
        answers=config.answers or None,
    )
    if general is not None:
        examiner.retain(config.retain, data.TextFeed(general, encoder).pipeline(config.batch_size))
    if not config.lora_rank:  # low-rank updates can be taken off at the end
        examiner.before()

    # Training
    with run.strategy.scope():
        tuner = training.FineTuner(
            models.with_token_loss(model, shared=shared),
            accumulate=config.accumulate,
            clip_norm=config.clip_norm or None,
        )
        tuner.compile(
            optimizer=_optimizer(config, model, train.steps),
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
    if config.lora_rank:
        with models.lora_off(model):
            examiner.before()
        models.save_adapter(model, run.dir / "adapter", base=run.base(backbone.name))
        models.merge_lora(model)
    examiner.after()
    run.save(model, tokenizer)
    run.report()


def _check(config: Config) -> None:
    targets = models.parse_targets(config.lora_targets)
    if config.lora_rank and config.unfreeze != "all":
        raise UsageError(
            f"--unfreeze {config.unfreeze} was given with --lora-rank {config.lora_rank}.",
            "LoRA trains its own updates of a backbone that stays as it is.",
            "Set --lora-rank 0, or leave --unfreeze out.",
        )
    if not targets:
        raise UsageError("--lora-targets is empty.", "query, key, value, output, feedforward; all.")
    if config.packing and config.batch_tokens:
        raise UsageError(
            "--packing was given with --batch-tokens.",
            "Packed rows are all about --max-length tokens long already.",
            "Leave one of them out.",
        )


def _prompts(config: Config, validation: data.TextSource, general: data.TextSource | None) -> list:
    """Returns the fixed prompts: a person's, or some held-out ones and some general ones."""
    if config.prompts:
        lines = [line.strip() for line in data.read_text(config.prompts).splitlines()]
        system = data.read_prompt(config.system_prompt)
        first = [{"role": "system", "content": system}] if system else []
        return [[*first, {"role": "user", "content": line}] for line in lines if line]
    found = []
    for source in (validation, general):
        rows = training.spread(len(source), 4) if source is not None else []
        found += [
            training.last_turn(conversation)[0]
            for conversation in (source.column("messages", rows) if len(rows) else [])
        ]
    return found


def _optimizer(config: Config, model: keras.Model, steps: int) -> keras.Optimizer:
    total = min(steps * config.epochs, config.max_steps or steps * config.epochs)
    schedule = training.make_schedule(
        config.schedule,
        config.learning_rate,
        total,
        warmup_steps=round(config.warmup * total),
    )
    depths = models.weight_depths(model)
    return training.make_optimizer(
        config.optimizer,
        schedule,
        weight_decay=config.weight_decay,
        momentum=config.momentum,
        rate_factors={path: config.layer_decay**depth for path, depth in depths.items()},
    )
