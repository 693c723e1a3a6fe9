"""Accelerators as a plan sees them: memory, arithmetic, bandwidths, price. Figures are makers' data sheets (dense, without sparsity)."""

from dataclasses import dataclass, replace

from data_pipeline.errors import InputError

GIB = 2**30


@dataclass(frozen=True)
class Device:
    """One accelerator. Bandwidths in bytes per second and direction, per accelerator."""

    name: str
    memory_bytes: int
    bfloat16_flops: float
    hbm_bytes_per_s: float
    node_bytes_per_s: float  # to others of its node (NVLink, or PCIe)
    net_bytes_per_s: float  # to other nodes: one network port of 400 Gbit/s per accelerator unless the machine usually has less
    price_per_hour: float  # US dollars: an assumption for sums, as clouds listed it in 2026; --price replaces it


DEVICES = {
    one.name: one
    for one in (
        Device("h200", 141 * 10**9, 989.5e12, 4.8e12, 450e9, 50e9, 3.5),
        Device("h100", 80 * 10**9, 989.5e12, 3.35e12, 450e9, 50e9, 2.5),
        Device("a100-80", 80 * 10**9, 312e12, 2.04e12, 300e9, 25e9, 1.5),
        Device("a100-40", 40 * 10**9, 312e12, 1.56e12, 300e9, 25e9, 1.2),
        Device("l40s", 48 * 10**9, 362e12, 0.86e12, 32e9, 12.5e9, 1.0),
        Device("b200", 180 * 10**9, 2250e12, 8.0e12, 900e9, 50e9, 5.0),
        Device("mi300x", 192 * 10**9, 1307e12, 5.3e12, 448e9, 50e9, 3.0),
    )
}
ALIASES = {"a100": "a100-80"}


def find_device(name: str, price: float | None = None, net_gbit_per_s: float | None = None) -> Device:
    """The accelerator of that name, its price and its network port as given."""
    known = ALIASES.get(name.lower(), name.lower())
    if known not in DEVICES:
        raise InputError(f"--gpu {name}: no such accelerator; there is {', '.join([*DEVICES, *ALIASES])}")
    found = DEVICES[known]
    for what, value in (("--price", price), ("--net-gbit", net_gbit_per_s)):
        if value is not None and not 0 < value < 1e6:
            raise InputError(f"{what} {value:g}: a number above 0 is needed")
    if price is not None:
        found = replace(found, price_per_hour=price)
    return replace(found, net_bytes_per_s=net_gbit_per_s * 1e9 / 8) if net_gbit_per_s is not None else found
