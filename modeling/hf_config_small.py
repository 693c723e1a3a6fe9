"""Hugging Face's config.json for phi-3-small (model_type phi3small), read and written. Imports no torch.

The names are the release's. What it leaves out has the default of the code released with it.
"""

from typing import Any

from modeling.config import BlockSparse, DecoderConfig, LongRope
from modeling.errors import ModelError
from modeling.hf_layout import eos_ids_from_hf, eos_setting
from modeling.presets import PHI3_SMALL_8K

# Settings that this decoder does not have, with the only value it computes; a missing one has that value in the release too.
FIXED: dict[str, Any] = {
    "hidden_act": "gegelu",
    "ff_dim_multiplier": None,
    "rope_position_scale": 1.0,
    "attention_dropout_prob": 0.0,
    "mup_attn_multiplier": 1.0,
    "reorder_and_upcast_attn": False,
}
# Ours -> theirs, where the value is the same and the setting is needed.
NAMES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "ff_intermediate_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "max_positions": "max_position_embeddings",
}
# Ours -> theirs and the release's default.
OPTIONAL: dict[str, tuple[str, Any]] = {
    "rope_theta": ("rope_embedding_base", 1_000_000.0),
    "norm_eps": ("layer_norm_epsilon", 1e-5),
    "initializer_range": ("initializer_range", 0.02),
    "geglu_limit": ("gegelu_limit", 20.0),
    "embedding_dropout": ("embedding_dropout_prob", 0.1),
    "feed_forward_dropout": ("ffn_dropout_prob", 0.1),
    "tied": ("tie_word_embeddings", True),
    "mup": ("mup_use_scaling", True),
    "bos_id": ("bos_token_id", 100_257),
    "pad_id": ("pad_token_id", None),
}
BLOCKS = {
    "block": ("blocksparse_block_size", 64),
    "local_blocks": ("blocksparse_num_local_blocks", 16),
    "vertical_stride": ("blocksparse_vert_stride", 8),
    "dense_every": ("dense_attention_every_n_layers", 2),
    "same_heads": ("blocksparse_homo_head_pattern", False),
}
# None and 0 are the release's way to say that nothing is multiplied.
MULTIPLIERS = {"embedding_multiplier": ("mup_embedding_multiplier", 10.0), "logits_divisor": ("mup_width_multiplier", 8.0)}


def small_from_hf(raw: dict[str, Any], where: str) -> DecoderConfig:
    """The decoder of a phi3small config.json; one line names what this decoder does not compute, or what is missing or wrong."""
    for name, value in FIXED.items():
        if raw.get(name, value) != value:
            raise ModelError(f"{where}: {name} must be {value!r}, got {raw[name]!r}")
    missing = [name for name in NAMES.values() if name not in raw]
    if missing:
        raise ModelError(f"{where}: no setting {missing[0]!r}")
    for name in ("mup_use_scaling", "tie_word_embeddings", "blocksparse_homo_head_pattern"):
        if not isinstance(raw.get(name, False), bool):
            raise ModelError(f"{where}: {name} must be true or false, got {raw[name]!r}")
    rope = _rope(raw, where)
    try:
        return DecoderConfig(
            norm="layer",
            biased=True,
            feed_forward="geglu",
            grouped_qkv=True,
            **{ours: raw[theirs] for ours, theirs in NAMES.items()},
            **{ours: raw.get(theirs, default) for ours, (theirs, default) in OPTIONAL.items()},
            **{ours: raw.get(theirs, default) or 1.0 for ours, (theirs, default) in MULTIPLIERS.items()},
            eos_ids=eos_ids_from_hf(raw.get("eos_token_id", 100_257)),
            dummy_ids=_dummies(raw),
            blocksparse=_blocksparse(raw),
            **rope,
        )
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise ModelError(f"{where}: a setting has the wrong type ({error})") from error


def _dummies(raw: dict[str, Any]) -> tuple[Any, ...]:
    """Entries that name no token. The released code asks its tokenizer for them; a folder of ours has them in config.json."""
    given = raw.get("dummy_token_indices")
    if given is None:
        return PHI3_SMALL_8K.dummy_ids if raw["vocab_size"] == PHI3_SMALL_8K.vocab_size else ()
    if not isinstance(given, list):
        raise ModelError(f"dummy_token_indices must be a list of token ids, got {given!r}")
    return tuple(given)


def _blocksparse(raw: dict[str, Any]) -> BlockSparse | None:
    """None where every layer is dense."""
    values = {ours: raw.get(theirs, default) for ours, (theirs, default) in BLOCKS.items()}
    kernel = raw.get("blocksparse_triton_kernel_block_size", values["block"])
    if kernel != values["block"]:
        raise ModelError(f"blocksparse_triton_kernel_block_size must be blocksparse_block_size={values['block']!r}, got {kernel!r}")
    if values["dense_every"] is None:
        raise ModelError("dense_attention_every_n_layers must be a whole number of at least 1, got None")
    return None if values["dense_every"] == 1 else BlockSparse(**values)


def _rope(raw: dict[str, Any], where: str) -> dict[str, Any]:
    rope = raw.get("rope_scaling")
    if rope is None:
        return {}
    kind = rope.get("type", rope.get("rope_type")) if isinstance(rope, dict) else None
    if kind not in ("longrope", "su"):
        raise ModelError(f"{where}: rope_scaling must be null or of the type 'longrope', got {kind or rope!r}")
    for name in ("short_factor", "long_factor"):
        if not isinstance(rope.get(name), list):
            raise ModelError(f"{where}: longrope needs {name}, a list of numbers; got {rope.get(name)!r}")
    original = rope.get("original_max_position_embeddings", raw.get("original_max_position_embeddings"))
    if original is None:
        raise ModelError(f"{where}: longrope needs original_max_position_embeddings, a whole number; got None")
    short, long = rope.get("short_mscale"), rope.get("long_mscale")
    if (short is None) != (long is None):
        raise ModelError(f"{where}: longrope needs both of short_mscale and long_mscale, or neither; got {short!r} and {long!r}")
    scaling = LongRope(
        short_factors=tuple(rope["short_factor"]),
        long_factors=tuple(rope["long_factor"]),
        attention_factor=short,
        long_attention_factor=None if long == short else long,
    )
    return {"rope_scaling": scaling, "original_max_positions": original}


def small_to_hf(config: DecoderConfig, dtype: str) -> dict[str, Any]:
    """config.json in the release's names, without `auto_map`: the code that it names is not in the folder."""
    sparse = config.blocksparse or BlockSparse(dense_every=1)
    multipliers = {theirs: getattr(config, ours) for ours, (theirs, _) in MULTIPLIERS.items()}
    return {
        "architectures": ["Phi3SmallForCausalLM"],
        "model_type": "phi3small",
        **FIXED,
        **{theirs: getattr(config, ours) for ours, theirs in NAMES.items()},
        **{theirs: getattr(config, ours) for ours, (theirs, _) in OPTIONAL.items()},
        **multipliers,
        **{theirs: getattr(sparse, ours) for ours, (theirs, _) in BLOCKS.items()},
        "blocksparse_triton_kernel_block_size": sparse.block,
        "rope_scaling": _rope_to_hf(config),
        "dummy_token_indices": list(config.dummy_ids),
        "eos_token_id": eos_setting(config),
        "gegelu_pad_to_256": True,
        "pad_sequence_to_multiple_of_64": True,
        "use_cache": True,
        "dtype": dtype,
        "torch_dtype": dtype,
    }


def _rope_to_hf(config: DecoderConfig) -> dict[str, Any] | None:
    scaling = config.rope_scaling
    if scaling is None:
        return None
    table = {
        "type": "longrope",
        "short_factor": list(scaling.short_factors),
        "long_factor": list(scaling.long_factors),
        "original_max_position_embeddings": config.original_positions,
    }
    if scaling.attention_factor is None and scaling.long_attention_factor is None:
        return table
    return table | {"short_mscale": config.rope_attention_factor, "long_mscale": config.rope_long_attention_factor}
