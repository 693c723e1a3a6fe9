"""4-bit ONNX packages: written, checked, run, served."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from export.session import load_package

__all__ = ["load_package"]


def __getattr__(name: str) -> Any:
    # Late, so that `phial serve --fetch-runtime` does not load onnxruntime.
    if name == "load_package":
        from export.session import load_package

        return load_package
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
