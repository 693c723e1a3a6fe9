"""One optimizer step: plain torch on one rank. `training/zero.py` is the same over DeepSpeed ZeRO for more."""

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from modeling.decoder import Decoder
from modeling.float8 import use_float8
from training.batches import MicroBatch
from training.master import MasterWeights
from training.optimizer import MOMENTS, build_optimizer, set_learning_rate
from training.recipe import PretrainRecipe


@dataclass(frozen=True)
class StepResult:
    """What a step reports, left on the device: reading them would stall an accelerator."""

    loss: Tensor  # mean over the targets of all ranks; 0-dimensional float32
    grad_norm: Tensor  # before clipping


class Engine(Protocol):
    """What the trainer needs of an engine."""

    rank: int
    ranks: int
    device: torch.device

    def step(self, batch: list[MicroBatch], learning_rate: float) -> StepResult: ...

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every logical tensor of the state by name, whole, one at a time; all ranks take part."""
        ...

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """The decoder's parameters by name, whole, one at a time; all ranks take part."""
        ...

    def restore(self, read: "TensorReader", step: int) -> None:
        """Takes both moments of a checkpoint of `step` updates; the weights were in the decoder before the engine was built."""
        ...

    def total(self, value: float) -> float:
        """The sum of a number over the ranks."""
        ...


class TensorReader(Protocol):
    """`modeling.checkpoint.Checkpoint`, as far as an engine needs it."""

    def read(self, name: str) -> Tensor: ...


class LossModule(nn.Module):
    """The decoder with its loss inside forward, where engines that wrap a module see the whole computation."""

    def __init__(self, decoder: Decoder, z_loss: float, precision: str) -> None:
        super().__init__()
        self.decoder = decoder
        self.z_loss = z_loss
        self.precision = precision

    def forward(self, ids_BT: Tensor, positions_BT: Tensor, documents_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """The mean loss over this micro-batch's targets."""
        autocast = torch.autocast(ids_BT.device.type, torch.bfloat16) if self.precision == "bfloat16" else nullcontext()
        with autocast:
            return self.decoder.loss(ids_BT, targets_BT, positions_BT=positions_BT, documents_BT=documents_BT, z_loss=self.z_loss)


def run_module(module: Any, micro: MicroBatch) -> Tensor:
    """The mean loss of a micro-batch."""
    return module(micro.ids_BT, micro.positions_BT, micro.documents_BT, micro.targets_BT)


def prepare_decoder(decoder: Decoder, recipe: PretrainRecipe, device: torch.device) -> Decoder:
    """The decoder on its device, its layers as the recipe wants them run."""
    decoder.to(device)
    decoder.recompute = recipe.recompute
    if recipe.float8 != "none":
        use_float8(decoder, recipe.float8)
    if recipe.compile:
        decoder.compile_layers()
    return decoder


class PlainEngine:
    """One process, plain torch: forward, backward, clip, AdamW."""

    rank, ranks = 0, 1

    def __init__(self, decoder: Decoder, recipe: PretrainRecipe, precision: str, device: torch.device) -> None:
        self.decoder = prepare_decoder(decoder, recipe, device)
        self.device = device
        self.clip = recipe.clip
        self.optimizer = build_optimizer(self.decoder, recipe)
        self.parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self.named = dict(self.decoder.named_parameters())  # what is learned and saved: float32 whatever the precision
        self.master = MasterWeights(self.decoder) if precision == "bfloat16-master" else None
        self.module = LossModule(self.decoder, recipe.z_loss, precision)

    def step(self, batch: list[MicroBatch], learning_rate: float) -> StepResult:
        """One update from the micro-batches of a whole step; each weighs by its number of targets."""
        set_learning_rate(self.optimizer, learning_rate)
        total = max(1, sum(micro.num_targets for micro in batch))
        loss = torch.zeros((), device=self.device)
        for micro in batch:
            part = run_module(self.module, micro.to(self.device)) * (micro.num_targets / total)
            part.backward()
            loss += part.detach()
        norm = clip_gradients(self.parameters, self.clip)
        if self.master is not None:
            self.master.update(self.optimizer)
        else:
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return StepResult(loss, norm)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        yield from ((name, parameter.detach()) for name, parameter in self.named.items())

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        for name, parameter in self.named.items():
            yield f"weight/{name}", parameter.detach()
            for moment in MOMENTS:
                yield f"{moment}/{name}", self.optimizer.state[parameter][moment]

    def restore(self, read: TensorReader, step: int) -> None:
        for name, parameter in self.named.items():
            state = self.optimizer.state[parameter]
            for moment in MOMENTS:
                state[moment] = read.read(f"{moment}/{name}").to(parameter.device)
            state["step"] = torch.tensor(float(step), dtype=torch.float32, device=parameter.device)

    def total(self, value: float) -> float:
        return value


def load_weights(decoder: nn.Module, read: TensorReader) -> None:
    """Fills the decoder with a checkpoint's weights."""
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            parameter.copy_(read.read(f"weight/{name}"))


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
    """The gradients' joint Euclidean norm, after which they are scaled down to `limit` if above it (0: left alone)."""
    parameters = list(parameters)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
    if limit:
        torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm, foreach=True)
    return norm
