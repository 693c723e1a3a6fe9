"""One layer of a decoder over ranks, forward and backward: what scales by tensor, sequence and context parallelism."""

# B rows, T tokens of a row, t this rank's part of them, D width.

from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.scaling_parts.allocator import keep_freed_memory
from benchmarks.scaling_parts.clock import Step, Turn, one_rank, scaled, spread, take_turns, together
from modeling.config import DecoderConfig
from modeling.layer import Layer
from modeling.parallel.gradients import sum_gradients
from modeling.parallel.ledger import recording
from modeling.parallel.mesh import Mesh, alone
from modeling.parallel.partition import balanced
from modeling.parallel.placing import Place
from modeling.parallel.stream import ContextWay, Parallel
from modeling.rope import rotary_tables
from modeling.visible import Visible


@dataclass(frozen=True)
class Size:
    """A layer and the one-rank work: `rows` rows of `tokens` tokens. `window` is the keys of a query where it has a window."""

    width: int
    hidden: int
    heads: int
    key_heads: int
    rows: int
    tokens: int
    window: int
    rounds: int

    def config(self, window: bool) -> DecoderConfig:
        return DecoderConfig(
            vocab_size=8,
            hidden_size=self.width,
            intermediate_size=self.hidden,
            num_layers=1,
            num_heads=self.heads,
            num_kv_heads=self.key_heads,
            max_positions=4 * self.tokens,
            window_keys=self.window if window else None,
        )


# Between a step that lasts long enough to be timed and twenty rounds of all ways in a few minutes on one thread per rank.
FULL = Size(width=1024, hidden=2816, heads=16, key_heads=8, rows=1, tokens=768, window=383, rounds=20)
QUICK = Size(width=32, hidden=48, heads=4, key_heads=2, rows=1, tokens=16, window=7, rounds=3)


@dataclass(frozen=True)
class Way:
    """How two ranks share the layer, what of the problem doubles under weak scaling, and which one-rank step it is held against."""

    axis: str
    sequence: bool = False
    context: ContextWay = "ulysses"
    grows: str = "rows"
    case: str = "causal"


WAYS = {
    "tensor": Way("tensor"),
    "tensor + sequence": Way("tensor", sequence=True),
    "context, ulysses": Way("context"),
    "context, ring": Way("context", context="ring"),
    # Rows grow longer, as they do where a window makes the work of a token the same however long its row is.
    "context, halo": Way("context", context="halo", grows="tokens", case="window"),
}


# The weights of a layer are the same for every kind of context parallelism, so their gradients' sum is timed once.
SUMMED = "context, ulysses"


def layer_step(size: Size, parallel: Parallel, rows: int, tokens: int, window: bool) -> tuple[Step, Step]:
    """One layer on this rank: forward and backward for a given gradient; and the sum of its weights' gradients over context ranks.

    The sum is apart, since it is due once per optimizer step, however many rows that has. Masks and rotary tables, which a decoder makes
    once per pass for all its layers, are made here, outside the step. One rank runs windows document by document, one per row, since that
    computes bands only; a dense mask computes all pairs.
    """
    torch.manual_seed(0)
    config = size.config(window)
    place = Place(config, parallel, tokens)
    layer = Layer(config, 0, parallel)
    here = balanced(place.mine.count, parallel.tensor_group.size)[parallel.tensor_group.index] if parallel.sequence else place.mine.count
    x_BtD = torch.randn(rows, here, size.width, requires_grad=True)
    dy_BtD = torch.randn(rows, here, size.width)
    tables = rotary_tables(config, place.cut(torch.arange(tokens)[None]), "short", torch.float32)
    runs_BT = torch.zeros(rows, tokens, dtype=torch.long) if window and place.alone else None
    visible = Visible(num_queries=tokens, num_keys=tokens, window_keys=config.window_keys, runs_BT=runs_BT)
    attend = place.attend("sdpa", visible, torch.device("cpu"))
    parameters = list(layer.parameters())

    def step() -> None:
        x_BtD.grad = None
        for one in parameters:
            one.grad = None
        layer(x_BtD, tables, attend, None, place.stream).backward(dy_BtD)

    return step, lambda: sum_gradients(parameters, parallel.context_group)


def measure_ways(size: Size) -> tuple[dict[str, Any], dict[str, int]]:
    """On each of two ranks: the seconds of all steps, and the bytes that this rank sends in one weak step of each way."""
    keep_freed_memory()
    turns: dict[str, Turn] = {}
    sent: dict[str, int] = {}
    for case in ("causal", "window"):
        step, _ = layer_step(size, Parallel(alone()), size.rows, size.tokens, case == "window")
        turns[f"{case}, solo"] = Turn(step, first_only=True)
        turns[f"{case}, pair"] = Turn(step)
    for name, way in WAYS.items():
        parallel = Parallel(Mesh({way.axis: 2}), way.sequence, way.context)
        rows, tokens = (size.rows * 2, size.tokens) if way.grows == "rows" else (size.rows, size.tokens * 2)
        weak, add = layer_step(size, parallel, rows, tokens, way.case == "window")
        strong, _ = layer_step(size, parallel, size.rows, size.tokens, way.case == "window")
        with recording() as ledger:
            weak()
        sent[name] = ledger.total().bytes
        turns[f"{name}, weak"], turns[f"{name}, strong"] = Turn(weak), Turn(strong)
        if name == SUMMED:
            turns[f"{name}, weak, gradient sum"] = Turn(add)
    return take_turns(turns, size.rounds), sent


def summarise_ways(size: Size, results: list[tuple[dict[str, Any], dict[str, int]]]) -> dict[str, Any]:
    """The figures of both ranks' measurements."""
    ranks = [taken for taken, _ in results]
    found: dict[str, Any] = {
        "size": vars(size) | {"dtype": "float32", "threads_per_rank": 1},
        "one_rank": {case: one_rank(ranks, case) for case in ("causal", "window")},
    }
    found["gradient_sum_of_context_ranks"] = {
        "kind": "measured",
        "per": "optimizer step and layer",
        "step_s": spread(together(ranks, f"{SUMMED}, weak, gradient sum")["step"]),
    }
    found["ways"] = {
        name: {
            "weak_grows": way.grows,
            "one_rank": way.case,
            "bytes_sent_per_rank_and_weak_step": max(sent[name] for _, sent in results),
            "weak": scaled(ranks, way.case, f"{name}, weak", 1.0),
            "strong": scaled(ranks, way.case, f"{name}, strong", 0.5),
        }
        for name, way in WAYS.items()
    }
    return found
