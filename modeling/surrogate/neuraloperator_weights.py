"""Weights of neuraloperator's FNO (2.0.0) into ours and back: names, and the order in which a spectrum's modes are stored.

There a spectral weight is (in, out, modes ...) with the negative frequencies of every dim but the last in front (`fftshift`); here it is
(modes ..., in, out) with the frequencies from 0 up and then the negative ones.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from modeling.errors import ModelError
from modeling.surrogate.config import FNOConfig

# What neuraloperator's FNO may say of itself beside the sizes, and the only values that ours has.
FIXED = {
    "norm": None,
    "complex_data": False,
    "use_channel_mlp": True,
    "channel_mlp_skip": "soft-gating",
    "fno_skip": "linear",
    "resolution_scaling_factor": None,
    "domain_padding": None,
    "stabilizer": None,
    "max_n_modes": None,
    "factorization": None,
    "separable": False,
    "preactivation": False,
}


def config_of(settings: Mapping[str, Any]) -> FNOConfig:
    """The configuration from what neuraloperator's FNO was built with, as its state_dict carries it under `_metadata`."""
    for name, value in FIXED.items():
        if settings.get(name, value) != value:
            raise ModelError(f"neuraloperator's {name}={settings[name]!r} is not supported; {value!r} is")
    if settings.get("positional_embedding", "grid") not in ("grid", None):
        raise ModelError("neuraloperator's positional_embedding must be 'grid' or None")
    return FNOConfig(
        modes=tuple(settings["n_modes"]),
        in_channels=settings["in_channels"],
        out_channels=settings["out_channels"],
        hidden_channels=settings["hidden_channels"],
        num_layers=settings.get("n_layers", 4),
        lifting_ratio=settings.get("lifting_channel_ratio", 2),
        projection_ratio=settings.get("projection_channel_ratio", 2),
        mlp_ratio=settings.get("channel_mlp_expansion", 0.5),
        coordinates=settings.get("positional_embedding", "grid") is not None,
    )


def names(config: FNOConfig) -> dict[str, str]:
    """Our name -> theirs, for every parameter."""
    found = {}
    for ours, theirs in (("lifting", "lifting.fcs"), ("projection", "projection.fcs")):
        found |= mlp_names(ours, theirs)
    for layer in range(config.num_layers):
        block = f"blocks.{layer}"
        found[f"{block}.spectral.weight"] = f"fno_blocks.convs.{layer}.weight.tensor"
        found[f"{block}.skip.weight"] = f"fno_blocks.fno_skips.{layer}.conv.weight"
        found[f"{block}.skip.bias"] = f"fno_blocks.convs.{layer}.bias"
        found[f"{block}.gate"] = f"fno_blocks.channel_mlp_skips.{layer}.weight"
        found |= mlp_names(f"{block}.mlp", f"fno_blocks.channel_mlp.{layer}.fcs")
    return found


def mlp_names(ours: str, theirs: str) -> dict[str, str]:
    return {
        f"{ours}.{place}.{kind}": f"{theirs}.{number}.{kind}"
        for number, place in enumerate(("first", "second"))
        for kind in ("weight", "bias")
    }


def from_neuraloperator(config: FNOConfig, state: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Our whole parameters by name, for `modeling.parallel.weights.fill`. Raises ModelError for what is missing, left over or misshapen."""
    mapping = names(config)
    left = sorted(name for name in state if name not in mapping.values() and name != "_metadata")
    if left:
        raise ModelError(f"neuraloperator's weights hold {left[0]}, which this FNO does not have")
    for ours, theirs in mapping.items():
        if theirs not in state:
            raise ModelError(f"neuraloperator's weights lack {theirs}")
        yield ours, to_ours(config, ours, state[theirs])


def to_neuraloperator(config: FNOConfig, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their state_dict from our whole parameters."""
    return {theirs: to_theirs(config, ours, parameters[ours]) for ours, theirs in names(config).items()}


def to_ours(config: FNOConfig, name: str, value: Tensor) -> Tensor:
    """Their tensor in our shape and order."""
    if name.endswith("spectral.weight"):
        dims = range(config.dims)
        shifted = torch.movedim(value, (0, 1), (-2, -1))
        return torch.roll(shifted, [-(config.modes[dim] // 2) for dim in dims[:-1]], list(dims[:-1])) if config.dims > 1 else shifted
    if name.endswith(("bias", "gate")):
        return value.flatten()
    return value.flatten(1)


def to_theirs(config: FNOConfig, name: str, value: Tensor) -> Tensor:
    """Our tensor in their shape and order."""
    if name.endswith("spectral.weight"):
        dims = list(range(config.dims))[:-1]
        shifted = torch.roll(value, [config.modes[dim] // 2 for dim in dims], dims) if dims else value
        return torch.movedim(shifted, (-2, -1), (0, 1))
    if name.endswith("skip.bias"):
        return value.view(-1, *[1] * config.dims)
    if name.endswith("gate"):
        return value.view(1, -1, *[1] * config.dims)
    return value if name.endswith("bias") else value.unsqueeze(-1)
