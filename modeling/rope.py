"""Rotary positions (arXiv 2104.09864), half-split layout, partial rotation, and longrope (arXiv 2402.13753)."""

# B batch, T tokens, N heads, R rotated features, P = R/2 rotated pairs, H features per head.

from typing import Literal

import torch
from torch import Tensor

from modeling.config import DecoderConfig
from modeling.constants import constant

Factors = Literal["short", "long"]


def inverse_frequencies(config: DecoderConfig, factors: Factors, device: torch.device) -> Tensor:
    """float32 (P,): 1 / (factor_i * theta^(2i/R)); the factors are 1 without longrope. The order of operations is the reference's."""
    if config.rope_scaling is None:
        exponent_P = torch.arange(0, config.rotary_dim, 2, dtype=torch.float, device=device) / config.rotary_dim
        return 1.0 / (config.rope_theta**exponent_P)
    chosen = config.rope_scaling.long_factors if factors == "long" else config.rope_scaling.short_factors
    factor_P = constant(chosen, torch.float32, device)
    exponent_P = torch.arange(0, config.rotary_dim, 2, dtype=torch.int64, device=device).float() / config.rotary_dim
    return 1.0 / (factor_P * config.rope_theta**exponent_P)


def factors_of_length(config: DecoderConfig, length: int) -> Factors:
    """Which longrope set rotates a text of `length` tokens when its length decides: long past the original length."""
    return "long" if config.rope_scaling is not None and length > config.original_positions else "short"


def factors_for(config: DecoderConfig, positions_BT: Tensor) -> Factors:
    """`factors_of_length` of the whole batch: its last position decides, which is read where there is longrope only."""
    return "short" if config.rope_scaling is None else factors_of_length(config, int(positions_BT.max()) + 1)


def rotary_tables(config: DecoderConfig, positions_BT: Tensor, factors: Factors, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and sin, each (B, 1, T, R) in `dtype`: made once per forward pass in float32, then rounded."""
    with torch.no_grad(), torch.autocast(positions_BT.device.type, enabled=False):
        inverse_P = inverse_frequencies(config, factors, positions_BT.device)
        angles_BTP = positions_BT[..., None].float() * inverse_P
        angles_BTR = torch.cat((angles_BTP, angles_BTP), dim=-1)
        scale = config.rope_long_attention_factor if factors == "long" else config.rope_attention_factor
        cos_BTR, sin_BTR = angles_BTR.cos() * scale, angles_BTR.sin() * scale
        return cos_BTR.to(dtype).unsqueeze(1), sin_BTR.to(dtype).unsqueeze(1)


def rotate(x_BNTH: Tensor, cos_B1TR: Tensor, sin_B1TR: Tensor) -> Tensor:
    """Rotates the first R features of every head by its position; features i and i + R/2 make a pair."""
    rotated = cos_B1TR.shape[-1]
    x_BNTR, rest_BNTH = x_BNTH[..., :rotated], x_BNTH[..., rotated:]
    half = rotated // 2
    turned_BNTR = torch.cat((-x_BNTR[..., half:], x_BNTR[..., :half]), dim=-1)
    y_BNTR = (x_BNTR * cos_B1TR) + (turned_BNTR * sin_B1TR)
    # The reference joins even an empty rest; the join decides the strides that attention sees, not the values.
    return torch.cat((y_BNTR, rest_BNTH), dim=-1) if rest_BNTH.shape[-1] else y_BNTR
