"""Tasks over many processes and machines; all state lives in a journal on any fsspec store."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data_pipeline.engine.engine import Engine
    from data_pipeline.engine.errors import LimitExceeded, TaskError, WorkerLost
    from data_pipeline.engine.futures import Future
    from data_pipeline.engine.ledger import Costs
    from data_pipeline.engine.references import Ref
    from data_pipeline.engine.settings import Budget, Limits

__all__ = ["Budget", "Costs", "Engine", "Future", "LimitExceeded", "Limits", "Ref", "TaskError", "WorkerLost"]

PLACES = {
    "Budget": "settings",
    "Costs": "ledger",
    "Engine": "engine",
    "Future": "futures",
    "LimitExceeded": "errors",
    "Limits": "settings",
    "Ref": "references",
    "TaskError": "errors",
    "WorkerLost": "errors",
}


def __getattr__(name: str) -> Any:
    # Late: a worker's process and the demo's journal need none of it.
    if name in PLACES:
        import importlib

        return getattr(importlib.import_module(f"data_pipeline.engine.{PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
