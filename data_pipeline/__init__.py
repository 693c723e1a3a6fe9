"""Raw pages and generated text to token shards. Imports no other room."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data_pipeline.web.extract import extract

__all__ = ["extract"]


def __getattr__(name: str) -> Any:
    # Late, so that a verb which needs only a recipe does not load an HTML parser.
    if name == "extract":
        from data_pipeline.web.extract import extract

        return extract
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
