"""What fine-tuning on answers and on preferences share around trl's trainers: settings, metrics, resume, the final folder."""

import os
import resource
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alignment.masking import ChatEncoder
from alignment.recipe import TuningRecipe
from data_pipeline.errors import InputError, missing_extra
from data_pipeline.storage import atomic_folder, read_json, write_json
from data_pipeline.tokens.chat import stop_ids

# Called after every step with (steps done, steps in all, the latest logged metrics).
Progress = Callable[[int, int, dict[str, float]], None]

# Copied as they are, so that nothing but the weights differs between a model and its fine-tuned form.
KEPT_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")

SHORT_ROW = 512  # tokens; above, attention weights written out would cost more memory than the time is worth

SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}


def require_trl() -> None:
    """Loads trl and its companions; a missing one is an error of one line that names its install line."""
    try:
        import trl.trainer.dpo_trainer
        import trl.trainer.sft_trainer  # noqa: F401
    except ImportError as error:
        package = (error.name or "trl").partition(".")[0]
        raise missing_extra(package, f"pip install '{'trl>=1.16,<2' if package == 'trl' else package}'", "fine-tuning") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Progress bars of the libraries off, and their notices that say nothing to a user of ours; real warnings stay."""
    import accelerate.utils.other
    import datasets
    import transformers

    # accelerate imports all of DeepSpeed (1.5 s, 200 MB, a notice) to ask whether the model is one of its engines; alone it never is
    deepspeed_available = accelerate.utils.other.is_deepspeed_available
    if "WORLD_SIZE" not in os.environ:
        accelerate.utils.other.is_deepspeed_available = lambda: False

    bars = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    with warnings.catch_warnings():
        # trl still sets transformers' old name of activation checkpointing; we pass neither
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*", category=FutureWarning)
        try:
            yield
        finally:
            accelerate.utils.other.is_deepspeed_available = deepspeed_available
            datasets.enable_progress_bars()
            if bars:
                transformers.utils.logging.enable_progress_bar()


def use_threads(threads: int) -> None:
    import torch

    if threads:
        torch.set_num_threads(threads)


def choose_precision(precision: str) -> str:
    """float32 or bfloat16; `auto` takes bfloat16 where the processor multiplies it natively. InputError where a GPU lacks it."""
    import torch

    if torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported()
        if precision == "bfloat16" and not native:
            raise InputError("precision = 'bfloat16': this GPU has no bfloat16; use float32 or auto")
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return ("bfloat16" if native else "float32") if precision == "auto" else precision


def choose_attention(precision: str, longest: int) -> str:
    """transformers' name of the attention: on a CPU in bfloat16 the fused one's backward pass takes twice as long for short rows."""
    import torch

    return "eager" if precision == "bfloat16" and longest <= SHORT_ROW and not torch.cuda.is_available() else "sdpa"


def settings(recipe: TuningRecipe, out: Path, seed: int, steps: int, precision: str) -> dict[str, Any]:
    """The arguments that SFTConfig and DPOConfig share."""
    import torch

    return {
        "output_dir": str(out / "checkpoints"),
        "max_steps": steps,
        "per_device_train_batch_size": recipe.batch_rows,
        "gradient_accumulation_steps": recipe.gradient_accumulation,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": SCHEDULES[recipe.schedule],
        "warmup_steps": round(recipe.warmup * steps),
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.gradient_clip,
        "max_length": None,  # long rows were dropped by name before; nothing is cut
        "bf16": precision == "bfloat16",
        "gradient_checkpointing": recipe.gradient_checkpointing,
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
        "seed": seed,
        "logging_steps": recipe.log_every,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,  # a loss that is no number must stop the run, not be averaged away
        "save_strategy": "steps" if recipe.save_every else "no",
        "save_steps": recipe.save_every or 500,
        "save_total_limit": 2,  # the older one is the way back when a kill cuts the newer one short
        "report_to": "none",
        "disable_tqdm": True,
    }


def load_model(folder: Path, attention: str) -> Any:
    """transformers' model in float32, whatever the folder's own precision; InputError where the folder is no model."""
    import torch
    from transformers import AutoModelForCausalLM

    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file() and not (name == "model.safetensors" and (folder / f"{name}.index.json").is_file()):
            raise InputError(f"{folder}: no {name}; a model folder in Hugging Face's layout is needed")
    try:
        model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32, local_files_only=True, attn_implementation=attention)
    except (ValueError, OSError, RuntimeError) as error:
        raise InputError(f"{folder}: not a model that transformers loads ({str(error).splitlines()[0]})") from error
    return model


def check_lengths(recipe: TuningRecipe, model: Any, encoder: ChatEncoder, where: str) -> None:
    """InputError where rows would be longer than the model's context, or the tokenizer has ids the model lacks."""
    context = model.config.max_position_embeddings
    if recipe.max_length > context:
        raise InputError(f"{where} max_length = {recipe.max_length}: the model's context is {context} tokens")
    if encoder.plain.get_vocab_size() > model.config.vocab_size:
        raise InputError(
            f"{encoder.folder}: the tokenizer has {encoder.plain.get_vocab_size()} entries, the model only {model.config.vocab_size}"
        )


def keep_short(recipe: TuningRecipe, lengths: Sequence[int], names: Sequence[str]) -> list[int]:
    """Indices of the rows within max_length; the others are dropped aloud or refused, as the recipe says."""
    long = [at for at, length in enumerate(lengths) if length > recipe.max_length]
    if not long:
        return list(range(len(lengths)))
    example = f"{names[long[0]]} has {lengths[long[0]]} tokens"
    if recipe.over_long == "refuse" or len(long) == len(lengths):
        raise InputError(f"{len(long)} of {len(lengths)} rows are longer than max_length = {recipe.max_length} ({example})")
    warnings.warn(
        f"{len(long)} of {len(lengths)} rows are longer than max_length = {recipe.max_length} and dropped ({example})", stacklevel=3
    )
    return [at for at, length in enumerate(lengths) if length <= recipe.max_length]


def planned(trainer_class: type, order: list[int]) -> type:
    """A trainer class that takes rows in the given order and sends no telemetry, model card or hub request."""
    from transformers import PrinterCallback

    class Planned(trainer_class):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.remove_callback(PrinterCallback)  # prints every log; ours go to metrics.jsonl

        def _get_train_sampler(self, *_: Any) -> list[int]:
            return order

        def _send_telemetry(self) -> None: ...

        def create_model_card(self, **_: Any) -> None: ...

    return Planned


class Stopwatch:
    """Wall seconds, processor seconds of this process and its peak memory since it was started."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def result(self) -> dict[str, Any]:
        return {
            "seconds": round(time.perf_counter() - self.wall, 3),
            "cpu_seconds": round(time.process_time() - self.cpu, 3),
            "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }


def save(model: Any, source: Path, target: Path, encoder: ChatEncoder) -> None:
    """The model folder, complete or not at all: weights in the precision of `source`, its config and tokenizer unchanged.

    generation_config.json names both tokens that end an answer.
    """
    import torch

    dtype = getattr(torch, str(read_json(source / "config.json").get("dtype") or "float32").removeprefix("torch."))
    with atomic_folder(target) as folder:
        model.to(dtype).save_pretrained(str(folder))
        for file in sorted(source.iterdir()):
            if file.name in KEPT_FILES:
                shutil.copyfile(file, folder / file.name)
        generation = {"eos_token_id": list(stop_ids(encoder.plain)), "pad_token_id": encoder.tokenizer.pad_token_id, "do_sample": False}
        write_json(folder / "generation_config.json", generation)
