"""Bytes that ranks send: context parallelism by halo against ring, and a field's transposes against untruncated ones.

Counted by closed form from who holds and wants which box, and held against the ledger of runs: on gloo ranks at a size that they can
compute, and at the full number of tokens by one rank beside ranks that do not exist. Kind of every figure: counted.
"""

# B rows, N query heads, K key heads, t this rank's tokens, H features per head.

from typing import Any

import torch

from benchmarks.scaling_parts.absent import beside_absent_ranks
from benchmarks.scaling_parts.launch import on_ranks
from modeling.config import DecoderConfig
from modeling.parallel.context import HaloWindow
from modeling.parallel.context_tokens import share_tokens
from modeling.parallel.exchange import Boxes, Fetch
from modeling.parallel.fourier import FourierTransform, SpectralConv
from modeling.parallel.fourier_plan import plan_fourier
from modeling.parallel.ledger import recording
from modeling.parallel.mesh import Group, Mesh
from modeling.parallel.moves import halo_dim, shift
from modeling.parallel.operator import Operator
from modeling.parallel.partition import balanced
from modeling.parallel.ring import Ring
from modeling.presets import PRESETS
from modeling.visible import Visible

RANKS, TOKENS, WINDOW = 8, 131_072, 2047
GOAL_CONTEXT, GOAL_FIELD = 50, 30
# Points and modes of published runs on 8 ranks (arXiv 2211.12709; modes there are those of one sign, here of both), and the field of 3.2
# billion points of `fields_modelled`.
FIELDS = {
    "CO2 storage, 262 x 118 x 64 and 86 steps": ((262, 118, 64, 86), (32, 32, 24, 20), 8),
    "Navier-Stokes, 130 x 130 x 130 and 64 steps": ((130, 130, 130, 64), (36, 36, 36, 24), 8),
    "768 x 512 x 512 and 16 steps": ((768, 512, 512, 16), (48, 32, 32, 16), 768),
}


def given_elements(operator: Operator) -> int:
    """Indices that this rank's part gives to others' boxes, along the dims that the boxes are of."""
    assert isinstance(operator, Fetch)
    plan: Boxes = operator.boxes
    return sum(box.volume for member, box in enumerate(plan.given) if member != plan.group.index)


def taken_elements(operator: Operator) -> int:
    """Indices that this rank's box takes from others: what the adjoint sends back."""
    assert isinstance(operator, Fetch)
    plan: Boxes = operator.boxes
    return sum(box.volume for member, box in enumerate(plan.taken) if member != plan.group.index)


def halo_tokens(rank: int, tokens: int, window: int, ranks: int = RANKS) -> tuple[int, int]:
    """Tokens whose keys and values a rank sends in a forward pass, and whose gradients it sends in the backward pass."""
    group = Group(tuple(range(ranks)), rank)
    operator = halo_dim(group, 3, balanced(tokens, ranks), [(window - 1, 0)] * ranks)
    return given_elements(operator), taken_elements(operator)


def ring_tokens(rank: int, tokens: int, ranks: int = RANKS) -> tuple[int, int, int]:
    """The same of the ring: keys forward; keys backward; their gradients backward, which take one shift more to come home."""
    group = Group(tuple(range(ranks)), rank)
    lengths = [share.count for share in share_tokens(tokens, group, zigzag=True)]
    there = [given_elements(shift(group, 3, lengths, turned=turned)) for turned in range(ranks)]
    return sum(there[:-1]), sum(there[:-1]), sum(there)


def context_bytes(rank: int, tokens: int, window: int, ranks: int, per_token: int, itemsize: int) -> dict[str, tuple[int, int]]:
    """(forward, backward) of one layer by halo and by ring; `per_token` elements of keys and values; a ring's gradients are float32."""
    halo_there, halo_back = halo_tokens(rank, tokens, window, ranks)
    ring_there, ring_again, ring_back = ring_tokens(rank, tokens, ranks)
    wide = max(4, itemsize)
    return {
        "halo": (halo_there * per_token * itemsize, halo_back * per_token * itemsize),
        "ring": (ring_there * per_token * itemsize, per_token * (ring_again * itemsize + ring_back * wide)),
    }


def run_attention(kind: str, group: Group, tokens: int, window: int, heads: tuple[int, int], width: int) -> tuple[int, int]:
    """One layer's attention on this rank, forward and backward, and what it sent in each. heads: query and key heads."""
    shares = share_tokens(tokens, group, zigzag=kind == "ring")
    visible = Visible(num_queries=tokens, num_keys=tokens, window_keys=window if kind == "halo" else None)
    attend = HaloWindow(group, shares, visible) if kind == "halo" else Ring(group, shares, visible, torch.device("cpu"))
    here = shares[group.index].count
    q_BNtH, k_BKtH, v_BKtH = (torch.randn(1, number, here, width, requires_grad=True) for number in (heads[0], heads[1], heads[1]))
    with recording() as there:
        y_BNtH = attend(q_BNtH, k_BKtH, v_BKtH, False, width**-0.5)
    with recording() as back:
        y_BNtH.sum().backward()
    return there.total().bytes, back.total().bytes


def ledger_of_all(tokens: int, window: int) -> dict[str, tuple[int, int]]:
    """On each of several gloo ranks: both attentions at a small size, float32."""
    ranks = torch.distributed.get_world_size()
    group = Mesh({"context": ranks}).group("context")
    return {kind: run_attention(kind, group, tokens, window, (2, 1), 4) for kind in ("halo", "ring")}


def check_ledgers(tokens: int, window: int, ranks: int) -> None:
    """The closed form equals what gloo ranks recorded, on every rank, with 1 key head of 4 features in float32."""
    for rank, found in enumerate(on_ranks(ranks, ledger_of_all, tokens, window)):
        expected = context_bytes(rank, tokens, window, ranks, per_token=2 * 4, itemsize=4)
        assert found == expected, f"rank {rank} sent {found} where the closed form says {expected}"


def ledger_of_one(rank: int, ranks: int, tokens: int, window: int) -> dict[str, tuple[int, int]]:
    """One rank at the full number of tokens, one head of 2 features, beside ranks that do not exist."""
    with beside_absent_ranks(rank, ranks):
        group = Mesh({"context": ranks}).group("context")
        return {kind: run_attention(kind, group, tokens, window, (1, 1), 2) for kind in ("halo", "ring")}


def count_context(quick: bool) -> dict[str, Any]:
    """Halo against ring for the decoders with a window, most bytes of any rank, per layer."""
    ranks, tokens, window = (4, 256, 17) if quick else (RANKS, TOKENS, WINDOW)
    checked = (256, 17) if quick else (2048, 129)
    check_ledgers(*checked, ranks)
    middle = ranks // 2
    found, expected = ledger_of_one(middle, ranks, tokens, window), context_bytes(middle, tokens, window, ranks, 2 * 2, 4)
    assert found == expected, f"rank {middle} sent {found} where the closed form says {expected}"
    rows = {}
    for name in ("phi3-mini-128k", "phi3-medium-128k"):
        rows[name] = context_row(PRESETS[name], ranks, tokens, window)
    return {
        "kind": "counted",
        "ranks": ranks,
        "tokens": tokens,
        "window_keys": window,
        "closed_form_equals_ledger_of": {
            f"{ranks} gloo ranks": {"tokens": checked[0], "window_keys": checked[1]},
            f"rank {middle} beside absent ones": {"tokens": tokens, "window_keys": window},
        },
        "goal_times_fewer": GOAL_CONTEXT,
        "bfloat16_bytes_per_rank_and_layer": rows,
    }


def context_row(config: DecoderConfig, ranks: int, tokens: int, window: int) -> dict[str, Any]:
    """bfloat16 bytes of the rank that sends most."""
    per_token = 2 * config.num_kv_heads * config.head_dim
    every = [context_bytes(rank, tokens, window, ranks, per_token, 2) for rank in range(ranks)]
    most = {kind: [max(one[kind][way] for one in every) for way in (0, 1)] for kind in ("halo", "ring")}
    return {
        "halo": {"forward": most["halo"][0], "backward": most["halo"][1]},
        "ring": {"forward": most["ring"][0], "backward": most["ring"][1]},
        "times_fewer_forward": round(most["ring"][0] / most["halo"][0], 2),
        "times_fewer_forward_and_backward": round(sum(most["ring"]) / sum(most["halo"]), 2),
    }


def field_ledger(sizes: tuple[int, ...], modes: tuple[int, ...]) -> tuple[int, int]:
    """On each of several gloo ranks: what one spectral convolution of 3 channels into 2, of 2 samples, sent, and what its plan says."""
    group = Mesh({"field": torch.distributed.get_world_size()}).group("field")
    plan = plan_fourier(sizes, modes, group.size)
    convolution = SpectralConv(3, 2, modes, group, plan.grids[-1])
    with recording() as ledger:
        convolution(torch.randn(*plan.field_boxes[group.index].size, 2, 3), FourierTransform(group, plan))
    return ledger.total().bytes, plan.bytes_sent(group.index, batch=2, in_channels=3, out_channels=2)


def count_fields() -> dict[str, Any]:
    """Transposes of one spectral convolution by the planned layout, truncated before and, on the same grids, not at all."""
    checked = ((13, 8, 6), (5, 4, 5))
    for rank, (found, expected) in enumerate(on_ranks(4, field_ledger, *checked)):
        assert found == expected, f"rank {rank} sent {found} where its plan says {expected}"
    rows = {}
    for name, (sizes, modes, ranks) in FIELDS.items():
        plan = plan_fourier(sizes, modes, ranks)
        whole = plan.untruncated()
        rows[name] = {
            "ranks": ranks,
            "modes": list(modes),
            "plan": str(plan),
            "bytes_per_rank_channel_and_sample": plan.most_bytes,
            "untruncated_bytes": whole.most_bytes,
            "times_fewer": round(whole.most_bytes / plan.most_bytes, 1),
        }
    return {
        "kind": "counted",
        "per": "spectral convolution there and back, complex64, one channel and sample; a backward pass sends as much again",
        "closed_form_equals_ledger_of": {"4 gloo ranks": {"sizes": list(checked[0]), "modes": list(checked[1])}},
        "goal_times_fewer": GOAL_FIELD,
        "fields": rows,
    }
