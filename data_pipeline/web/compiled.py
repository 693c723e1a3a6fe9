"""Loops over bytes and hashes, compiled by numba on first use and kept on disk from then on.

numba decides whether a kept function is still good by its own source file alone. A compiled function must therefore call only compiled
functions of its own file: a change in another file would go unseen. Where one file would be too long, the file with the outermost function
states the `digest` of the others, which a test compares, so that a change in them changes it too.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """The function as machine code: no Python objects inside, no bounds checks, the interpreter's lock released."""
    return numba.njit(cache=True, nogil=True, boundscheck=False)(function)  # type: ignore[return-value]


def inner(function: Function) -> Function:
    """As `compiled`, for a function that only compiled ones call: without a way in from Python it compiles faster."""
    return numba.njit(cache=True, nogil=True, boundscheck=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)  # type: ignore


def digest(folder: Path, files: tuple[str, ...]) -> str:
    """The first digits of the SHA-256 of the files' texts."""
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in files)).hexdigest()[:12]
