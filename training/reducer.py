"""Gradients summed over ranks that hold the same weights, bucket by bucket, while the backward pass still goes on.

Data parallelism is a Broadcast of the weights; this is its adjoint, as `modeling.parallel.gradients` has it, started as soon as a bucket is
complete. Sums are float32 where gradients are.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn

from modeling.parallel.ledger import Cost, record
from modeling.parallel.mesh import Group

BUCKET_BYTES = 2**25
NAME = "GradientSum"


class Bucket:
    """Parameters whose gradients are views of one buffer, which is summed in one collective."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters = parameters
        first = parameters[0]
        self.buffer = torch.zeros(sum(one.numel() for one in parameters), dtype=first.dtype, device=first.device)
        parts = self.buffer.split([one.numel() for one in parameters])
        self.views = [part.view(one.shape) for part, one in zip(parts, parameters, strict=True)]
        self.waiting = 0
        self.work: dist.Work | None = None


class Reducer:
    """Sums the gradients of `parameters` over `group`. Per update: `expect_last` before the last micro-batch's way back, `finish` after.

    A parameter's gradient may come from another tensor's (a bfloat16 copy): `watched` names that tensor, whose own hooks must have filled
    `parameter.grad` by then. Without `overlap` everything is sent in `finish`.
    """

    def __init__(self, parameters: list[nn.Parameter], watched: list[nn.Parameter], group: Group, overlap: bool) -> None:
        self.group = group
        self.buckets = [Bucket(one) for one in into_buckets(list(reversed(parameters)))]  # the backward pass ends with the first layers
        self.place = {id(one): (bucket, n) for bucket in self.buckets for n, one in enumerate(bucket.parameters)}
        self.last = False
        self.next = 0  # buckets are sent in one order on all ranks
        self.overlap = overlap
        for parameter, tensor in zip(parameters, watched, strict=True):
            tensor.register_post_accumulate_grad_hook(lambda _, parameter=parameter: self.arrived(parameter))

    def expect_last(self) -> None:
        """From now on a gradient that arrives is complete."""
        self.last, self.next = True, 0
        for bucket in self.buckets:
            bucket.waiting = len(bucket.parameters)

    @torch.no_grad()
    def arrived(self, parameter: nn.Parameter) -> None:
        """A gradient of this micro-batch is there: into its place in the bucket, and off where the bucket is full."""
        bucket, number = self.place[id(parameter)]
        if parameter.grad is not bucket.views[number]:
            bucket.views[number].copy_(parameter.grad)  # type: ignore[arg-type]
            parameter.grad = bucket.views[number]
        if self.last:
            bucket.waiting -= 1
            if self.overlap:
                self.send_full()

    def send_full(self) -> None:
        """Sends every bucket whose turn it is."""
        while self.next < len(self.buckets) and self.buckets[self.next].waiting == 0:
            self.send(self.buckets[self.next])
            self.next += 1

    def send(self, bucket: Bucket) -> None:
        ranks, size = self.group.size, bucket.buffer.numel() * bucket.buffer.element_size()
        record(NAME, Cost(bytes=2 * (ranks - 1) * size // ranks, messages=2 * (ranks - 1), added=bucket.buffer.numel()))
        bucket.work = dist.all_reduce(bucket.buffer, group=self.group.process_group, async_op=True)

    @torch.no_grad()
    def finish(self) -> None:
        """Every gradient is the sum over the ranks; one that this rank has none of counts as zero, since others may have one."""
        for bucket in self.buckets[self.next :]:
            for parameter, view in zip(bucket.parameters, bucket.views, strict=True):
                if parameter.grad is None:
                    view.zero_()
                    parameter.grad = view
            self.send(bucket)
        for bucket in self.buckets:
            assert bucket.work is not None
            bucket.work.wait()
            bucket.work = None
        self.last = False


def into_buckets(parameters: list[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Neighbours of one dtype and device, in groups of at most BUCKET_BYTES or of one."""
    found: list[list[nn.Parameter]] = []
    held = 0
    for one in parameters:
        size = one.numel() * one.element_size()
        alike = bool(found) and (found[-1][-1].dtype, found[-1][-1].device) == (one.dtype, one.device)
        if not alike or held + size > BUCKET_BYTES:
            found.append([])
            held = 0
        found[-1].append(one)
        held += size
    return found


def sum_over(group: Group, value: Tensor) -> Tensor:
    """A small tensor's sum over the group's ranks, in place."""
    if group.size > 1:
        dist.all_reduce(value, group=group.process_group)
    return value
