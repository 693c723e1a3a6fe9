"""The recipe sections [model], [pretrain] and [layout]. Imports no torch."""

import dataclasses
from typing import Literal

from pydantic import Field, model_validator

from data_pipeline.errors import InputError
from data_pipeline.recipe import Section
from data_pipeline.tokens.mixture import PhaseRecipe
from modeling.config import DecoderConfig
from modeling.errors import ModelError
from modeling.presets import preset

Precision = Literal["auto", "float32", "bfloat16", "bfloat16-master"]
Attention = Literal["auto", "sdpa", "eager", "flex", "varlen", "flash"]  # those of modeling.backends, which imports torch
FLOAT8_TOKENS = 16  # the kernels' alignment, in tokens: a weight's gradient is a product over them


class ModelRecipe(Section):
    """[model]: a member of the family by name, and sizes that differ from it."""

    preset: str = Field("demo", description="the decoder to start from; a name of modeling.presets.PRESETS")
    vocab_size: int = Field(0, ge=0, description="0: as many entries as the tokenizer has")
    hidden_size: int | None = Field(None, ge=2)
    intermediate_size: int | None = Field(None, ge=1)
    num_layers: int | None = Field(None, ge=1)
    num_heads: int | None = Field(None, ge=1)
    num_kv_heads: int | None = Field(None, ge=1)
    max_positions: int | None = Field(None, ge=1, description="the longest context the decoder accepts")
    rope_theta: float | None = Field(None, gt=0)
    window_keys: int | None = Field(None, ge=0, description="keys a token attends to, itself included; 0: no window")
    tied: bool | None = Field(None, description="one matrix for embedding and head")
    initializer_range: float | None = Field(None, gt=0, description="deviation of the initial weights; under muP at the base width")
    mup_base_width: int | None = Field(
        None, ge=1, description="muP: the width at which learning_rate was tuned; logits are divided by hidden_size over this"
    )

    def preset_vocabulary(self) -> int:
        """The entries of the preset's own vocabulary, where no tokenizer is at hand."""
        return preset(self.preset).vocab_size

    def config(self, tokenizer_entries: int, eos_ids: tuple[int, ...] = (), pad_id: int | None = None) -> DecoderConfig:
        """The decoder's sizes; the vocabulary and special ids come from the tokenizer. Sizes that disagree are a ModelError of one line.

        A muP decoder keeps its preset's base width where another hidden_size is asked for. Dummy ids name entries of the preset's own
        vocabulary and are left out of another.
        """
        base = preset(self.preset)
        apart = {"preset", "vocab_size", "mup_base_width"}
        changes = {name: value for name, value in self.model_dump(exclude=apart).items() if value is not None}
        if self.mup_base_width and not base.mup:
            raise ModelError(f"[model] mup_base_width = {self.mup_base_width}: preset {self.preset!r} is no muP decoder; leave it out")
        if base.mup:
            changes["logits_divisor"] = (self.hidden_size or base.hidden_size) / (
                self.mup_base_width or base.hidden_size / base.logits_divisor
            )
        if "num_heads" in changes and "num_kv_heads" not in changes:
            changes["num_kv_heads"] = changes["num_heads"]
        if changes.get("window_keys") == 0:
            changes["window_keys"] = None
        entries = self.vocab_size or tokenizer_entries
        dummy_ids = base.dummy_ids if entries == base.vocab_size else ()
        return dataclasses.replace(base, **changes, vocab_size=entries, bos_id=None, eos_ids=eos_ids, pad_id=pad_id, dummy_ids=dummy_ids)


class PretrainRecipe(Section):
    """[pretrain]: data order, optimisation, numerics, checkpoints."""

    phases: tuple[PhaseRecipe, ...] = Field((), description="one after another; the run's length is the sum of their steps")
    context: int = Field(256, ge=2, le=131_072, description="input tokens per row")
    rows_per_step: int = Field(16, ge=1, description="rows of one optimizer step, over all ranks")
    micro_rows: int = Field(0, ge=0, description="rows that one forward pass takes at most; 0: all rows of the rank")

    learning_rate: float = Field(1e-3, gt=0, le=1, description="peak rate")
    min_ratio: float = Field(0.1, ge=0, le=1, description="the last update's rate as a part of the peak")
    warmup_steps: int = Field(20, ge=0)
    schedule: Literal["cosine", "wsd"] = Field("cosine", description="wsd: warm-up, stable, decay")
    decay_fraction: float = Field(0.2, gt=0, le=1, description="wsd: the part of the run over which the rate falls")
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    epsilon: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.1, ge=0, description="for projection matrices and an untied head; never norms and embeddings")
    clip: float = Field(1.0, ge=0, description="the gradient's norm is scaled down to this; 0: never")
    z_loss: float = Field(0.0, ge=0, description="weight of the squared log-partition term; part of the loss that is logged")

    precision: Precision = Field(
        "auto",
        description="auto: bfloat16-master on a GPU that has bfloat16, bfloat16 autocast on such a CPU, else float32; bfloat16-master: "
        "weights in bfloat16, updated through float32 masters",
    )
    attention: Attention = Field(
        "auto", description="the kernel; auto: sdpa or eager on a CPU; on CUDA flex for blocksparse layers, varlen in bfloat16, else sdpa"
    )
    float8: Literal["none", "tensorwise", "rowwise"] = Field("none", description="float8 products in the layers; needs torchao and a GPU")
    recompute: Literal["none", "selective", "full"] = Field(
        "none", description="what layers make again on the way back instead of keeping it: memory for time"
    )
    compile: bool = Field(False, description="torch.compile of the layers; worth it for long runs, its first use takes half a minute")
    threads: int = Field(
        0, ge=0, le=1024, description="CPU threads of a machine's ranks together, of each rank where deterministic; 0: every core there is"
    )
    deterministic: bool = Field(
        False, description="1, 2, 4, ... data-parallel ranks give the same bits: gradients are added in one fixed tree; ZeRO stages 0 and 1"
    )

    spike_sigmas: float = Field(
        0.0,
        ge=0,
        description="an update is left out where loss or gradient norm lies so many deviations above the mean of the last steps; 0: never",
    )
    spike_window: int = Field(128, ge=8, le=100_000, description="steps that the mean and deviation are taken over")
    rewind_after: int = Field(
        5, ge=1, description="so many spikes in a row: back to the last checkpoint before them, and past their rows without an update"
    )
    max_rewinds: int = Field(3, ge=0, description="after so many the run stops with a line")

    initial: str = Field("", description="weights to begin with: a Hugging Face folder or a checkpoint; empty: drawn from the seed")

    validation: dict[str, int] = Field({}, description="sources held out, and rows of each: their loss is logged at every evaluation")
    benchmarks: str = Field("", description="a folder in MMLU's layout whose questions are asked at every evaluation; empty: none")
    benchmark_items: int = Field(100, ge=1, description="how many of its questions, at even distances")
    evaluate_every: int = Field(0, ge=0, description="steps between evaluations; 0: only at the end")

    checkpoints: str = Field("", description="where checkpoints go, a folder or an address (s3://...); empty: checkpoints/ of the run")
    checkpoint_every: int = Field(100, ge=1, description="steps; the last step always writes one")
    keep_last: int = Field(2, ge=1, description="complete checkpoints that are kept")
    keep_every: int = Field(0, ge=0, description="checkpoints of a multiple of so many steps are kept for good; 0: none")
    log_every: int = Field(10, ge=1, description="steps per row of metrics.jsonl")
    tensorboard: bool = Field(False, description="also write TensorBoard's event files; needs the extra tensorboard")
    peak_flops: float = Field(
        0.0, ge=0, description="of one rank's device, for the utilisation that is logged; 0: what is known of the device"
    )

    @model_validator(mode="after")
    def warmup_fits(self) -> "PretrainRecipe":
        if self.phases and self.warmup_steps > self.num_steps:
            raise ValueError(f"warmup_steps={self.warmup_steps} is more than the {self.num_steps} steps of all phases")
        return self

    @model_validator(mode="after")
    def float8_fits(self) -> "PretrainRecipe":
        if self.float8 != "none" and self.context % FLOAT8_TOKENS:
            raise ValueError(f"context={self.context} is not a multiple of {FLOAT8_TOKENS}, which float8={self.float8!r} needs")
        if self.float8 == "rowwise" and self.precision == "float32":
            raise ValueError("float8='rowwise' gives bfloat16 products only; precision='float32' has 'tensorwise'")
        return self

    @property
    def num_steps(self) -> int:
        """Optimizer steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def phase_of(self, step: int) -> PhaseRecipe:
        """The phase that step `step` (from 0) belongs to."""
        for phase in self.phases:
            if step < phase.steps:
                return phase
            step -= phase.steps
        return self.phases[-1]


class LayoutRecipe(Section):
    """[layout]: how a decoder lies over ranks. Everything here may change from one resumption to the next."""

    zero_stage: int = Field(
        default=1, ge=0, le=3, description="what data ranks divide: 0 nothing, 1 moments, 2 gradients too, 3 weights too"
    )
    tensor: int = Field(default=1, ge=1, le=1024, description="ranks over which heads, features and vocabulary are split")
    context: int = Field(default=1, ge=1, le=1024, description="ranks over which the tokens of a row are split")
    context_way: Literal["ulysses", "ring", "halo"] = Field(
        default="ulysses",
        description="how attention sees other ranks' tokens: tokens to heads and back, keys round a ring, the window's keys only",
    )
    sequence: bool = Field(
        default=False, description="tokens between blocks are split over the tensor ranks as well (sequence parallelism)"
    )
    offload: Literal["none", "cpu"] = Field(
        default="none", description="cpu: the optimizer's states stay in host memory; ZeRO stages 1 to 3 over several ranks"
    )
    overlap: bool = Field(default=True, description="sum gradients while the backward pass goes on")

    @model_validator(mode="after")
    def parts_fit(self) -> "LayoutRecipe":
        if self.sequence and self.tensor == 1:
            raise ValueError("sequence=true splits tokens over tensor ranks, and tensor=1; raise tensor or leave it out")
        if self.offload != "none" and self.zero_stage == 0:
            raise ValueError(f"offload={self.offload!r} needs a zero_stage of 1 to 3, got 0")
        return self

    @property
    def ranks_of_a_copy(self) -> int:
        """Ranks that work on the same rows."""
        return self.tensor * self.context

    def data_ranks(self, ranks: int) -> int:
        """Ranks along "data" where there are so many in all; a number that the others do not divide is refused in one line."""
        if ranks % self.ranks_of_a_copy:
            raise InputError(
                f"[layout] tensor = {self.tensor} and context = {self.context} need a multiple of {self.ranks_of_a_copy} ranks, got {ranks}"
            )
        return ranks // self.ranks_of_a_copy


def rows_at_a_time(per_rank: int, micro_rows: int) -> int:
    """Rows of one forward pass: the most that `micro_rows` allows (0: no limit) and that divide a rank's rows."""
    limit = min(micro_rows or per_rank, per_rank)
    return next(size for size in range(limit, 0, -1) if per_rank % size == 0)


# What may differ between a run and its resumption: how it is computed and watched, not what is trained.
FREE_TO_CHANGE = {"micro_rows", "attention", "recompute", "compile", "threads", "tensorboard", "peak_flops"}
FREE_TO_CHANGE |= {"checkpoints", "checkpoint_every", "keep_last", "keep_every", "log_every", "validation", "evaluate_every"}
FREE_TO_CHANGE |= {"benchmarks", "benchmark_items", "spike_sigmas", "spike_window", "rewind_after", "max_rewinds"}
