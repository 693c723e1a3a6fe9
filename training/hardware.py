"""What this machine computes with: threads, device, precision."""

import os

import torch

from data_pipeline.errors import InputError
from data_pipeline.provenance import peak_rss_bytes
from modeling.config import DecoderConfig
from training.plan.devices import DEVICES, Device
from training.recipe import PretrainRecipe

AMPERE = (8, 0)  # the least compute capability of FlashAttention's kernels


def usable_cores() -> int:
    """The cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    """The machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def local_rank() -> int:
    """This rank's number on its machine, as launchers set it."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def threads_per_rank(threads: int, ranks: int) -> int:
    """An equal part of `threads` (0: every usable core) for each rank, at least one."""
    return max(1, (threads or usable_cores()) // ranks)


def threads_of(recipe: PretrainRecipe, ranks: int) -> int:
    """CPU threads of each of `ranks` ranks on one machine. A deterministic run's are not divided: how many threads add up decides bits,
    and they must be as many on one rank as on each of four."""
    return recipe.threads if recipe.deterministic else threads_per_rank(recipe.threads, ranks)


def check_gpus(ranks: int) -> None:
    """Refuses more ranks than this machine has GPUs, where it has any: NCCL gives no GPU to two ranks."""
    if torch.cuda.is_available() and ranks > torch.cuda.device_count():
        raise InputError(
            f"--ranks {ranks}: this machine has {torch.cuda.device_count()} GPUs, and every rank needs one of its own; "
            "CUDA_VISIBLE_DEVICES= (empty) trains on the CPU"
        )


def has_fast_bfloat16() -> bool:
    """Whether bfloat16 products are faster than float32 here: AVX512-BF16 or AMX on a CPU, or a CUDA device that has them."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)


def resolve_precision(precision: str) -> tuple[str, str]:
    """The precision `auto` means here, and the line that says so (empty where the recipe names one)."""
    if precision == "bfloat16-master":
        return precision, "bfloat16 weights and products, float32 master copies"
    if precision != "auto":
        return precision, ""
    if torch.cuda.is_available() and has_fast_bfloat16():
        return "bfloat16-master", "bfloat16 weights and products, float32 master copies (this GPU has bfloat16)"
    if has_fast_bfloat16():
        return "bfloat16", "bfloat16 products with float32 weights (this hardware has them)"
    return "float32", "float32 products (no bfloat16 instructions on this hardware)"


def pick_device(local_rank: int = 0) -> torch.device:
    """The rank's CUDA device where there is one, else the CPU."""
    return torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")


def this_gpu() -> Device | None:
    """What plans know of this rank's GPU; None where there is none, or one that no plan knows."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name().lower().replace(" ", "-")
    return next((device for device in DEVICES.values() if device.name.split("-")[0] in name), None)


def peak_flops(told: float = 0.0) -> float | None:
    """bfloat16 operations per second of this rank's device: as told, or by the GPU's name; None where nobody knows."""
    device = None if told else this_gpu()
    return told or (device.bfloat16_flops if device else None)


def memory_in_use() -> int:
    """Peak bytes of this rank: of its GPU where it has one, else of the process."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_rss_bytes()


def pick_attention(device: torch.device, precision: str, context: int, config: DecoderConfig) -> str:
    """The backend that `attention = "auto"` means for training here.

    On CPUs torch's fused attention is slow backward in bfloat16; written out as two matrix products it is faster while a row's scores are
    few (contexts up to 512). On CUDA, sdpa would need a dense mask of packed rows, T * T values each: varlen needs none and computes in
    bfloat16, flex needs blocks of one and has blocksparse layers.
    """
    if device.type == "cpu":
        return "eager" if precision == "bfloat16" and context <= 512 else "sdpa"
    from modeling.backends.flex import MIN_HEAD_DIM_CUDA  # these load torch's compiler
    from modeling.backends.varlen import HEAD_DIM_STEP, MAX_HEAD_DIM

    if config.blocksparse is not None:
        return "flex" if config.head_dim >= MIN_HEAD_DIM_CUDA else "sdpa"
    fits = config.head_dim <= MAX_HEAD_DIM and config.head_dim % HEAD_DIM_STEP == 0
    if precision.startswith("bfloat16") and fits and torch.cuda.get_device_capability(device) >= AMPERE:
        return "varlen"
    return "sdpa"
