"""Benchmarks, protocols and scores, the same for every kind of model."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eval.runner import evaluate

__all__ = ["evaluate"]


def __getattr__(name: str) -> Any:
    # Late, so that listing the benchmarks does not load torch.
    if name == "evaluate":
        from eval.runner import evaluate

        return evaluate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
