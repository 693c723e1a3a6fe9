"""bfloat16 weights with float32 masters: AdamW on the masters, small updates that count, and checkpoints in float32."""

from typing import Any

import pytest
import torch
from torch import nn

from modeling.decoder import Decoder
from modeling.initialise import initialise
from modeling.presets import TINY
from training import master
from training.batches import MicroBatch
from training.master import MasterWeights
from training.recipe import PretrainRecipe
from training.replicated import ReplicatedEngine
from training.state import MOMENTS, WEIGHT, restore, state_pieces

RATE = 1e-5  # below what bfloat16 can add to a norm's weight of 1
RECIPE = PretrainRecipe(learning_rate=RATE, weight_decay=0.1, clip=0.5, rows_per_step=4, micro_rows=2, context=24)


def new_decoder() -> Decoder:
    return initialise(Decoder(TINY), torch.Generator().manual_seed(0))


def batch_of(step: int) -> list[MicroBatch]:
    """Two micro-batches of unequal numbers of targets."""
    generator = torch.Generator().manual_seed(step)
    made = []
    for ignored in (0, 5):
        ids_BT = torch.randint(0, TINY.vocab_size, (2, 25), generator=generator)
        targets_BT = ids_BT[:, 1:].clone()
        targets_BT[:, :ignored] = -100
        made.append(MicroBatch(ids_BT[:, :-1], torch.arange(24)[None].expand(2, -1), torch.zeros(2, 24, dtype=torch.long), targets_BT))
    return made


def gradients(model: Decoder, step: int) -> list[torch.Tensor]:
    """The step's gradients, clipped, summed over micro-batches in float32."""
    sums = [torch.zeros(parameter.shape) for parameter in model.parameters()]
    batch = batch_of(step)
    total = sum(micro.num_targets for micro in batch)
    for micro in batch:
        model.zero_grad()
        loss = model.loss(micro.ids_BT, micro.targets_BT, micro.positions_BT, micro.documents_BT)
        (loss * (micro.num_targets / total)).backward()
        for one, parameter in zip(sums, model.parameters(), strict=True):
            assert parameter.grad is not None
            one += parameter.grad.float()
    norm = torch.stack([one.norm() for one in sums]).norm()
    return [one * min(1.0, 0.5 / (norm.item() + 1e-6)) for one in sums]


def reference(masters: bool, steps: int) -> list[torch.Tensor]:
    """AdamW written out (arXiv 1711.05101), on float32 masters rounded for each pass, or on the bfloat16 weights themselves."""
    model = new_decoder().to(torch.bfloat16)
    weights = [one.detach().clone() for one in (new_decoder() if masters else model).parameters()]
    means, squares = [torch.zeros(one.shape) for one in weights], [torch.zeros(one.shape) for one in weights]
    embedding = model.embedding.weight
    for step in range(steps):
        with torch.no_grad():
            for parameter, weight in zip(model.parameters(), weights, strict=True):
                parameter.copy_(weight)
        for index, (parameter, grad) in enumerate(zip(model.parameters(), gradients(model, step), strict=True)):
            decay = 0.0 if parameter.ndim < 2 or parameter is embedding else 0.1
            means[index] = 0.9 * means[index] + 0.1 * grad
            squares[index] = 0.95 * squares[index] + 0.05 * grad**2
            mean, square = means[index] / (1 - 0.9 ** (step + 1)), squares[index] / (1 - 0.95 ** (step + 1))
            wide = weights[index].float() * (1 - RATE * decay) - RATE * mean / (square.sqrt() + 1e-8)
            weights[index] = wide.to(weights[index].dtype)
    return weights


def held(engine: ReplicatedEngine, kind: str) -> dict[str, torch.Tensor]:
    """One kind of the engine's state by parameter."""
    shapes = {name: pieces.shape for name, pieces in engine.pieces.items()}
    return {one.name: one.values.view(shapes[one.name]) for one in engine.fragments() if one.kind == kind}


def test_masters_follow_adamw_and_small_updates_count() -> None:
    engine = ReplicatedEngine(new_decoder(), RECIPE, "bfloat16-master", torch.device("cpu"))
    for step in range(6):
        engine.step(batch_of(step), RATE)
    ours = held(engine, WEIGHT)
    start = [one.detach() for one in new_decoder().parameters()]
    for mine, theirs, before in zip(ours.values(), reference(masters=True, steps=6), start, strict=True):
        assert mine.dtype == torch.float32
        assert (mine - theirs).norm() < 0.01 * (theirs - before).norm()
    moved = (ours["norm.weight"] - 1).abs()
    assert 0 < moved.max() < 2**-9
    stalled = reference(masters=False, steps=6)
    names = [name for name, _ in new_decoder().named_parameters()]
    assert torch.equal(stalled[names.index("norm.weight")].float(), torch.ones(32))  # bfloat16 alone learns nothing here


def test_the_decoder_holds_rounded_masters_and_no_gradients() -> None:
    engine = ReplicatedEngine(new_decoder(), RECIPE, "bfloat16-master", torch.device("cpu"))
    engine.step(batch_of(0), 1e-2)
    masters = held(engine, WEIGHT)
    assert list(masters) == [name for name, _ in new_decoder().named_parameters()]
    for name, parameter in engine.decoder.named_parameters():
        assert isinstance(parameter, nn.Parameter)
        assert parameter.dtype == torch.bfloat16
        assert parameter.grad is None
        assert torch.equal(parameter, masters[name].to(torch.bfloat16))
        assert not torch.equal(parameter.float(), masters[name]) or parameter.ndim == 1


def test_sums_in_bfloat16_take_16_bytes_and_follow_adamw_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(master, "BUCKET", 40)  # several buckets
    settings = {"lr": 5e-4, "weight_decay": 0.1}
    start = [torch.randn(5, 7).bfloat16(), torch.randn(9).bfloat16()]
    high, bare = ([nn.Parameter(one.to(dtype, copy=True)) for one in start] for dtype in (torch.float32, torch.bfloat16))
    low = MasterWeights(nn.ParameterList(nn.Parameter(one.clone()) for one in start), wide_sums=False)
    assert len(master.buckets(low.copies)) == 2
    ours, reference, naive = (torch.optim.AdamW(one, **settings) for one in (low.masters, high, bare))
    for _ in range(20):
        for a, b, c in zip(low.copies, high, bare, strict=True):
            a.grad = torch.rand_like(a)  # one sign, so that small updates add up
            b.grad, c.grad = a.grad.float(), a.grad.clone()
        held = [*low.copies, *low.masters, *(one.grad for one in low.copies)]
        low.update(ours)
        reference.step()
        naive.step()
    assert all(one.grad is None for one in [*low.copies, *low.masters])
    assert all(torch.equal(a, b.bfloat16()) for a, b in zip(low.copies, high, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(low.masters, high, strict=True))
    assert not all(torch.equal(c, b.bfloat16()) for c, b in zip(bare, high, strict=True))
    held += [state[moment] for state in ours.state.values() for moment in MOMENTS]
    assert sum(one.nbytes for one in held if one is not None) == 16 * sum(one.numel() for one in start)


def test_a_weight_used_twice_stays_one() -> None:
    module = nn.ModuleDict({"embedding": nn.Embedding(5, 3), "head": nn.Linear(3, 5, bias=False)})
    module["head"].weight = module["embedding"].weight
    masters = MasterWeights(module)
    assert module["head"].weight is module["embedding"].weight
    assert len(masters.masters) == 1


class Saved:
    """A checkpoint in memory."""

    def __init__(self, engine: ReplicatedEngine) -> None:
        self.tensors = {one.name: one.tensor.clone() for one in state_pieces(engine.fragments(), engine.pieces)}

    def read(self, name: str, offsets: Any = None, sizes: Any = None) -> torch.Tensor:
        return self.tensors[name].clone()


def test_a_restored_engine_goes_on_with_the_same_bits() -> None:
    engine = ReplicatedEngine(new_decoder(), RECIPE, "bfloat16-master", torch.device("cpu"))
    engine.step(batch_of(0), 1e-3)
    saved = Saved(engine)
    assert all(tensor.dtype == torch.float32 for tensor in saved.tensors.values())
    assert len(saved.tensors) == len(engine.named) * (1 + len(MOMENTS))
    decoder = Decoder(TINY)
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            parameter.copy_(saved.read(f"weight/{name}"))
    again = ReplicatedEngine(decoder, RECIPE, "bfloat16-master", torch.device("cpu"))
    restore(again.fragments(), again.pieces, saved)
    again.resume(1)
    for one in (engine, again):
        one.step(batch_of(1), 1e-3)
    for mine, theirs in zip(engine.fragments(), again.fragments(), strict=True):
        assert torch.equal(mine.values, theirs.values), (mine.kind, mine.name)
