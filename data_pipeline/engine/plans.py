"""Plans: which tasks a call of `map` asks for. A plan is named by the hash of what it holds, so planning twice changes nothing.

plans/<plan>.json    the function, the hash of its source, its limits, the ids of its tasks, and where their parameters are
objects/<sha256>     parameters (a pickled list of pickles, some megabytes each), the keywords that all tasks share, broadcast values
"""

import hashlib
import json
import pickle
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from data_pipeline.engine.identity import name_of, source_of, task_id
from data_pipeline.engine.references import put_object
from data_pipeline.engine.store import Store
from data_pipeline.errors import InputError

CHUNK_BYTES = 4 * 2**20
ONE, TWO = "one", "two"  # function(parameter), function(left, right)

_chunk: dict[str, list[bytes]] = {}


@dataclass(frozen=True, kw_only=True)
class Order:
    """All that a worker's process must know to do one task."""

    task: str
    function: str
    source: str
    form: str
    keywords: str  # SHA-256 of the pickled dictionary in objects/
    chunk: str  # SHA-256 of the pickled list of pickles in objects/
    place: int  # index in that list


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One call of `map`. `limits` are those of `Limits`, as a dictionary, so that a worker's process need not load pydantic."""

    function: str
    source: str
    form: str
    limits: dict[str, Any]
    keywords: str
    chunks: list[list[Any]]  # [SHA-256, number of parameters], in order
    tasks: list[str]

    @property
    def content(self) -> bytes:
        return json.dumps({"format": 1, **asdict(self)}, sort_keys=True).encode()

    @property
    def id(self) -> str:
        return hashlib.sha256(self.content).hexdigest()[:32]

    def order(self, index: int) -> Order:
        """What a process must know of the task at `index`."""
        begin = 0
        for chunk, count in self.chunks:
            if index < begin + count:
                return Order(
                    task=self.tasks[index],
                    function=self.function,
                    source=self.source,
                    form=self.form,
                    keywords=self.keywords,
                    chunk=chunk,
                    place=index - begin,
                )
            begin += count
        raise IndexError(index)


def make_plan(
    store: Store, function: Callable[..., Any], form: str, parameters: list[Any], keywords: dict[str, Any], limits: dict[str, Any]
) -> Plan:
    """Uploads the parameters and writes the plan."""
    name = name_of(function)
    source = source_of(function.__module__)
    plan = Plan(
        function=name,
        source=source,
        form=form,
        limits=limits,
        keywords=put_object(store, pickled(keywords, "the references")),
        chunks=put_parameters(store, parameters),
        tasks=[task_id(name, source, form, parameter, keywords) for parameter in parameters],
    )
    store.create(f"plans/{plan.id}.json", plan.content, durable=True)
    return plan


def put_parameters(store: Store, parameters: list[Any]) -> list[list[Any]]:
    chunks: list[list[Any]] = []
    held: list[bytes] = []
    size = 0
    for index, parameter in enumerate(parameters):
        held.append(pickled(parameter, f"parameter {index}"))
        size += len(held[-1])
        if size >= CHUNK_BYTES or index + 1 == len(parameters):
            chunks.append([put_object(store, pickle.dumps(held, 5)), len(held)])
            held, size = [], 0
    return chunks


def pickled(value: Any, what: str) -> bytes:
    try:
        return pickle.dumps(value, 5)
    except Exception as error:  # pickle raises whatever the object's own methods raise
        raise InputError(f"{what}: cannot be pickled for workers: {type(error).__name__}: {error}") from error


def read_plan(store: Store, plan_id: str) -> Plan:
    """The plan; one line where it is missing or damaged."""
    where = f"{store.url}/plans/{plan_id}.json"
    try:
        found = json.loads(store.read(f"plans/{plan_id}.json"))
        if found.pop("format") != 1:
            raise InputError(f"{where}: format 1 is needed")
        return Plan(**found)
    except FileNotFoundError as error:
        raise InputError(f"{where}: no such plan") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where}: not a plan ({error})") from error


def read_parameter(store: Store, order: Order) -> Any:
    """The parameter of one task. Tasks come in order mostly, so the chunk read last is kept."""
    if order.chunk not in _chunk:
        _chunk.clear()
        _chunk[order.chunk] = pickle.loads(store.read(f"objects/{order.chunk}"))
    return pickle.loads(_chunk[order.chunk][order.place])
