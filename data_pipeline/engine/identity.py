"""What a task is known by: the function's name, the source of its module, the parameters, the references.

Parameters are hashed by what they hold, not by their pickle: two pickles of equal values may differ. Sets and dictionaries count without
their order, so nothing depends on the hash seed.
"""

import hashlib
import importlib
import pickle
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from data_pipeline.engine.references import Ref
from data_pipeline.errors import InputError

ID_DIGITS = 32


def name_of(function: Callable[..., Any]) -> str:
    """`module:qualified.name`; a function that another process cannot import under it is refused."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    shown = f"{module}.{name}" if module and name else repr(function)[:80]
    if not module or not name or "<" in name:
        raise InputError(f"{shown}: a function at the top level of a module is needed, no lambda and no closure: workers import it")
    if module == "__main__":
        raise InputError(f"{shown}: workers cannot import the running script; put the function into a module of its own")
    try:
        found = lookup(sys.modules.get(module) or importlib.import_module(module), name)
    except (ImportError, AttributeError):
        found = None
    if found is not function:
        raise InputError(f"{shown}: a function at the top level of a module is needed; under this name workers would import something else")
    return f"{module}:{name}"


def lookup(module: ModuleType, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part)
    return found


def source_of(module: str) -> str:
    """SHA-256 of the module's source file; of Python's version where it has none."""
    found = sys.modules.get(module) or importlib.import_module(module)
    path = getattr(found, "__file__", None)
    content = Path(path).read_bytes() if path else f"{module} of Python {sys.version}".encode()
    return hashlib.sha256(content).hexdigest()


def load(function: str) -> Callable[..., Any]:
    """The function of a name as `name_of` gives it."""
    module, _, name = function.partition(":")
    return lookup(importlib.import_module(module), name)


def task_id(function: str, source: str, form: str, parameter: Any, keywords: dict[str, Any]) -> str:
    """The task's name in the journal; form says whether the function is called with the parameter or with its two halves."""
    return digest((function, source, form, parameter, keywords))[:ID_DIGITS]


def digest(value: Any) -> str:
    """SHA-256 of what a value holds: equal for equal values, in every process."""
    hashing = hashlib.sha256()
    try:
        feed(hashing.update, value)
    except RecursionError as error:
        raise InputError(f"{type(value).__name__}: a value that holds itself, or is nested too deeply, cannot be a parameter") from error
    return hashing.hexdigest()


def feed(update: Callable[[bytes], object], value: Any) -> None:
    """Hands over the value's bytes, each part with its type and length before it, so that no two values give the same bytes."""

    def part(kind: str, content: bytes) -> None:
        update(f"{kind}:{len(content)}:".encode())
        update(content)

    match value:
        case None | bool():
            part("constant", repr(value).encode())
        case int() if type(value) is int:  # Python writes no decimals of thousands of digits
            part("int", (str(value) if value.bit_length() <= 1024 else hex(value)).encode())
        case float() if type(value) is float:
            part("float", struct.pack("<d", value))
        case str() if type(value) is str:
            part("str", value.encode("utf-8", "surrogatepass"))
        case bytes() if type(value) is bytes:
            part("bytes", value)
        case list() | tuple() if type(value) in (list, tuple):
            part(type(value).__name__, str(len(value)).encode())
            for each in value:
                feed(update, each)
        case set() | frozenset() if type(value) in (set, frozenset):
            part("set", "".join(sorted(digest(each) for each in value)).encode())
        case dict() if type(value) is dict:
            part("dict", "".join(sorted(digest((key, each)) for key, each in value.items())).encode())
        case Ref():
            part("ref", value.sha256.encode())
        case _:
            feed_object(update, part, value)


def feed_object(update: Callable[[bytes], object], part: Callable[[str, bytes], None], value: Any) -> None:
    """Any other object by what pickle would do with it: how it is made, from what, and its state."""
    if isinstance(value, type | FunctionType | BuiltinFunctionType):
        part("name", f"{value.__module__}.{value.__qualname__}".encode())
        return
    try:
        how = value.__reduce_ex__(4)
    except (TypeError, pickle.PicklingError) as error:
        raise InputError(f"{type(value).__name__}: cannot be a parameter or a reference, since it cannot be pickled: {error}") from error
    part("type", f"{type(value).__module__}.{type(value).__qualname__}".encode())
    if isinstance(how, str):
        part("global", how.encode())
        return
    make, arguments, state, items, pairs = (*how, None, None, None, None)[:5]
    for each in (make, arguments, state, None if items is None else list(items), None if pairs is None else list(pairs)):
        feed(update, each)
