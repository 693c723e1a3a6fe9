"""One update in plain torch, on one rank or many: every rank has the whole state of its part of the decoder, gradients are summed.

ZeRO stage 0, and in deterministic mode also stage 1, where each rank keeps the moments of some parameters and sends the others their new
values (arXiv 1910.02054, section 5.1, by whole parameters).
"""

from collections.abc import Iterator
from itertools import accumulate

import torch
import torch.distributed as dist
from torch import Tensor, nn

from modeling.decoder import Decoder
from modeling.parallel.mesh import Group
from training.batches import MicroBatch
from training.engine import (
    Accept,
    LossModule,
    StepResult,
    clip_to,
    count_targets,
    evaluate,
    gradient_norm,
    prepare_decoder,
    run_module,
)
from training.fixed_tree import check_ranks, sum_over_ranks, tree_sum
from training.layout import SAME_WEIGHTS, mark_split_parameters
from training.master import MasterWeights
from training.optimizer import build_optimizer, set_learning_rate
from training.recipe import LayoutRecipe, PretrainRecipe
from training.reducer import Reducer, sum_over
from training.state import MOMENTS, WEIGHT, Fragment


class ReplicatedEngine:
    """Forward, backward, sum, clip, AdamW."""

    def __init__(
        self, decoder: Decoder, recipe: PretrainRecipe, precision: str, device: torch.device, layout: LayoutRecipe = LayoutRecipe()
    ) -> None:
        self.mesh = decoder.parallel.mesh
        self.data, self.same, self.tensor = self.mesh.group("data"), self.mesh.group(*SAME_WEIGHTS), self.mesh.group("tensor")
        self.decoder = prepare_decoder(decoder, recipe, device).train()
        self.device, self.clip = device, recipe.clip
        self.pieces = mark_split_parameters(self.decoder)
        self.optimizer = build_optimizer(self.decoder, recipe)
        self.parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self.named = dict(self.decoder.named_parameters())  # what is learned and saved: float32 whatever the precision
        self.split = {id(one) for name, one in self.named.items() if not self.pieces[name].shared}
        self.master = MasterWeights(self.decoder) if precision == "bfloat16-master" else None
        self.module = LossModule(self.decoder, recipe.z_loss, precision)
        self.owners = owners(self.parameters, self.same.size)
        self.divided = recipe.deterministic and layout.zero_stage == 1 and self.same.size > 1
        self.tree = recipe.deterministic
        if self.tree:
            check_ranks(self.same.size)
        self.reducer: Reducer | None = None
        if self.same.size > 1 and not self.tree:
            masters, watched = (self.parameters, self.parameters) if self.master is None else (self.master.masters, self.master.copies)
            self.reducer = Reducer(masters, watched, self.same, layout.overlap)

    def step(self, batch: list[MicroBatch], learning_rate: float, accept: Accept | None = None) -> StepResult:
        set_learning_rate(self.optimizer, learning_rate)
        total = count_targets(batch, self.data, self.device)
        loss = self.sum_in_tree(batch, total) if self.tree else self.accumulate(batch, total)
        norm = gradient_norm(self.parameters, self.split, self.tensor)
        if accept is not None and not accept(float(loss), float(norm)):
            self.optimizer.zero_grad(set_to_none=True)
            return StepResult(loss, norm, applied=False)
        clip_to(self.parameters, self.clip, norm)
        self.update()
        return StepResult(loss, norm)

    def accumulate(self, batch: list[MicroBatch], total: float) -> Tensor:
        """Gradients added up over the micro-batches where they are made, and over ranks during the last one's backward pass."""
        loss = torch.zeros((), device=self.device)
        for number, micro in enumerate(batch, 1):
            part = self.share_of_loss(micro, total)
            if self.reducer is not None and number == len(batch):
                self.reducer.expect_last()
            part.backward()
            loss += part.detach()
        if self.reducer is not None:
            self.reducer.finish()
        return sum_over(self.data, loss)

    def sum_in_tree(self, batch: list[MicroBatch], total: float) -> Tensor:
        """The same, in an order that does not depend on the number of ranks."""
        micros = iter(batch)

        def leaf() -> list[Tensor]:
            part = self.share_of_loss(next(micros), total)
            part.backward()
            made = [torch.zeros_like(one) if one.grad is None else one.grad for one in self.parameters]
            for one in self.parameters:
                one.grad = None
            return [*made, part.detach().reshape(1)]

        *gradients, loss = sums = tree_sum(len(batch), leaf)
        sum_over_ranks(sums, self.same)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        return loss.reshape(())

    def share_of_loss(self, micro: MicroBatch, total: float) -> Tensor:
        """A micro-batch's part of the mean over all targets of the step."""
        return run_module(self.module, micro.to(self.device)) * (micro.num_targets / total)

    def update(self) -> None:
        """One step of the optimizer; the gradients are freed."""
        if self.divided:
            for parameter, owner in zip(self.parameters, self.owners, strict=True):
                if owner != self.same.index:
                    parameter.grad = None  # the optimizer passes over it and keeps no moments
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.divided:
            send_from_owners(self.parameters, self.owners, self.same)
        if self.master is not None:
            self.master.publish()

    def loss(self, micro: MicroBatch) -> Tensor:
        return evaluate(self.module, lambda one: run_module(self.module, one.to(self.device)), micro)

    def fragments(self) -> Iterator[Fragment]:
        owner_of = {id(parameter): owner for parameter, owner in zip(self.parameters, self.owners, strict=True)}
        for name, parameter in self.named.items():
            mine = owner_of[id(parameter)] == self.same.index and (not self.pieces[name].shared or self.tensor.index == 0)
            yield Fragment(WEIGHT, name, 0, parameter.numel(), parameter.detach().view(-1), mine)
            if self.divided and owner_of[id(parameter)] != self.same.index:
                continue
            state = self.optimizer.state[parameter]
            if not state:  # no update was made yet
                state |= {"step": torch.zeros((), device=self.device), **{moment: torch.zeros_like(parameter) for moment in MOMENTS}}
            for moment in MOMENTS:
                yield Fragment(moment, name, 0, parameter.numel(), state[moment].view(-1), mine)

    def resume(self, updates: int) -> None:
        for state in self.optimizer.state.values():
            state["step"] = torch.tensor(float(updates), dtype=torch.float32, device=self.device)
        if self.master is not None:
            self.master.publish()


def owners(parameters: list[nn.Parameter], ranks: int) -> list[int]:
    """Which of `ranks` ranks is each parameter's: neighbours together, each rank about as many numbers."""
    total = max(1, sum(one.numel() for one in parameters))
    ends = accumulate(one.numel() for one in parameters)
    return [min(ranks - 1, (end - one.numel() // 2) * ranks // total) for one, end in zip(parameters, ends, strict=True)]


@torch.no_grad()
def send_from_owners(parameters: list[nn.Parameter], owners_: list[int], group: Group) -> None:
    """Every rank's parameters to all the others, each rank's in one message."""
    for owner, rank in enumerate(group.ranks):
        owned = [one for one, its in zip(parameters, owners_, strict=True) if its == owner]
        if owned:
            flat = torch.cat([one.reshape(-1) for one in owned])
            dist.broadcast(flat, rank, group=group.process_group)
            if owner != group.index:
                for one, part in zip(owned, flat.split([one.numel() for one in owned]), strict=True):
                    one.copy_(part.view_as(one))
