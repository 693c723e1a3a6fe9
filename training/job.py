"""Everything a rank needs to know of a run, as JSON-able values, and what every rank derives from it alike."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline.benchmarks import read_mmlu
from data_pipeline.errors import InputError
from data_pipeline.storage import sha256_of
from data_pipeline.tokens.chat import END, END_OF_TEXT
from data_pipeline.tokens.mixture import Mixture
from data_pipeline.tokens.mixture_history import EditedMixture
from data_pipeline.tokens.shards import TokenShards
from data_pipeline.tokens.tokenizer import load_tokenizer
from data_pipeline.tokens.validation import check_held_out
from modeling.config import DecoderConfig
from modeling.counts import count_parameters
from modeling.cpu_compiler import check_cpu_compiler
from training.batches import BatchPlan
from training.fixed_tree import check_ranks
from training.hardware import memory_bytes, pick_device, resolve_precision
from training.recipe import FREE_TO_CHANGE, LayoutRecipe, ModelRecipe, PretrainRecipe

STATE_BYTES = 16  # of one parameter at least: weight, gradient and two moments in float32; in bfloat16 the masters make up for it


@dataclass(frozen=True, kw_only=True)
class Job:
    """One pretraining run: recipe sections, seed, and where things are."""

    recipe: PretrainRecipe
    model: ModelRecipe
    seed: int
    tokens: Path  # one folder of shards per source
    tokenizer: Path
    out: Path  # checkpoints/, metrics.jsonl, result.json and model/ go here
    layout: LayoutRecipe = dataclasses.field(default_factory=LayoutRecipe)
    edit_mixture: bool = False  # other phases than the checkpoint's are meant

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` takes them back."""
        sections = {name: getattr(self, name).model_dump(mode="json") for name in ("recipe", "model", "layout")}
        return {
            **sections,
            "seed": self.seed,
            "edit_mixture": self.edit_mixture,
            **{name: str(getattr(self, name)) for name in ("tokens", "tokenizer", "out")},
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Job":
        return cls(
            recipe=PretrainRecipe(**values["recipe"]),
            model=ModelRecipe(**values["model"]),
            layout=LayoutRecipe(**values["layout"]),
            seed=values["seed"],
            edit_mixture=values.get("edit_mixture", False),
            **{name: Path(values[name]) for name in ("tokens", "tokenizer", "out")},
        )


@dataclass(frozen=True)
class Plan:
    """What follows from a job before anything is trained."""

    mixture: Mixture | EditedMixture
    batches: BatchPlan
    config: DecoderConfig
    identity: dict[str, Any]


def make_plan(job: Job, ranks: int = 1) -> Plan:
    """Opens the shards, settles the decoder's sizes, and refuses what cannot work, each in one line."""
    recipe = job.recipe
    check_layout(job, ranks)
    if not recipe.phases:
        raise InputError(
            '[pretrain] phases is empty; give at least one, like phases = [{ name = "one", steps = 100, weights = { web = 1 } }]'
        )
    if recipe.compile and pick_device().type == "cpu":
        check_cpu_compiler("[pretrain] compile = true", "Install one, or set compile = false")
    sources = sorted({source for phase in recipe.phases for source, weight in phase.weights.items() if weight > 0})
    shards = {source: TokenShards.open(job.tokens / source) for source in sources}
    config = decoder_config(job)
    if recipe.context > config.max_positions:
        raise InputError(
            f"[pretrain] context = {recipe.context} is longer than the decoder's max_positions = {config.max_positions}; "
            "lower it or set [model] max_positions"
        )
    check_memory(config, ranks)
    digest = sha256_of(job.tokenizer / "tokenizer.json")
    for source, one in shards.items():
        if one.tokenizer_sha256 != digest:
            raise InputError(f"{job.tokens / source}: written with another tokenizer than {job.tokenizer}; run `phial data tokenize` again")
    for phase in recipe.phases:  # sources of weight 0 need no shards
        unknown = {source for source, weight in phase.weights.items() if weight == 0} - shards.keys()
        shards.update({source: next(iter(shards.values())) for source in unknown})
    check_held_out(recipe.validation, recipe.phases)
    for source in recipe.validation:
        if TokenShards.open(job.tokens / source).tokenizer_sha256 != digest:
            raise InputError(f"{job.tokens / source}: written with another tokenizer than {job.tokenizer}; run `phial data tokenize` again")
    if recipe.benchmarks:
        read_mmlu(recipe.benchmarks, "test")
    mixture = Mixture(list(recipe.phases), shards, recipe.context, recipe.rows_per_step, job.seed)
    batches = BatchPlan.deal(recipe.rows_per_step, recipe.micro_rows, job.layout.data_ranks(ranks))
    return Plan(mixture, batches, config, identity_of(job, config, mixture))


def check_layout(job: Job, ranks: int) -> None:
    """Refuses settings that so many ranks cannot have."""
    recipe, layout = job.recipe, job.layout
    data = layout.data_ranks(ranks)
    if layout.offload != "none" and (recipe.deterministic or ranks == 1):
        here = "a run with [pretrain] deterministic = true" if recipe.deterministic else "a run of one rank"
        raise InputError(f'[layout] offload = {layout.offload!r} is ZeRO\'s, which {here} does without; set offload = "none"')
    if not recipe.deterministic:
        return
    if layout.zero_stage > 1 and ranks > 1:
        raise InputError(
            "[pretrain] deterministic = true adds gradients in its own fixed order; [layout] zero_stage 0 and 1 are allowed, "
            f"got {layout.zero_stage}"
        )
    if layout.context > 1:
        raise InputError(
            f"[pretrain] deterministic = true is for data and tensor ranks; [layout] context = 1 is allowed, got {layout.context}"
        )
    if not recipe.threads:
        raise InputError(
            "[pretrain] deterministic = true needs the same threads in every rank on every machine; set threads, each rank's, to 1 or more"
        )
    check_ranks(data)
    if not recipe.micro_rows or recipe.rows_per_step % (data * recipe.micro_rows):
        raise InputError(
            "[pretrain] deterministic = true needs forward passes of equally many rows: a micro_rows that divides the "
            f"{recipe.rows_per_step} rows of {data} data ranks, got {recipe.micro_rows}"
        )


def check_memory(config: DecoderConfig, ranks: int = 1) -> None:
    """Refuses a decoder whose training state alone is more than this machine's memory; of several ranks `phial plan` knows more."""
    if ranks > 1:
        return
    on_cpu = pick_device().type == "cpu"  # beside a GPU only the weights begin here, in float32
    needed, there = count_parameters(config) * (STATE_BYTES if on_cpu else 4), memory_bytes()
    if needed > there:
        raise InputError(
            f"[model] {count_parameters(config):,} parameters take {needed / 2**30:,.1f} GiB to train, this machine has "
            f"{there / 2**30:,.1f} GiB of memory; a smaller preset, vocab_size, hidden_size or num_layers is needed"
        )


def decoder_config(job: Job) -> DecoderConfig:
    """The decoder's sizes, with vocabulary and special ids of the tokenizer."""
    tokenizer = load_tokenizer(job.tokenizer)
    entries = tokenizer.get_vocab_size()
    if 0 < job.model.vocab_size < entries:
        raise InputError(
            f"[model] vocab_size = {job.model.vocab_size} is less than the tokenizer's {entries} entries; 0 takes the tokenizer's"
        )
    ends = tuple(one for one in (tokenizer.token_to_id(END_OF_TEXT), tokenizer.token_to_id(END)) if one is not None)
    return job.model.config(entries, eos_ids=ends, pad_id=tokenizer.token_to_id(END_OF_TEXT))


def identity_of(job: Job, config: DecoderConfig, mixture: Mixture | EditedMixture) -> dict[str, Any]:
    """Every setting that decides what is trained, flat: a checkpoint is gone on from only where all of them agree."""
    recipe = job.recipe.model_dump(mode="json") | {"precision": resolve_precision(job.recipe.precision)[0]}
    model = json.loads(json.dumps(dataclasses.asdict(config)))  # as a manifest gives it back: lists for tuples
    free = FREE_TO_CHANGE - ({"micro_rows", "threads", "attention", "recompute", "compile"} if job.recipe.deterministic else set())
    identity = {f"[pretrain] {name}": value for name, value in recipe.items() if name not in free}
    identity |= {f"[model] {name}": value for name, value in model.items()}
    return identity | {"[run] seed": job.seed, "data": mixture.fingerprint()}
