"""torch's own attention over documents laid end to end (`torch.nn.attention.varlen`): FlashAttention's kernel, no mask in memory."""

# B batch, T tokens, N query heads, K key/value heads, H features per head, L = B * T tokens laid end to end, D documents.

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from modeling.config import DecoderConfig
from modeling.errors import ModelError
from modeling.visible import Visible, document_bounds

MAX_HEAD_DIM = 256  # FlashAttention's largest
HEAD_DIM_STEP = 8
DTYPES = (torch.bfloat16, torch.float16)
TOLD_OF_GROUPS = "enable_gqa" in inspect.signature(varlen_attn).parameters  # torch before 2.12 is not asked, and groups heads all the same


class Varlen:
    """The bounds of the documents are made once per pass; an unpacked row is one document."""

    name = "varlen"

    def __init__(self, config: DecoderConfig, visible: Visible, device: torch.device) -> None:
        check_pass(self.name, config, visible, device)
        runs_BT = visible.runs_BT
        self.rows = 1 if runs_BT is None else runs_BT.shape[0]
        self.bounds_D = None if runs_BT is None else document_bounds(runs_BT)
        self.window = flash_window(visible)

    def __call__(self, q_BNTH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, sparse: bool, scale: float) -> Tensor:
        if q_BNTH.dtype not in DTYPES:
            raise ModelError(
                f"attention backend {self.name!r} computes in bfloat16 or float16; these tensors are "
                f"{str(q_BNTH.dtype).removeprefix('torch.')}. Use autocast, or sdpa or flex"
            )
        batch, _, tokens, _ = q_BNTH.shape
        bounds_D = self.bounds_D
        if bounds_D is None:
            bounds_D = torch.arange(0, (batch + 1) * tokens, tokens, dtype=torch.int32, device=q_BNTH.device)
        elif batch != self.rows:
            bounds_D = repeat_bounds(bounds_D, batch // self.rows, self.rows * tokens)
        y_LNH = self.attend(end_to_end(q_BNTH), end_to_end(k_BKSH), end_to_end(v_BKSH), bounds_D, tokens, scale)
        return y_LNH.unflatten(0, (batch, tokens)).transpose(1, 2)

    def attend(self, q_LNH: Tensor, k_LKH: Tensor, v_LKH: Tensor, bounds_D: Tensor, longest: int, scale: float) -> Tensor:
        """(L, N, H). `longest` is a length that no document exceeds; the row's own serves, and no device has to be waited for."""
        options: dict[str, Any] = {"scale": scale, "window_size": self.window}
        if TOLD_OF_GROUPS:
            options["enable_gqa"] = q_LNH.shape[1] != k_LKH.shape[1]
        y_LNH = varlen_attn(q_LNH, k_LKH, v_LKH, bounds_D, bounds_D, longest, longest, **options)
        assert isinstance(y_LNH, Tensor)  # it is a pair only where the log-sum-exp is asked for
        return y_LNH


def check_pass(name: str, config: DecoderConfig, visible: Visible, device: torch.device) -> None:
    """Refuses what FlashAttention's kernels cannot do; the dtype is known only when the tensors come."""
    if device.type != "cuda":
        raise ModelError(f"attention backend {name!r} needs a CUDA device; these tensors are on {device.type}. Use sdpa or eager")
    if config.blocksparse is not None:
        raise ModelError(f"attention backend {name!r} has no blocksparse layers. Use flex, sdpa or eager")
    if visible.first_B is not None:
        raise ModelError(f"attention backend {name!r} takes no left padding. Use flex, sdpa or eager")
    if visible.num_queries != visible.num_keys:
        raise ModelError(
            f"attention backend {name!r} computes whole rows, not {visible.num_queries} new tokens behind a cache of "
            f"{visible.num_keys - visible.num_queries}. Use sdpa or eager"
        )
    if config.head_dim > MAX_HEAD_DIM or config.head_dim % HEAD_DIM_STEP:
        raise ModelError(
            f"attention backend {name!r} needs heads of a multiple of {HEAD_DIM_STEP} and at most {MAX_HEAD_DIM} features, "
            f"got {config.head_dim}. Use sdpa or eager"
        )


def flash_window(visible: Visible) -> tuple[int, int]:
    """FlashAttention's (left, right): how many keys before and after its own a query sees, -1 for all of them.

    Left does not count the query's own key, so a window of W keys is W - 1: query i sees keys i - left to i + right, both included.
    """
    return (-1, 0) if visible.window is None else (visible.window - 1, 0)


def end_to_end(x_BNTH: Tensor) -> Tensor:
    """(L, N, H): the rows one after another."""
    return x_BNTH.transpose(1, 2).flatten(0, 1)


def repeat_bounds(bounds_D: Tensor, times: int, length: int) -> Tensor:
    """The bounds of `times` copies of rows that are `length` tokens together: documents given once may hold for every row of a batch."""
    starts_R1 = torch.arange(0, times * length, length, dtype=torch.int32, device=bounds_D.device)[:, None]
    return torch.cat(((bounds_D[:-1] + starts_R1).flatten(), bounds_D[-1:] * times))
