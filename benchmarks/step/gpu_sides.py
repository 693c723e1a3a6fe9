"""The two models of the GPU benchmark, each with its step: bfloat16 weights, float32 master copies, gradients summed over micro-batches."""

import gc
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from benchmarks.step.rows import Batch
from benchmarks.step.sides import ADAMW, CLIP, Loss, our_loss, their_config, their_loss, their_names
from modeling.config import DecoderConfig
from modeling.decoder import Decoder
from modeling.float8 import use_float8
from modeling.initialise import initialise
from training.master import MasterWeights


@dataclass(frozen=True)
class Way:
    """How a side is run."""

    side: str  # phial or transformers
    attention: str
    compile: bool
    recompute: str = "none"
    float8: bool = False

    def __str__(self) -> str:
        extra = (["compiled layers"] if self.compile else []) + (["float8"] if self.float8 else [])
        return ", ".join([self.side, self.attention, *extra, f"recompute {self.recompute}"])


class Trainer:
    """A model on the device with its optimizer, moments included: 14 bytes a parameter, and 2 more while there are gradients."""

    def __init__(self, config: DecoderConfig, way: Way, device: torch.device) -> None:
        build: Callable[..., tuple[nn.Module, MasterWeights, Loss]] = build_ours if way.side == "phial" else build_theirs
        self.model, self.masters, self.loss = build(config, way, device)
        self.parameters = self.masters.copies
        self.optimizer = torch.optim.AdamW(self.masters.masters, **ADAMW)
        for one in self.parameters:
            one.grad = torch.zeros_like(one)
        self.rehearse([])

    def rehearse(self, batches: list[Batch]) -> None:
        """A step that takes all the memory of one and changes nothing."""
        for group in self.optimizer.param_groups:
            group["lr"] = 0.0
        try:
            self.step(batches)
        finally:
            for group in self.optimizer.param_groups:
                group["lr"] = ADAMW["lr"]
            for state in self.optimizer.state.values():
                for one in state.values():
                    one.zero_()

    def step(self, batches: list[Batch]) -> Tensor:
        """One update from several micro-batches; returns their mean loss, left on the device."""
        total = torch.zeros((), device=self.parameters[0].device)
        for batch in batches:
            loss = self.loss(batch) / len(batches)
            loss.backward()
            total += loss.detach()
        nn.utils.clip_grad_norm_(self.parameters, CLIP, foreach=True)
        self.masters.update(self.optimizer)
        return total

    def drop_gradients(self) -> None:
        for one in [*self.parameters, *self.masters.masters]:
            one.grad = None


def build_ours(config: DecoderConfig, way: Way, device: torch.device) -> tuple[nn.Module, MasterWeights, Loss]:
    """The decoder in bfloat16."""
    decoder = seeded(config, way, device)
    if way.float8:
        use_float8(decoder)
    masters = MasterWeights(decoder, wide_sums=False)
    if way.compile:
        decoder.compile_layers(dynamic=False)
    return decoder.train(), masters, our_loss(decoder)


def build_theirs(config: DecoderConfig, way: Way, device: torch.device) -> tuple[nn.Module, MasterWeights, Loss]:
    """Phi3ForCausalLM in bfloat16; "full" is their gradient checkpointing, and they have no selective kind."""
    with device:
        # Not `.to(bfloat16)` afterwards, which would round the rotary frequencies too.
        model = AutoModelForCausalLM.from_config(their_config(config, way.attention, "bfloat16"), dtype=torch.bfloat16).train()
    ours = {name: weight.detach() for name, weight in seeded(config, Way("phial", "sdpa", compile=False), device).named_parameters()}
    model.load_state_dict(their_names(config, ours), strict=True)
    del ours
    masters = MasterWeights(model, wide_sums=False)
    if way.recompute != "none":
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if way.compile:
        for layer in model.model.layers:
            layer.self_attn.layer_idx = 0  # which a cache alone would read; with flash attention each number would be compiled for itself
            layer.compile(dynamic=False)
    return model, masters, their_loss(model, way.attention)


def seeded(config: DecoderConfig, way: Way, device: torch.device) -> Decoder:
    """The decoder in bfloat16, made on the device; every way starts from these weights."""
    with torch.device("meta"):
        decoder = Decoder(config, attention=way.attention, rope_factors="short", recompute=way.recompute)
    decoder = decoder.to(torch.bfloat16).to_empty(device=device)
    return initialise(decoder, torch.Generator(device).manual_seed(0))


def free(device: torch.device) -> None:
    """Gives the memory of what is no longer referenced back to the device; peaks are counted from here."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error).lower()


def device_facts(device: torch.device) -> dict[str, Any]:
    """Name, memory and software of the accelerator."""
    if device.type != "cuda":
        return {"name": "cpu", "cuda": None}
    facts = torch.cuda.get_device_properties(device)
    return {"name": facts.name, "memory_bytes": facts.total_memory, "cuda": torch.version.cuda, "driver": driver_version()}


def driver_version() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "not told by nvidia-smi"
