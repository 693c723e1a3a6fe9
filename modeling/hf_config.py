"""Hugging Face's config.json, read and written: Phi3 here, phi-3-small in `modeling.hf_config_small`. Imports no torch."""

from typing import Any

from modeling.config import DecoderConfig, LongRope
from modeling.errors import ModelError
from modeling.hf_config_small import small_from_hf, small_to_hf
from modeling.hf_layout import check_layout, eos_ids_from_hf, eos_setting

# Settings of the reference that this decoder does not have, with the only value it computes.
FIXED: dict[str, Any] = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False}
DROPOUTS = ("embd_pdrop", "resid_pdrop", "attention_dropout")
# Ours -> theirs, where the value is the same.
NAMES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "max_positions": "max_position_embeddings",
}


def config_from_hf(raw: Any, where: str) -> DecoderConfig:
    """The decoder of a config.json; one line names what this decoder does not compute, or what is missing or wrong."""
    if not isinstance(raw, dict):
        raise ModelError(f"{where}: a JSON object is needed, got {type(raw).__name__}")
    if raw.get("model_type") == "phi3small":
        return small_from_hf(raw, where)
    if raw.get("model_type") != "phi3":
        raise ModelError(f"{where}: model_type must be 'phi3' or 'phi3small', got {raw.get('model_type')!r}")
    for name, value in FIXED.items():
        if raw.get(name, value) != value:
            raise ModelError(f"{where}: {name} must be {value!r}, got {raw[name]!r}")
    for name in DROPOUTS:
        if raw.get(name):
            raise ModelError(f"{where}: {name} must be 0, got {raw[name]!r}")
    if not isinstance(raw.get("tie_word_embeddings") or False, bool):
        raise ModelError(f"{where}: tie_word_embeddings must be true or false, got {raw['tie_word_embeddings']!r}")
    missing = [name for name in NAMES.values() if name not in raw]
    if missing:
        raise ModelError(f"{where}: no setting {missing[0]!r}")
    try:
        config = DecoderConfig(**{ours: raw[theirs] for ours, theirs in NAMES.items()}, **_optional(raw))
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise ModelError(f"{where}: a setting has the wrong type ({error})") from error
    if raw.get("head_dim", None) not in (None, config.head_dim):
        raise ModelError(f"{where}: head_dim must be hidden_size / num_attention_heads = {config.head_dim}, got {raw['head_dim']!r}")
    return config


def _optional(raw: dict[str, Any]) -> dict[str, Any]:
    """The settings with defaults, under our names."""
    rope = _rope_settings(raw)
    kv_heads = raw.get("num_key_value_heads")
    return {
        "num_kv_heads": raw["num_attention_heads"] if kv_heads is None else kv_heads,
        "original_max_positions": rope.get("original_max_position_embeddings", raw.get("original_max_position_embeddings"))
        if rope.get("rope_type") == "longrope"
        else None,
        "rope_theta": rope.get("rope_theta", 10_000.0),
        "rope_scaling": _long_rope(rope, raw),
        "rotary_fraction": rope.get("partial_rotary_factor", 1.0),
        "window_keys": raw.get("sliding_window"),
        "norm_eps": raw.get("rms_norm_eps", 1e-5),
        "tied": bool(raw.get("tie_word_embeddings", False)),
        "initializer_range": raw.get("initializer_range", 0.02),
        "bos_id": raw.get("bos_token_id"),
        "eos_ids": eos_ids_from_hf(raw.get("eos_token_id")),
        "pad_id": raw.get("pad_token_id"),
    }


def _rope_settings(raw: dict[str, Any]) -> dict[str, Any]:
    """Both spellings as one table: 5.x's `rope_parameters`, else `rope_scaling` with `rope_theta` beside it."""
    rope = dict(raw.get("rope_parameters") or raw.get("rope_scaling") or {})
    rope["rope_type"] = rope.get("rope_type", rope.get("type", "default"))
    if rope["rope_type"] in ("su", "yarn"):  # what early releases called longrope
        rope["rope_type"] = "longrope"
    for name in ("rope_theta", "partial_rotary_factor"):
        if name not in rope and name in raw:
            rope[name] = raw[name]
    if rope["rope_type"] not in ("default", "longrope"):
        raise ModelError(f"the rope type must be 'default' or 'longrope', got {rope['rope_type']!r}")
    return rope


def _long_rope(rope: dict[str, Any], raw: dict[str, Any]) -> LongRope | None:
    if rope["rope_type"] == "default":
        return None
    for name in ("short_factor", "long_factor"):
        if not isinstance(rope.get(name), list):
            raise ModelError(f"longrope needs {name}, a list of numbers; got {rope.get(name)!r}")
    for name in ("short_mscale", "long_mscale"):
        if rope.get(name) is not None:
            raise ModelError(f"{name} belongs to model_type 'phi3small'; 'phi3' has attention_factor, got {name} = {rope[name]!r}")
    factor = rope.get("factor")
    original = rope.get("original_max_position_embeddings", raw.get("original_max_position_embeddings"))
    attention = rope.get("attention_factor")
    if attention is None and factor is not None and original and abs(factor - raw["max_position_embeddings"] / original) > 1e-9:
        raise ModelError(f"factor must be max_position_embeddings / original_max_position_embeddings, got {factor!r:.60}")
    return LongRope(short_factors=tuple(rope["short_factor"]), long_factors=tuple(rope["long_factor"]), attention_factor=attention)


def config_to_hf(config: DecoderConfig, dtype: str) -> dict[str, Any]:
    """config.json of the layout that fits the decoder; settings that neither layout can say are refused.

    Phi3's rope settings are in both spellings: transformers 5 reads `rope_parameters`, older readers `rope_scaling`.
    """
    if check_layout(config) == "phi3small":
        return small_to_hf(config, dtype)
    rope: dict[str, Any] = {"rope_type": "default"}
    scaling = None
    if config.rope_scaling is not None:
        factors = {"short_factor": list(config.rope_scaling.short_factors), "long_factor": list(config.rope_scaling.long_factors)}
        rope = {"rope_type": "longrope", **factors, "original_max_position_embeddings": config.original_positions}
        if config.rope_scaling.attention_factor is not None:
            rope["attention_factor"] = config.rope_scaling.attention_factor
        scaling = {**rope, "type": "longrope"}
    rope |= {"rope_theta": config.rope_theta, "partial_rotary_factor": config.rotary_fraction}
    return {
        "architectures": ["Phi3ForCausalLM"],
        "model_type": "phi3",
        **{theirs: getattr(config, ours) for ours, theirs in NAMES.items()},
        "num_key_value_heads": config.num_kv_heads,
        "original_max_position_embeddings": config.original_positions,
        "rope_parameters": rope,
        "rope_theta": config.rope_theta,
        "rope_scaling": scaling,
        "partial_rotary_factor": config.rotary_fraction,
        "sliding_window": config.window_keys,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied,
        "initializer_range": config.initializer_range,
        "hidden_act": "silu",
        **{name: 0.0 for name in DROPOUTS},
        "attention_bias": False,
        "bos_token_id": config.bos_id,
        "eos_token_id": eos_setting(config),
        "pad_token_id": config.pad_id,
        "use_cache": True,
        "dtype": dtype,
        "torch_dtype": dtype,
    }


def generation_to_hf(config: DecoderConfig) -> dict[str, Any]:
    """generation_config.json: what ends an answer."""
    named = {"bos_token_id": config.bos_id, "eos_token_id": eos_setting(config), "pad_token_id": config.pad_id}
    return {"_from_model_config": False, **{name: value for name, value in named.items() if value is not None}}
