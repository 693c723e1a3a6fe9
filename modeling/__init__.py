"""The phi-3 decoders, their weights and checkpoints. Imports no other room."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modeling.hf_weights import load_decoder, save_decoder

__all__ = ["load_decoder", "save_decoder"]


def __getattr__(name: str) -> Any:
    # Late, so that reading a configuration does not load torch.
    if name in __all__:
        import modeling.hf_weights as weights

        return getattr(weights, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
