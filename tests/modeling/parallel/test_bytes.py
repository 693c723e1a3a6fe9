"""What a decoder's layer sends, there and back, by formulas over its sizes: the difference between two layers and one."""

# B rows, T tokens, D width, N query heads, K key heads, H features per head; k ranks.

from dataclasses import replace

import pytest
import torch

from modeling.config import DecoderConfig
from modeling.decoder import Decoder
from modeling.parallel.ledger import Ledger, recording
from modeling.parallel.partition import balanced, starts
from modeling.parallel.placing import Place
from modeling.parallel.stream import ContextWay, Parallel
from tests.modeling.parallel.decoder_cases import CONFIGS, TOKENS, mesh_of, rows
from tests.ranks import Ranks

B, ITEM = 2, 8


def ledgers(config: DecoderConfig, parallel: Parallel) -> tuple[Ledger, Ledger]:
    """Of the loss and of its way back."""
    decoder = Decoder(config, parallel=parallel).double()
    ids_BT, targets_BT, _ = rows(3, False)
    with recording() as there:
        loss = decoder.loss(ids_BT, targets_BT)
    with recording() as back:
        loss.backward()
    return there, back


def layer_bytes(name: str, parallel: Parallel) -> tuple[int, int]:
    config = CONFIGS[name]
    two, one = (ledgers(replace(config, num_layers=layers), parallel) for layers in (2, 1))
    there, back = (more.total().bytes - less.total().bytes for more, less in zip(two, one, strict=True))
    assert there % ITEM == back % ITEM == 0
    return there // ITEM, back // ITEM


def sum_sent(numbers: int, k: int, me: int) -> int:
    """A sum over k ranks: everything to the other of two, else others' shares to them and then one's own to all."""
    share = balanced(numbers, k)[me]
    return numbers if k == 2 else numbers - share + (k - 1) * share


def tensor_layer(k: int) -> None:
    """Two sums forward and two back; split by tokens, as many gathers and scatters, and the sums of two norms' gradients."""
    config, mesh = CONFIGS["plain"], mesh_of((("tensor", k),))
    me, D = mesh.group("tensor").index, config.hidden_size
    stream = B * TOKENS * D
    assert layer_bytes("plain", Parallel(mesh)) == (2 * sum_sent(stream, k, me), 2 * sum_sent(stream, k, me))
    mine = B * balanced(TOKENS, k)[me] * D
    passes = 2 * ((k - 1) * mine + stream - mine)
    assert layer_bytes("plain", Parallel(mesh, sequence=True)) == (passes, passes + 2 * sum_sent(D, k, me))


@pytest.mark.parametrize("k", [2, 3])
def test_tensor_and_sequence_layers(ranks: Ranks, k: int) -> None:
    ranks(k, tensor_layer, k)


def context_layer(name: str, way: ContextWay, k: int) -> None:
    config, mesh = CONFIGS[name], mesh_of((("context", k),))
    group = mesh.group("context")
    me, N, K, H = group.index, config.num_heads, config.num_kv_heads, config.head_dim
    lengths = [share.count for share in Place(config, Parallel(mesh, context=way), TOKENS).shares]
    mine = lengths[me]
    if way == "ulysses":
        heads = balanced(N, k)
        firsts = starts(heads)
        needed = [len({(first + head) * K // N for head in range(count)}) for first, count in zip(firsts, heads, strict=True)]
        others_needed = sum(needed) - needed[me]
        away, home = mine * H * (N - heads[me]), heads[me] * (TOKENS - mine) * H
        expected = (
            B * (away + home + 2 * mine * H * others_needed),
            B * (away + home + 2 * needed[me] * (TOKENS - mine) * H),
        )
    elif way == "ring":
        held = [2 * B * K * H * lengths[(me - turned) % k] for turned in range(k)]
        expected = (sum(held[:-1]), sum(held[:-1]) + sum(held))
    else:
        assert config.window_keys is not None
        reach, first = config.window_keys - 1, starts(lengths)
        token = 2 * B * K * H

        def from_me(other: int) -> int:
            begin, end = max(0, first[other] - reach), first[other]
            return max(0, min(end, first[me] + mine) - max(begin, first[me]))

        expected = (token * sum(from_me(other) for other in range(me + 1, k)), token * (first[me] - max(0, first[me] - reach)))
    assert layer_bytes(name, Parallel(mesh, context=way)) == expected


@pytest.mark.parametrize(
    ("name", "way"),
    [("plain", "ulysses"), ("few keys", "ulysses"), ("grouped", "ring"), ("plain", "ring"), ("window", "halo"), ("window", "ring")],
)
@pytest.mark.parametrize("k", [2, 3, 4])
def test_context_layers(ranks: Ranks, name: str, way: ContextWay, k: int) -> None:
    ranks(k, context_layer, name, way, k)


def test_one_rank_sends_nothing() -> None:
    assert layer_bytes("plain", Parallel(mesh_of(()))) == (0, 0)
    with recording() as ledger:
        Decoder(CONFIGS["plain"])(torch.zeros(1, 3, dtype=torch.long)).sum().backward()
    assert ledger.calls == []
