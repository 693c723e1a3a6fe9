"""References to values in the journal: small, picklable, and read once per process."""

import hashlib
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from data_pipeline.engine.store import Store
from data_pipeline.errors import InputError

KEPT = 16  # values that a process keeps; the one not asked for longest goes first

_cache: "OrderedDict[str, tuple[Any, int]]" = OrderedDict()


@dataclass(frozen=True)
class Ref:
    """A pickled value under `name` in the journal `url`, known by the SHA-256 of its bytes."""

    url: str
    name: str
    sha256: str

    def get(self) -> Any:
        """The value. It is the process's own copy, shared by its callers: do not change it."""
        if self.sha256 not in _cache:
            content = self.read()
            _cache[self.sha256] = pickle.loads(content), len(content)
            while len(_cache) > KEPT:
                _cache.popitem(last=False)
        _cache.move_to_end(self.sha256)
        return _cache[self.sha256][0]

    def read(self) -> bytes:
        """The pickled bytes; one line where they are missing or not as they were written."""
        try:
            content = Store(self.url).read(self.name)
        except FileNotFoundError as error:
            raise InputError(f"{self.url}/{self.name}: missing; it was written by this journal's run and must stay there") from error
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise InputError(f"{self.url}/{self.name}: not as it was written (its SHA-256 differs); remove it and run again")
        return content


def held_bytes() -> int:
    """Bytes of the pickles whose values this process keeps: about what they hold of its memory."""
    return sum(size for _, size in _cache.values())


def put_object(store: Store, content: bytes) -> str:
    """Uploads bytes once to `objects/<sha256>`, anew where what stands there is damaged; returns their SHA-256."""
    sha256 = hashlib.sha256(content).hexdigest()
    if not store.create(f"objects/{sha256}", content, durable=True):
        store.write(f"objects/{sha256}", content)
    return sha256
