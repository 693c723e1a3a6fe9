"""How glibc keeps memory that torch frees, which decides what a step costs and what a process holds; both are said before measuring.

By default glibc maps blocks of more than 128 KiB from the system and gives them back, until one is freed: then it keeps blocks up to that
size, at most 32 MiB, and gives back what is free at the heap's end. Whether a step's memory comes from the heap or is mapped and zeroed by
the system, page by page, then depends on the order of earlier steps: up to a fifth of a step of the Fourier neural operator.
"""

import ctypes

# mallopt's parameters, from malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MIB = 2**20


def keep_freed_memory() -> None:
    """What steps are timed with: freed memory stays for the next step, as with the allocators that PyTorch's tuning guide advises."""
    # Above 32 MiB, mallopt refuses; such blocks are mapped, on one rank as on two.
    set_options({M_MMAP_THRESHOLD: 32 * MIB, M_TRIM_THRESHOLD: 2**31 - 1})


def return_freed_memory() -> None:
    """What memory is measured with: freed blocks of 1 MiB and more go back to the system at once."""
    set_options({M_MMAP_THRESHOLD: MIB})


def set_options(options: dict[int, int]) -> None:
    """Nothing where the C library is another one."""
    libc = ctypes.CDLL(None)
    for option, value in options.items():
        if hasattr(libc, "mallopt"):
            libc.mallopt(option, value)
