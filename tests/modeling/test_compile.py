"""torch.compile takes every kind of layer whole, once for all alike, and gives the eager numbers."""

import shutil

import pytest
import torch
import torch._dynamo
from small_decoders import MEMBERS, SMALL, random_decoder, random_ids
from torch import Tensor, nn
from torch._dynamo.utils import counters

from modeling.backends import varlen
from modeling.backends.packed import packed_attention
from modeling.backends.varlen import Varlen
from modeling.decoder import Decoder
from modeling.parallel.stream import Stream
from modeling.recompute import RECOMPUTE

KINDS = {**MEMBERS, "phi-3-small": SMALL}
# What torch's compiler does to tensors and to any autograd function while it looks at them.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    torch._dynamo.reset()
    counters.clear()


def trained(decoder: Decoder, seed: int = 1, packed: bool = False, document: int = 9) -> list[torch.Tensor]:
    """The loss and the gradients of one pass."""
    decoder.zero_grad()
    documents_BT = (torch.arange(24) // document)[None].expand(2, -1) if packed else None
    loss = decoder.loss(random_ids(2, 24, seed=seed), random_ids(2, 24, seed=9), documents_BT=documents_BT)
    loss.backward()
    return [loss.detach(), *(parameter.grad for parameter in decoder.parameters() if parameter.grad is not None)]


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_one_graph_with_the_eager_numbers(kind: str, packed: bool) -> None:
    decoder = random_decoder(KINDS[kind])
    decoder.rope_factors = "short"
    wanted = [one.clone() for one in trained(decoder, packed=packed)]
    decoder.compile_layers(fullgraph=True, backend="aot_eager")
    for mine, theirs in zip(trained(decoder, packed=packed), wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
    # Layers that are alike share a graph; a blocksparse layer is of another kind than a dense one.
    assert counters["stats"]["unique_graphs"] == (2 if KINDS[kind].blocksparse else 1)


@pytest.mark.parametrize("dynamic", [None, False], ids=["shapes as they come", "shapes held"])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
def test_the_next_batch_compiles_nothing(packed: bool, dynamic: bool | None) -> None:
    decoder = random_decoder(MEMBERS["window-gqa"])
    decoder.compile_layers(fullgraph=True, backend="aot_eager", dynamic=dynamic)
    first = [one.clone() for one in trained(decoder, packed=packed)]
    before = counters["stats"]["unique_graphs"]
    assert before == 1
    second = trained(decoder, seed=2, packed=packed, document=5)  # packed: another number of documents
    assert counters["stats"]["unique_graphs"] == before
    assert not torch.equal(first[0], second[0])


def on_the_cpu(self: Varlen, q_LNH: Tensor, k_LKH: Tensor, v_LKH: Tensor, bounds_D: Tensor, longest: int, scale: float) -> Tensor:
    """What torch's own kernel computes on a GPU, over the same bounds."""
    rows = [x_LNH.transpose(0, 1)[None] for x_LNH in (q_LNH, k_LKH, v_LKH)]
    return packed_attention(rows[0], rows[1], rows[2], bounds_D, 0, scale)[0].transpose(0, 1)


@pytest.mark.parametrize("rows", [1, 2], ids=["documents of one row hold for all", "each row its documents"])
def test_documents_end_to_end_compile_once_for_any_number_of_them(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varlen, "check_pass", lambda *_: None)
    monkeypatch.setattr(varlen, "DTYPES", (torch.float32,))
    monkeypatch.setattr(Varlen, "attend", on_the_cpu)
    plain = random_decoder(MEMBERS["gqa"])
    decoder = Decoder(plain.config, attention="varlen")
    decoder.load_state_dict(plain.state_dict())
    decoder.compile_layers(fullgraph=True, backend="aot_eager", dynamic=False)
    for document in (9, 5, 2, 12, 7):
        documents_BT = (torch.arange(24) // document)[None].expand(rows, -1)
        mine, theirs = (one(random_ids(2, 24), documents_BT=documents_BT) for one in (decoder, plain))
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
        assert counters["stats"]["unique_graphs"] == 1
    for one_document_BT in (None, torch.zeros(rows, 24, dtype=torch.long)):
        mine, theirs = (one(random_ids(2, 24), documents_BT=one_document_BT) for one in (decoder, plain))
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("recompute", RECOMPUTE)
def test_compiled_layers_recompute(recompute: str) -> None:
    decoder = random_decoder(MEMBERS["gqa"])
    wanted = [one.clone() for one in trained(decoder)]
    decoder.recompute = recompute
    decoder.compile_layers(fullgraph=True, backend="aot_eager")
    for mine, theirs in zip(trained(decoder), wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


class Breaking(nn.Module):
    """A feed-forward block that the compiler cannot take whole."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x_BTD: torch.Tensor, stream: Stream) -> torch.Tensor:
        torch._dynamo.graph_break()
        return self.inner(x_BTD, stream)


def test_a_break_in_the_graph_is_seen() -> None:
    decoder = random_decoder(MEMBERS["gqa"])
    for layer in decoder.layers:
        layer.feed_forward = Breaking(layer.feed_forward)  # type: ignore[union-attr]
    trained(decoder)
    decoder.compile_layers(fullgraph=True, backend="aot_eager")
    with pytest.raises(torch._dynamo.exc.Unsupported, match="graph_break"):
        trained(decoder)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="not run here: no C++ compiler for torch's inductor")
def test_generated_kernels_give_the_eager_numbers() -> None:
    decoder = random_decoder(MEMBERS["window-gqa"])
    wanted = [one.clone() for one in trained(decoder, packed=True)]
    decoder.compile_layers(fullgraph=True)
    for mine, theirs in zip(trained(decoder, packed=True), wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
