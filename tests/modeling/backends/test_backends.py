"""Every attention backend against the plain float64 reference, forward and gradients, and what each must refuse."""

# B batch, T tokens, N query heads, K key/value heads, H features per head.

import dataclasses
import importlib.util
import shutil

import pytest
import torch
from plain_attention import CASES, PLAIN_ROWS, Blocks, Case, plain_attention, plain_mask, real_queries
from torch import Tensor
from torch.nn.attention.flex_attention import create_mask

from modeling.backends import BACKENDS, Attend, start_pass
from modeling.backends.flash import flash_kernel
from modeling.backends.flex import block_mask
from modeling.backends.varlen import flash_window, repeat_bounds
from modeling.config import BlockSparse, DecoderConfig
from modeling.decoder import Decoder
from modeling.errors import ModelError
from modeling.presets import TINY
from modeling.visible import Visible, document_bounds, document_runs
from tests.compiler_warnings import COMPILER_WARNINGS

CPU = torch.device("cpu")
FLOAT32, BFLOAT16 = 1e-5, 1.5e-2  # relative to the reference's norm: some tens of roundings of float32; bfloat16 rounds at 4e-3

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="not run here: needs a CUDA device")
with_flash = pytest.mark.skipif(importlib.util.find_spec("flash_attn") is None, reason="not run here: flash-attn is not installed")
with_compiler = pytest.mark.skipif(
    shutil.which("g++") is None or not torch.backends.cpu.get_cpu_capability().startswith("AVX"),
    reason="not run here: flex on a CPU needs g++ and AVX2",
)

ignore_inductor = pytest.mark.filterwarnings(*COMPILER_WARNINGS)

ON_GPU = [pytest.param("flex", case, marks=on_gpu) for case in CASES]
ON_GPU += [pytest.param("varlen", case, marks=on_gpu) for case in PLAIN_ROWS]
ON_GPU += [pytest.param("flash", case, marks=[with_flash, on_gpu]) for case in PLAIN_ROWS]


def config_of(case: Case, head_dim: int) -> DecoderConfig:
    blocks = case.blocks
    sparse = None if blocks is None else BlockSparse(block=blocks.size, local_blocks=blocks.local, vertical_stride=blocks.stride)
    sizes = {"hidden_size": case.heads * head_dim, "num_heads": case.heads, "num_kv_heads": case.kv_heads, "max_positions": case.tokens}
    return dataclasses.replace(TINY, **sizes, window_keys=case.window, blocksparse=sparse)


def visible_of(case: Case, device: torch.device = CPU) -> Visible:
    runs_BT, first_B = None, None
    if case.documents is not None:
        rows = [[number for number, length in enumerate(row) for _ in range(length)] for row in case.documents]
        runs_BT = document_runs(torch.tensor(rows, device=device))
    if case.padding is not None:
        first_B = torch.tensor(case.padding, device=device)
    return Visible(num_queries=case.tokens, num_keys=case.tokens, window_keys=case.window, runs_BT=runs_BT, first_B=first_B)


def backend_of(name: str, case: Case, device: torch.device = CPU, head_dim: int = 16) -> Attend:
    return start_pass(name, config_of(case, head_dim), visible_of(case, device), device)


def random_inputs(case: Case, device: torch.device = CPU, dtype: torch.dtype = torch.float32, head_dim: int = 16) -> list[Tensor]:
    """Queries, keys and values as a layer makes them: views of (B, T, heads, H)."""
    generator = torch.Generator().manual_seed(3)
    heads = (case.heads, case.kv_heads, case.kv_heads)
    shapes = [(case.rows, case.tokens, count, head_dim) for count in heads]
    return [torch.randn(shape, generator=generator).to(device, dtype).transpose(1, 2) for shape in shapes]


def relative_error(got: Tensor, wanted: Tensor) -> float:
    return ((got.double() - wanted).norm() / wanted.norm()).item()


def real_part(case: Case, y_BNTH: Tensor) -> Tensor:
    return y_BNTH * real_queries(case)[:, None, :, None].to(y_BNTH.device)


def forward_and_gradients(case: Case, inputs: list[Tensor], attend: Attend | None, scale: float) -> list[Tensor]:
    """The outputs and the gradients of queries, keys and values, for seeded gradients of the outputs; by the reference where no backend."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    y_BNTH = plain_attention(case, *inputs, scale) if attend is None else real_part(case, attend(*inputs, case.blocks is not None, scale))
    dy_BNTH = torch.randn(y_BNTH.shape, generator=torch.Generator().manual_seed(4)).to(y_BNTH.device, y_BNTH.dtype)
    return [y_BNTH.detach(), *torch.autograd.grad(y_BNTH, inputs, dy_BNTH)]


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("backend", ["sdpa", "eager"])
def test_forward_and_gradients_on_a_cpu(backend: str, name: str) -> None:
    case = CASES[name]
    inputs = random_inputs(case)
    wanted = forward_and_gradients(case, [x.double() for x in inputs], None, scale=0.3)
    got = forward_and_gradients(case, inputs, backend_of(backend, case), scale=0.3)
    assert max(relative_error(one, other) for one, other in zip(got, wanted, strict=True)) < FLOAT32


@pytest.mark.gpu
@ignore_inductor
@pytest.mark.parametrize(("backend", "name"), ON_GPU)
@pytest.mark.parametrize("head_dim", [64, 96])
def test_forward_and_gradients_on_a_gpu(backend: str, name: str, head_dim: int) -> None:
    case, device = CASES[name], torch.device("cuda")
    inputs = random_inputs(case, device, torch.bfloat16, head_dim)
    wanted = forward_and_gradients(case, [x.double() for x in inputs], None, scale=head_dim**-0.5)
    got = forward_and_gradients(case, inputs, backend_of(backend, case, device, head_dim), scale=head_dim**-0.5)
    assert max(relative_error(one, other) for one, other in zip(got, wanted, strict=True)) < BFLOAT16


@pytest.mark.parametrize("name", list(CASES))
def test_flex_inside_a_compiled_layer(name: str) -> None:
    """The caller's graph stays whole; traced without a kernel, so that this is fast and needs no compiler for C++ code."""
    case = CASES[name]
    torch.compiler.reset()  # every case compiles the same line, and torch counts how often
    attend, inputs = block_masks_only(case), random_inputs(case)
    layer = torch.compile(lambda q, k, v: attend(q, k, v, case.blocks is not None, 0.3), backend="eager", fullgraph=True)
    with torch.no_grad():
        assert relative_error(real_part(case, layer(*inputs)), plain_attention(case, *inputs, 0.3)) < FLOAT32


def block_masks_only(case: Case) -> Attend:
    if shutil.which("g++") is None:
        pytest.skip("not run here: flex on a CPU needs g++")
    return backend_of("flex", case)


@pytest.mark.slow
@with_compiler
@ignore_inductor
@pytest.mark.parametrize("name", ["documents-window-gqa", "documents-blocksparse", "padding"])
def test_flex_compiled_on_a_cpu(name: str) -> None:
    case = CASES[name]
    inputs = random_inputs(case)
    with torch.no_grad():
        y_BNTH = backend_of("flex", case)(*inputs, case.blocks is not None, 0.3)
    assert relative_error(real_part(case, y_BNTH), plain_attention(case, *inputs, 0.3)) < FLOAT32


@pytest.mark.parametrize("name", list(CASES))
def test_flex_masks_are_the_reference(name: str) -> None:
    """Key by key, and the blocks that its kernels visit: those with any seen key and no other."""
    case = CASES[name]
    sparse = config_of(case, 16).blocksparse
    mask = block_mask(visible_of(case), CPU, sparse, case.heads)
    dense = create_mask(mask.mask_mod, case.rows, case.heads, case.tokens, case.tokens, device="cpu")
    real_B1T1 = real_queries(case)[:, None, :, None]
    assert torch.equal(dense & real_B1T1, plain_mask(case) & real_B1T1)
    padded = torch.nn.functional.pad(dense, (0, 256 - case.tokens, 0, 256 - case.tokens))
    blocks = padded.unflatten(3, (2, 128)).unflatten(2, (2, 128)).any(-1).any(3)
    assert torch.equal(mask.to_dense().bool().expand_as(blocks), blocks)


WINDOWS = [
    pytest.param("sdpa", CPU, torch.float32),
    pytest.param("eager", CPU, torch.float32),
    pytest.param("flex", CPU, torch.float32, marks=[pytest.mark.slow, with_compiler]),
    pytest.param("flex", torch.device("cuda"), torch.bfloat16, marks=[pytest.mark.gpu, on_gpu]),
    pytest.param("varlen", torch.device("cuda"), torch.bfloat16, marks=[pytest.mark.gpu, on_gpu]),
    pytest.param("flash", torch.device("cuda"), torch.bfloat16, marks=[pytest.mark.gpu, with_flash, on_gpu]),
]


@ignore_inductor
@pytest.mark.parametrize(("backend", "device", "dtype"), WINDOWS)
def test_the_window_is_exactly_its_keys(backend: str, device: torch.device, dtype: torch.dtype) -> None:
    """A key reaches its own query and the 69 after it, not the 70th."""
    case = CASES["window"]
    attend, (q_BNTH, k_BKTH, v_BKTH) = backend_of(backend, case, device), random_inputs(case, device, dtype)
    other_BKTH = v_BKTH.clone()
    other_BKTH[:, :, 20] += 100.0
    with torch.no_grad():
        changed_BNTH = attend(q_BNTH, k_BKTH, v_BKTH, False, 0.01) != attend(q_BNTH, k_BKTH, other_BKTH, False, 0.01)
    assert changed_BNTH.any(-1).any(1).any(0).nonzero().flatten().tolist() == list(range(20, 20 + 70))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("window", {"window": 71}),
        ("window", {"window": 69}),
        ("documents", {"documents": ((60, 130, 10), (100, 100))}),
        ("documents", {"documents": ((61, 129, 10), (1, 99, 100))}),
        ("gqa", {"kv_heads": 2, "heads": 4, "window": 100}),
        ("blocksparse", {"blocks": Blocks(local=3)}),
        ("blocksparse", {"blocks": Blocks(stride=8)}),
        ("padding", {"padding": (0, 74)}),
    ],
)
def test_a_mask_that_is_off_is_noticed(name: str, change: dict) -> None:
    """The tolerances above are far below what one wrong key does."""
    case = CASES[name]
    wrong = dataclasses.replace(case, **change)
    inputs = random_inputs(case)
    with torch.no_grad():
        got = real_part(case, backend_of("sdpa", wrong)(*inputs, wrong.blocks is not None, 0.3))
        assert relative_error(got, plain_attention(case, *inputs, 0.3)) > BFLOAT16


def test_flash_attention_counts_a_window_without_the_query() -> None:
    assert flash_window(Visible(num_queries=4096, num_keys=4096, window_keys=2047)) == (2046, 0)
    assert flash_window(Visible(num_queries=2046, num_keys=2046, window_keys=2047)) == (-1, 0)
    assert flash_window(Visible(num_queries=9, num_keys=9)) == (-1, 0)


def test_documents_given_once_hold_for_every_row() -> None:
    once_1T = torch.tensor([[0, 0, 1, 2, 2]])
    twice = repeat_bounds(document_bounds(once_1T), 2, 5)
    assert twice.dtype == torch.int32
    assert torch.equal(twice, document_bounds(once_1T.expand(2, -1)))
    assert twice.tolist() == [0, 2, 3, 5, 7, 8, 10]


CUDA = torch.device("cuda")
REFUSED = [
    ("varlen", CASES["causal"], CPU, "attention backend 'varlen' needs a CUDA device; these tensors are on cpu. Use sdpa or eager"),
    ("flash", CASES["causal"], CPU, "attention backend 'flash' needs a CUDA device; these tensors are on cpu. Use sdpa or eager"),
    ("varlen", CASES["blocksparse"], CUDA, "attention backend 'varlen' has no blocksparse layers. Use flex, sdpa or eager"),
    ("flash", CASES["blocksparse"], CUDA, "attention backend 'flash' has no blocksparse layers. Use flex, sdpa or eager"),
    ("varlen", Case(rows=1), CUDA, "at most 256 features, got 12"),
    ("flash", Case(rows=1), CUDA, "at most 256 features, got 12"),
    ("flex", Case(rows=1), CUDA, "attention backend 'flex' needs heads of at least 16 features on CUDA, got 12"),
    ("flex", Case(), torch.device("meta"), "attention backend 'flex' needs a CUDA device or a CPU; these tensors are on meta"),
]


@pytest.mark.parametrize(("backend", "case", "device", "words"), REFUSED)
def test_what_a_backend_cannot_do_is_refused_by_name(backend: str, case: Case, device: torch.device, words: str) -> None:
    """Before any tensor is made, so that refusals for CUDA show on every machine."""
    with pytest.raises(ModelError) as caught:
        start_pass(backend, config_of(case, 12 if case.rows == 1 else 16), visible_of(case), device)
    assert words in str(caught.value)


@pytest.mark.parametrize("backend", ["varlen", "flash"])
def test_left_padding_is_refused(backend: str) -> None:
    visible = Visible(num_queries=9, num_keys=9, first_B=torch.tensor([2]))
    with pytest.raises(ModelError, match=f"attention backend '{backend}' takes no left padding"):
        start_pass(backend, config_of(CASES["causal"], 16), visible, CUDA)


@pytest.mark.parametrize("backend", ["flex", "varlen", "flash"])
def test_tokens_behind_a_cache_are_refused(backend: str) -> None:
    visible = Visible(num_queries=1, num_keys=9)
    with pytest.raises(ModelError, match=f"attention backend '{backend}' computes whole rows, not 1 new tokens behind a cache of 8"):
        start_pass(backend, config_of(CASES["causal"], 16), visible, CUDA)


def test_flex_refuses_gradients_on_a_cpu() -> None:
    attend, inputs = block_masks_only(CASES["causal"]), random_inputs(CASES["causal"])
    inputs[2].requires_grad_()
    with pytest.raises(ModelError, match="attention backend 'flex' has no gradients on a CPU"):
        attend(*inputs, False, 0.3)


def test_flex_refuses_a_cpu_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ModelError, match=r"'flex' needs a C\+\+ compiler on a CPU; 'no-such-compiler' is not installed"):
        backend_of("flex", CASES["causal"])


@pytest.mark.gpu
@pytest.mark.parametrize("backend", [pytest.param("varlen", marks=on_gpu), pytest.param("flash", marks=[with_flash, on_gpu])])
def test_float32_is_refused(backend: str) -> None:
    case = CASES["causal"]
    with pytest.raises(ModelError, match=f"attention backend '{backend}' computes in bfloat16 or float16; these tensors are float32"):
        backend_of(backend, case, CUDA)(*random_inputs(case, CUDA), False, 0.3)


@pytest.mark.skipif(importlib.util.find_spec("flash_attn") is not None, reason="flash-attn is installed")
def test_a_missing_package_is_one_line_with_its_remedy() -> None:
    with pytest.raises(ModelError) as caught:
        flash_kernel(9)
    assert str(caught.value) == (
        "attention backend 'flash' needs the package flash-attn: pip install -e \".[flash]\". Use varlen, flex or sdpa"
    )


def test_an_unknown_backend_is_refused_with_the_list() -> None:
    with pytest.raises(ModelError, match=f"no attention backend 'fast'; there is {', '.join(BACKENDS)}"):
        Decoder(TINY, attention="fast")
