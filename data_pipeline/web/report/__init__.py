"""The report of a web build: one self-contained page, its numbers as JSON and as Parquet tables, and a forecast for the whole crawl."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data_pipeline.web.report.options import ReportOptions
    from data_pipeline.web.report.write import write_report

__all__ = ["ReportOptions", "write_report"]

PLACES = {"ReportOptions": "options", "write_report": "write"}


def __getattr__(name: str) -> Any:
    if name in PLACES:
        import importlib

        return getattr(importlib.import_module(f"data_pipeline.web.report.{PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
