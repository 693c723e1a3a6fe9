"""What the trainer asks of an engine, and what all engines share. `replicated.py` is plain torch, `zero.py` is DeepSpeed ZeRO."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from modeling.decoder import Decoder
from modeling.float8 import use_float8
from modeling.parallel.mesh import Group, Mesh
from modeling.parallel.pieces import Pieces
from training.batches import MicroBatch
from training.recipe import PretrainRecipe
from training.reducer import sum_over
from training.state import Fragment

# Whether an update may be made, by its loss and gradient norm; called on every rank alike.
Accept = Callable[[float, float], bool]


@dataclass(frozen=True)
class StepResult:
    """What a step reports, left on the device: reading them would stall an accelerator."""

    loss: Tensor  # mean over the targets of all ranks; 0-dimensional float32
    grad_norm: Tensor  # before clipping
    applied: bool = True  # false where the update was not accepted


class Engine(Protocol):
    """What the trainer needs of an engine."""

    mesh: Mesh
    device: torch.device
    decoder: Decoder
    pieces: dict[str, Pieces]  # what this rank holds of every parameter

    def step(self, batch: list[MicroBatch], learning_rate: float, accept: Accept | None = None) -> StepResult:
        """One update from this rank's micro-batches of a step; each weighs by its number of targets."""
        ...

    def fragments(self) -> Iterator[Fragment]:
        """All of the state that this rank holds."""
        ...

    def resume(self, updates: int) -> None:
        """Called once the fragments hold the state after so many updates."""
        ...

    def loss(self, micro: MicroBatch) -> Tensor:
        """The mean loss over a micro-batch's targets, no gradient kept, dropout off; all ranks that work on the same rows take part."""
        ...


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
        z_loss = self.z_loss if self.training else 0.0  # what is compared between runs has no regularisation in it
        with autocast:
            return self.decoder.loss(ids_BT, targets_BT, positions_BT=positions_BT, documents_BT=documents_BT, z_loss=z_loss)


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


def evaluate(module: nn.Module, forward: Callable[[MicroBatch], Tensor], micro: MicroBatch) -> Tensor:
    """A loss with dropout off and without a gradient."""
    module.eval()
    try:
        with torch.no_grad():
            return forward(micro)
    finally:
        module.train()


def count_targets(batch: list[MicroBatch], data: Group, device: torch.device) -> float:
    """The targets of the whole step, at least 1."""
    counted = torch.tensor(float(sum(micro.num_targets for micro in batch)), dtype=torch.float64, device=device)
    return max(1.0, float(sum_over(data, counted)))


def total_over(value: float, device: torch.device) -> float:
    """The sum of a number over all ranks."""
    if not dist.is_initialized():
        return value
    summed = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(summed)
    return float(summed)


def gradient_norm(parameters: Iterable[nn.Parameter], split: set[int], tensor: Group) -> Tensor:
    """The Euclidean norm of all gradients together, each entry counted once.

    `split` holds the ids of parameters of which every rank of `tensor` has a part of its own; the others are the same on all of them.
    """
    gradients = [one for one in parameters if one.grad is not None]
    if tensor.size == 1:
        return norm_of([one.grad for one in gradients])  # type: ignore[misc]
    parts = norm_of([one.grad for one in gradients if id(one) in split])  # type: ignore[misc]
    shared = norm_of([one.grad for one in gradients if id(one) not in split])  # type: ignore[misc]
    squares = sum_over(tensor, parts.double().square())
    return (squares + shared.double().square()).sqrt().float()


def norm_of(gradients: list[Tensor]) -> Tensor:
    return torch.nn.utils.get_total_norm(gradients, foreach=True) if gradients else torch.zeros(())


def clip_to(parameters: Iterable[nn.Parameter], limit: float, norm: Tensor) -> None:
    """Scales the gradients down where their norm is above the limit; 0: never."""
    if limit and math.isfinite(limit):
        torch.nn.utils.clip_grads_with_norm_(list(parameters), limit, norm, foreach=True)
