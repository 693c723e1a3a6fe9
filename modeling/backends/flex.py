"""torch's flex attention: a kernel generated for the mask at hand, which skips the blocks of keys that no query of a block sees."""

# B batch, T query tokens, S key tokens, N query heads, K key/value heads, H features per head.

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch._dynamo
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from modeling.config import BlockSparse, DecoderConfig
from modeling.constants import constant
from modeling.cpu_compiler import check_cpu_compiler
from modeling.errors import ModelError
from modeling.visible import Visible, key_positions

# Whether query q sees key k, in batch row b and query head h; the arguments are integer tensors without dimensions.
Sees = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

MIN_HEAD_DIM_CUDA = 16  # a tile of triton's matrix product; other sizes, 96 too, are padded inside the kernel
MAX_COMPILED = 64  # kinds of mask, dtypes, with and without gradients, and on a CPU shapes; torch's own limit is 8


class Flex:
    """One block mask for the dense layers and one for the blocksparse ones, made once per pass.

    On CUDA the kernels are compiled with lengths that may vary. On a CPU there is a forward pass only, compiled anew for every shape, which
    takes seconds: torch 2.13 writes C++ that does not compile where a captured tensor's length varies. Nothing falls back to the form that
    holds all scores.
    """

    def __init__(self, config: DecoderConfig, visible: Visible, device: torch.device) -> None:
        if visible.num_queries != visible.num_keys:
            raise ModelError(
                f"attention backend 'flex' computes whole rows, not {visible.num_queries} new tokens behind a cache of "
                f"{visible.num_keys - visible.num_queries}. Use sdpa or eager"
            )
        check_device(config, device)
        self.dense = block_mask(visible, device)
        self.sparse = None if config.blocksparse is None else block_mask(visible, device, config.blocksparse, config.num_heads)

    def __call__(self, q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, sparse: bool, scale: float) -> Tensor:
        if (
            q_BNTH.device.type == "cpu"
            and torch.is_grad_enabled()
            and (q_BNTH.requires_grad or k_BKSH.requires_grad or v_BKSH.requires_grad)
        ):
            raise ModelError("attention backend 'flex' has no gradients on a CPU; torch computes them on CUDA only. Use sdpa or eager")
        # A layer that is being compiled takes the plain function, which fuses with its neighbours.
        attend = flex_attention if torch.compiler.is_compiling() else compiled_attention(q_BNTH.device.type)
        grouped = q_BNTH.shape[1] != k_BKSH.shape[1]
        return attend(q_BNTH, k_BKSH, v_BKSH, block_mask=self.sparse if sparse else self.dense, scale=scale, enable_gqa=grouped)  # pyright: ignore[reportReturnType]


def check_device(config: DecoderConfig, device: torch.device) -> None:
    """Refuses what the kernels cannot be compiled for."""
    if device.type == "cuda":
        if config.head_dim < MIN_HEAD_DIM_CUDA:
            raise ModelError(
                f"attention backend 'flex' needs heads of at least {MIN_HEAD_DIM_CUDA} features on CUDA, got {config.head_dim}. "
                "Use sdpa or eager"
            )
    elif device.type == "cpu":
        check_cpu_compiler("attention backend 'flex'", "Use sdpa or eager")
        if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
            raise ModelError("attention backend 'flex' needs an x86 CPU with AVX2, and this one has none. Use sdpa or eager")
    else:
        raise ModelError(f"attention backend 'flex' needs a CUDA device or a CPU; these tensors are on {device.type}. Use sdpa or eager")


@cache
def compiled_attention(device: str) -> Callable[..., Tensor]:
    """Compiled once per process; a whole graph, so that torch says when it has compiled too often and does not go on without its kernel."""
    dynamic = False if device == "cpu" else None
    return compile_for_many(flex_attention, dynamic=dynamic)


@cache
def compiled_block_mask() -> Callable[..., BlockMask]:
    """Compiled, the mask of T * S values never exists as a whole."""
    return compile_for_many(create_block_mask)


def compile_for_many(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """torch.compile that goes on for MAX_COMPILED kinds of input; before torch 2.12 that is a setting of the whole process."""
    if "recompile_limit" in inspect.signature(torch.compile).parameters:
        options["recompile_limit"] = MAX_COMPILED
    else:
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MAX_COMPILED)  # pyright: ignore[reportAttributeAccessIssue]
    return torch.compile(function, fullgraph=True, **options)


def block_mask(visible: Visible, device: torch.device, sparse: BlockSparse | None = None, num_heads: int = 1) -> BlockMask:
    """Which blocks of keys each block of queries sees: none, all, or those for which `sees` is asked key by key."""
    rows = visible.runs_BT if visible.runs_BT is not None else visible.first_B
    build = compiled_block_mask() if device.type == "cuda" else create_block_mask
    return build(
        sees(visible, device, sparse, num_heads),
        B=None if rows is None else rows.shape[0],
        H=None if sparse is None else num_heads,
        Q_LEN=visible.num_queries,
        KV_LEN=visible.num_keys,
        device=device,
    )


def sees(visible: Visible, device: torch.device, sparse: BlockSparse | None, num_heads: int) -> Sees:
    """`modeling.visible.dense_mask` as a function of one query and one key; queries and keys are the same tokens."""
    parts: list[Sees] = [lambda b, h, q, k: k <= q]
    window, runs_BT, first_B = visible.window, visible.runs_BT, visible.first_B
    if window is not None:
        parts.append(lambda b, h, q, k: k > q - window)
    if runs_BT is not None:
        parts.append(lambda b, h, q, k: of_row(runs_BT, b, q) == of_row(runs_BT, b, k))
    if first_B is not None:
        parts.append(lambda b, h, q, k: (k >= first_B[b]) | (k == q))
    if sparse is not None:
        parts.append(sees_block(visible, device, sparse, num_heads))

    def every(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        seen = parts[0](b, h, q, k)
        for part in parts[1:]:
            seen = seen & part(b, h, q, k)
        return seen

    return every


def of_row(x_BS: Tensor, b: Tensor, at: Tensor) -> Tensor:
    """The value of one token; a single row holds for every row of the batch."""
    return x_BS[0, at] if x_BS.shape[0] == 1 else x_BS[b, at]


def sees_block(visible: Visible, device: torch.device, sparse: BlockSparse, num_heads: int) -> Sees:
    """The block pattern of one head: local or vertical blocks, counted from each document's or row's start."""
    block_BS = key_positions(visible, device).clamp(min=0) // sparse.block
    offset_N = constant(tuple(sparse.head_offset(head, num_heads) for head in range(num_heads)), torch.int64, device)
    local_blocks, stride = sparse.local_blocks, sparse.vertical_stride

    def pattern(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        key_block, query_block = of_row(block_BS, b, k), of_row(block_BS, b, q)
        return (query_block - key_block < local_blocks) | ((key_block + offset_N[h]) % stride == 0)

    return pattern
