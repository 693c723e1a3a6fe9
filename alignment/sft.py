"""Supervised fine-tuning: the model learns the assistant's answers, and nothing else, of chat rows."""

from pathlib import Path
from typing import Any

from alignment import checkpoints
from alignment.loop import (
    Progress,
    Stopwatch,
    check_lengths,
    choose_attention,
    choose_precision,
    keep_short,
    load_model,
    planned,
    quiet,
    require_trl,
    save,
    settings,
    use_threads,
)
from alignment.masking import IGNORED, ChatEncoder, Encoded
from alignment.order import num_steps, row_order
from alignment.packing import PackedCollator
from alignment.recipe import SftRecipe
from alignment.rows import read_chat_rows


def fine_tune(recipe: SftRecipe, model: Path, data: Path, out: Path, seed: int = 0, progress: Progress | None = None) -> dict[str, Any]:
    """Trains the model folder `model` on the chat rows of `data`; writes `out`/model and `out`/metrics.jsonl.

    Before the first step every row is proved: what is trained decodes to the assistant's words and the stop token, and the prompt's ids are
    those of inference. The same recipe, seed, model and rows give the same weights, also when the run was killed and started again.
    Returns steps, rows, dropped_rows, tokens, trained_tokens, loss_first, loss_last, precision, resumed_from, seconds, cpu_seconds and
    peak_rss_bytes. InputError for bad rows, a model folder that is none, a chat template that trains the wrong words.
    """
    watch = Stopwatch()
    rows = read_chat_rows(data)
    require_trl()
    use_threads(recipe.threads)
    with quiet():
        encoder = ChatEncoder(model)
        names = [f"{data}, line {row.line}" for row in rows]
        encoded = encoder.encode([row.messages for row in rows], names)
        kept = keep_short(recipe, [len(row.ids) for row in encoded], names)
        trained = train([encoded[at] for at in kept], recipe, encoder, model, data, out, seed, progress)
    return {**trained, "rows": len(rows), "dropped_rows": len(rows) - len(kept), **watch.result()}


def train(
    encoded: list[Encoded],
    recipe: SftRecipe,
    encoder: ChatEncoder,
    model: Path,
    data: Path,
    out: Path,
    seed: int,
    progress: Progress | None,
) -> dict[str, Any]:
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    from alignment.answer_head import score_answers_only
    from alignment.metrics import MetricsWriter

    precision = choose_precision(recipe.precision)
    dataset = pack(encoded, recipe) if recipe.packing else as_dataset(encoded)
    lengths = [len(ids) for ids in dataset["input_ids"]]
    network = load_model(model, choose_attention(precision, max(lengths) * (recipe.batch_rows if recipe.packing else 1)))
    check_lengths(recipe, network, encoder, "[sft]")
    rows_per_step = recipe.batch_rows * recipe.gradient_accumulation
    steps = num_steps(len(dataset), recipe.steps, recipe.epochs, rows_per_step)
    order = row_order(lengths, steps * recipe.gradient_accumulation, recipe.batch_rows, seed)

    work = checkpoints.fingerprint(recipe, model, data, seed, precision)
    resume = checkpoints.newest(out / "checkpoints", work)
    metrics = MetricsWriter(out / "metrics.jsonl", checkpoints.step_of(resume), progress)
    trainer = planned(SFTTrainer, order)(
        model=network,
        args=SFTConfig(
            **settings(recipe, out, seed, steps, precision),
            packing=recipe.packing,
            dataset_kwargs={"skip_prepare_dataset": True},  # rows come encoded and proved
        ),
        train_dataset=dataset,
        processing_class=encoder.tokenizer,
        callbacks=[metrics, checkpoints.marker_callback(work)],
    )
    if recipe.packing:
        trainer.data_collator = PackedCollator(trainer.data_collator)
    score_answers_only(network)
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    save(network, model, out / "model", encoder)
    checkpoints.remove(out / "checkpoints")
    answers = [sum(label != IGNORED for label in labels) for labels in dataset["labels"]]
    return {
        "steps": steps,
        "tokens": sum(lengths[at] for at in order),
        "trained_tokens": sum(answers[at] for at in order),
        "loss_first": metrics.rows[0]["loss"],
        "loss_last": metrics.rows[-1]["loss"],
        "precision": precision,
        "resumed_from": checkpoints.step_of(resume),
    }


def as_dataset(encoded: list[Encoded]) -> Any:
    """The columns that trl's trainer reads: input_ids, and labels with -100 where nothing is trained."""
    from datasets import Dataset

    return Dataset.from_dict({"input_ids": [row.ids for row in encoded], "labels": [row.labels for row in encoded]})


def pack(encoded: list[Encoded], recipe: SftRecipe) -> Any:
    """Whole rows put together into rows of at most max_length, best fit first; the column seq_lengths tells them apart."""
    from trl.data_utils import pack_dataset

    return pack_dataset(as_dataset(encoded), recipe.max_length, "bfd")
