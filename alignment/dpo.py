"""Direct preference optimisation (Rafailov et al. 2023, eq. 7): the preferred answer becomes likelier against the other one."""

from dataclasses import dataclass
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
from alignment.masking import ChatEncoder
from alignment.order import num_steps, row_order
from alignment.recipe import DpoRecipe
from alignment.rows import PreferenceRow, read_preference_rows

REFERENCE_TOKENS = 4096  # padded tokens in one batch of the reference pass


@dataclass(frozen=True)
class Pair:
    """One prompt and two answers as ids; an answer ends with the stop token."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]

    @property
    def length(self) -> int:
        """Tokens of the longer of the two conversations."""
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))

    @property
    def tokens(self) -> int:
        """Tokens that one step reads: the prompt twice, and both answers."""
        return 2 * len(self.prompt_ids) + len(self.chosen_ids) + len(self.rejected_ids)


def prefer(recipe: DpoRecipe, model: Path, data: Path, out: Path, seed: int = 0, progress: Progress | None = None) -> dict[str, Any]:
    """Trains the model folder `model` on the preference rows of `data`; writes `out`/model and `out`/metrics.jsonl.

    The reference is `model` as it stands. Both answers of every row are proved as in `fine_tune`. The same recipe, seed, model and rows
    give the same weights, also when the run was killed and started again. Returns steps, rows, dropped_rows, tokens, trained_tokens,
    loss_first, loss_last, margin_last, accuracy_last, precision, resumed_from, seconds, cpu_seconds and peak_rss_bytes. InputError as
    `fine_tune`.
    """
    watch = Stopwatch()
    rows = read_preference_rows(data)
    require_trl()
    use_threads(recipe.threads)
    with quiet():
        encoder = ChatEncoder(model)
        names = [f"{data}, line {row.line}" for row in rows]
        pairs = encode_pairs(encoder, rows, names)
        kept = keep_short(recipe, [pair.length for pair in pairs], names)
        trained = train([pairs[at] for at in kept], recipe, encoder, model, data, out, seed, progress)
    return {**trained, "rows": len(rows), "dropped_rows": len(rows) - len(kept), **watch.result()}


def encode_pairs(encoder: ChatEncoder, rows: list[PreferenceRow], names: list[str]) -> list[Pair]:
    """Prompt and answers as ids, through the same proof as SFT rows; the answers begin where inference would begin to write."""
    sides = [encoder.encode([[*row.prompt, getattr(row, side)] for row in rows], names) for side in ("chosen", "rejected")]
    pairs = []
    for chosen, rejected in zip(*sides, strict=True):
        (start, chosen_end), (_, rejected_end) = chosen.spans()[-1], rejected.spans()[-1]
        pairs.append(Pair(chosen.ids[:start], chosen.ids[start:chosen_end], rejected.ids[start:rejected_end]))
    return pairs


def train(
    pairs: list[Pair],
    recipe: DpoRecipe,
    encoder: ChatEncoder,
    model: Path,
    data: Path,
    out: Path,
    seed: int,
    progress: Progress | None,
) -> dict[str, Any]:
    from datasets import Dataset
    from trl.trainer.dpo_config import DPOConfig

    from alignment.metrics import MetricsWriter

    precision = choose_precision(recipe.precision)
    network = load_model(model, choose_attention(precision, max(pair.length for pair in pairs)))
    check_lengths(recipe, network, encoder, "[dpo]")
    rows_per_step = recipe.batch_rows * recipe.gradient_accumulation
    steps = num_steps(len(pairs), recipe.steps, recipe.epochs, rows_per_step)
    order = row_order([pair.length for pair in pairs], steps * recipe.gradient_accumulation, recipe.batch_rows, seed)
    used = sorted(set(order))  # the reference pass reads no row that training does not
    place = {row: at for at, row in enumerate(used)}
    names = ("prompt_ids", "chosen_ids", "rejected_ids")

    work = checkpoints.fingerprint(recipe, model, data, seed, precision)
    resume = checkpoints.newest(out / "checkpoints", work)
    metrics = MetricsWriter(out / "metrics.jsonl", checkpoints.step_of(resume), progress)
    trainer = preference_trainer([place[row] for row in order])(
        model=network,
        args=DPOConfig(
            **settings(recipe, out, seed, steps, precision),
            beta=recipe.beta,
            loss_type=[recipe.loss_type],
            precompute_ref_log_probs=recipe.precompute_reference,
        ),
        train_dataset=Dataset.from_dict({name: [getattr(pairs[row], name) for row in used] for name in names}),
        processing_class=encoder.tokenizer,
        callbacks=[metrics, checkpoints.marker_callback(work)],
    )
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    save(network, model, out / "model", encoder)
    checkpoints.remove(out / "checkpoints")
    last = metrics.rows[-1]
    return {
        "steps": steps,
        "tokens": sum(pairs[row].tokens for row in order),
        "trained_tokens": sum(len(pairs[row].chosen_ids) + len(pairs[row].rejected_ids) for row in order),
        "loss_first": metrics.rows[0]["loss"],
        "loss_last": last["loss"],
        "margin_last": last["rewards/margins"],
        "accuracy_last": last["rewards/accuracies"],
        "precision": precision,
        "resumed_from": checkpoints.step_of(resume),
    }


def preference_trainer(order: list[int]) -> Any:
    """trl's DPO trainer, taking encoded rows in `order`, scoring answers only and running the reference over sorted rows."""
    import torch
    from trl.trainer.dpo_trainer import DPOTrainer

    from alignment.answer_head import score_answers_only

    class PreferenceTrainer(planned(DPOTrainer, order)):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            if self.ref_model is not None:  # not precomputed: trl loaded a copy
                score_answers_only(self.model)
                score_answers_only(self.ref_model)

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset  # encoded and proved already

        def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
            score_answers_only(self.model)
            self.model.eval()
            logps = {"ref_chosen_logps": torch.empty(len(dataset)), "ref_rejected_logps": torch.empty(len(dataset))}
            examples = dataset.to_list()
            for batch in reference_batches(
                [len(one["prompt_ids"]) + max(len(one["chosen_ids"]), len(one["rejected_ids"])) for one in examples]
            ):
                inputs = self._prepare_inputs(self.data_collator([examples[row] for row in batch]))
                for key, values in zip(logps, self.compute_ref_log_probs(self.model, inputs), strict=True):
                    logps[key][batch] = values.float().cpu()
            self.model.train()
            for key, values in logps.items():
                dataset = dataset.add_column(key, values.tolist())
            return dataset

    return PreferenceTrainer


def reference_batches(lengths: list[int]) -> list[list[int]]:
    """Rows sorted by length, as many to a batch as fit REFERENCE_TOKENS with both answers."""
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: (lengths[row], row)):
        if not batches or 2 * lengths[row] * (len(batches[-1]) + 1) > REFERENCE_TOKENS:
            batches.append([])
        batches[-1].append(row)
    return batches
