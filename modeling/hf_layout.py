"""The two layouts of a Hugging Face folder: which settings each can say, and what each calls our parameters. Imports no torch."""

import re
from typing import Any, Literal

from modeling.config import DecoderConfig
from modeling.errors import ModelError

Layout = Literal["phi3", "phi3small"]

# Inside a layer: ours -> theirs.
LAYER_NAMES: dict[Layout, dict[str, str]] = {
    "phi3": {
        "attention_norm": "input_layernorm",
        "attention.qkv": "self_attn.qkv_proj",
        "attention.out": "self_attn.o_proj",
        "feed_forward_norm": "post_attention_layernorm",
        "feed_forward.gate_up": "mlp.gate_up_proj",
        "feed_forward.down": "mlp.down_proj",
    },
    "phi3small": {
        "attention_norm": "input_layernorm",
        "attention.qkv": "self_attn.query_key_value",
        "attention.out": "self_attn.dense",
        "feed_forward_norm": "post_attention_layernorm",
        "feed_forward.gate_up": "mlp.up_proj",
        "feed_forward.down": "mlp.down_proj",
    },
}
OUTER_NAMES: dict[Layout, dict[str, str]] = {
    "phi3": {"embedding": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"},
    "phi3small": {"embedding": "model.embed_tokens", "norm": "model.final_layernorm", "head": "lm_head"},
}

# What a layout has no setting for: our setting -> the only value it can say.
ONLY: dict[Layout, dict[str, Any]] = {
    "phi3": {
        "biased": False,
        "feed_forward": "swiglu",
        "grouped_qkv": False,
        "mup": False,
        "embedding_multiplier": 1.0,
        "logits_divisor": 1.0,
        "blocksparse": None,
        "dummy_ids": (),
        "embedding_dropout": 0.0,
        "feed_forward_dropout": 0.0,
    },
    "phi3small": {"biased": True, "feed_forward": "geglu", "grouped_qkv": True, "window_keys": None, "rotary_fraction": 1.0},
}


def layout_of(config: DecoderConfig) -> Layout:
    """The layout that the decoder's norm belongs to, without asking whether it can say the rest."""
    return "phi3small" if config.norm == "layer" else "phi3"


def check_layout(config: DecoderConfig) -> Layout:
    """The layout that says all of these settings; a mixture that neither can say is refused."""
    layout = layout_of(config)
    for name, allowed in ONLY[layout].items():
        value = getattr(config, name)
        if value != allowed:
            raise ModelError(f"Hugging Face's {layout} layout (norm {config.norm!r}) has {name} = {allowed!r} only, got {value!r}")
    rope = config.rope_scaling
    if layout == "phi3" and rope is not None and config.rope_long_attention_factor != config.rope_attention_factor:
        raise ModelError(
            f"Hugging Face's phi3 layout has one attention factor for both longrope sets, got {config.rope_attention_factor!r} "
            f"and {rope.long_attention_factor!r}"
        )
    return layout


def eos_setting(config: DecoderConfig) -> int | list[int] | None:
    """End-of-text ids as both layouts spell them: none, one number, or a list."""
    if not config.eos_ids:
        return None
    return config.eos_ids[0] if len(config.eos_ids) == 1 else list(config.eos_ids)


def eos_ids_from_hf(value: Any) -> tuple[Any, ...]:
    """The same read back; that they are ids is for the configuration to say."""
    return () if value is None else tuple(value) if isinstance(value, list) else (value,)


def hf_name(name: str, layout: Layout) -> str:
    """Their name of one of our parameters: `layers.3.attention.qkv.weight` -> `model.layers.3.self_attn.qkv_proj.weight` in phi3."""
    module, _, kind = name.rpartition(".")
    found = re.fullmatch(r"layers\.(\d+)\.(.+)", module)
    if found:
        return f"model.layers.{found[1]}.{LAYER_NAMES[layout][found[2]]}.{kind}"
    return f"{OUTER_NAMES[layout][module]}.{kind}"
