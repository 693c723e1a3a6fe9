"""phi-3-small's folders: the release's names and shapes, both ways, one line for every setting that is not computed."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_decoders import random_decoder, random_ids

from modeling import load_decoder, save_decoder
from modeling.config import DecoderConfig, LongRope
from modeling.convert import convert_model
from modeling.errors import ModelError
from modeling.hf_config import config_from_hf, config_to_hf
from modeling.hf_layout import hf_name
from modeling.hf_weights import SINGLE, parameter_shapes
from modeling.model_checkpoint import load_decoder_checkpoint
from modeling.presets import PHI3_SMALL_8K, TINY, TINY_SMALL

# The settings of Phi-3-small-8k-instruct, May 2024. The dummy indices are not among them: its code asks its tokenizer.
RELEASED: dict[str, Any] = {
    "architectures": ["Phi3SmallForCausalLM"],
    "attention_dropout_prob": 0.0,
    "auto_map": {"AutoModelForCausalLM": "modeling_phi3_small.Phi3SmallForCausalLM"},
    "blocksparse_block_size": 64,
    "blocksparse_homo_head_pattern": False,
    "blocksparse_num_local_blocks": 16,
    "blocksparse_triton_kernel_block_size": 64,
    "blocksparse_vert_stride": 8,
    "bos_token_id": 100257,
    "dense_attention_every_n_layers": 2,
    "embedding_dropout_prob": 0.1,
    "eos_token_id": 100257,
    "ff_dim_multiplier": None,
    "ff_intermediate_size": 14336,
    "ffn_dropout_prob": 0.1,
    "gegelu_limit": 20.0,
    "gegelu_pad_to_256": True,
    "hidden_act": "gegelu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "max_position_embeddings": 8192,
    "model_type": "phi3small",
    "mup_attn_multiplier": 1.0,
    "mup_embedding_multiplier": 10.0,
    "mup_use_scaling": True,
    "mup_width_multiplier": 8.0,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "pad_sequence_to_multiple_of_64": True,
    "reorder_and_upcast_attn": False,
    "rope_embedding_base": 1000000,
    "rope_position_scale": 1.0,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "attention_bias": False,
    "vocab_size": 100352,
}
LONG = LongRope(short_factors=(1.0, 1.1, 1.2, 1.3), long_factors=(2.0, 3.0, 4.0, 5.5), attention_factor=1.1, long_attention_factor=1.4)
VARIANTS: dict[str, DecoderConfig] = {
    "tiny-small": TINY_SMALL,
    "longrope": dataclasses.replace(TINY_SMALL, original_max_positions=32, rope_scaling=LONG),
    "longrope, factors by formula": dataclasses.replace(
        TINY_SMALL, original_max_positions=32, rope_scaling=LongRope(short_factors=(1.0,) * 4, long_factors=(2.0,) * 4)
    ),
    "dense": dataclasses.replace(TINY_SMALL, blocksparse=None, tied=False, dummy_ids=()),
    "no muP": dataclasses.replace(TINY_SMALL, mup=False, embedding_multiplier=1.0, logits_divisor=1.0),
}


def test_the_release_is_the_preset() -> None:
    read = config_from_hf(RELEASED, "config.json")
    assert dataclasses.replace(read, eos_ids=(100_257, 100_266), pad_id=100_257) == PHI3_SMALL_8K
    assert config_from_hf(config_to_hf(PHI3_SMALL_8K, "bfloat16"), "again") == PHI3_SMALL_8K
    written = config_to_hf(PHI3_SMALL_8K, "bfloat16")
    assert {name: written[name] for name in RELEASED if name not in ("auto_map", "attention_bias", "eos_token_id")} == {
        name: value for name, value in RELEASED.items() if name not in ("auto_map", "attention_bias", "eos_token_id")
    }


def test_names_and_shapes_are_the_releases() -> None:
    shapes = {hf_name(name, "phi3small"): shape for name, shape in parameter_shapes(PHI3_SMALL_8K).items()}
    block = {name.removeprefix("model.layers.31."): shape for name, shape in shapes.items() if name.startswith("model.layers.31.")}
    assert block == {
        "input_layernorm.weight": (4096,),
        "input_layernorm.bias": (4096,),
        "self_attn.query_key_value.weight": (6144, 4096),
        "self_attn.query_key_value.bias": (6144,),
        "self_attn.dense.weight": (4096, 4096),
        "self_attn.dense.bias": (4096,),
        "post_attention_layernorm.weight": (4096,),
        "post_attention_layernorm.bias": (4096,),
        "mlp.up_proj.weight": (28672, 4096),
        "mlp.up_proj.bias": (28672,),
        "mlp.down_proj.weight": (4096, 14336),
        "mlp.down_proj.bias": (4096,),
    }
    outer = {name: shape for name, shape in shapes.items() if ".layers." not in name}
    assert outer == {
        "model.embed_tokens.weight": (100352, 4096),
        "model.final_layernorm.weight": (4096,),
        "model.final_layernorm.bias": (4096,),
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_saved_loaded_converted_and_back(variant: str, tmp_path: Path) -> None:
    decoder = random_decoder(VARIANTS[variant], dtype=torch.bfloat16).eval()
    save_decoder(decoder, tmp_path / "model", shard_bytes=20_000)
    convert_model(tmp_path / "model", tmp_path / "checkpoint", shard_bytes=20_000)
    convert_model(tmp_path / "checkpoint", tmp_path / "back")
    ids_BT = random_ids(2, 40)
    for loaded in (load_decoder(tmp_path / "model"), load_decoder_checkpoint(tmp_path / "checkpoint"), load_decoder(tmp_path / "back")):
        assert loaded.config == decoder.config
        assert not loaded.training
        assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in decoder.state_dict().items())
        with torch.no_grad():
            assert torch.equal(loaded(ids_BT), decoder(ids_BT))
    assert json.loads((tmp_path / "back" / "config.json").read_text()).get("auto_map") is None


def test_a_tied_head_may_be_in_the_weights_and_ours_has_none(tmp_path: Path) -> None:
    decoder = random_decoder(TINY_SMALL)
    save_decoder(decoder, tmp_path)
    with safe_open(tmp_path / SINGLE, framework="pt") as weights:
        assert "lm_head.weight" not in weights.keys()  # noqa: SIM118 (not a mapping)
    tensors = load_file(tmp_path / SINGLE)
    save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, tmp_path / SINGLE)
    assert torch.equal(load_decoder(tmp_path).embedding.weight, decoder.embedding.weight)


ROPE = {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [1.0] * 4, "original_max_position_embeddings": 32}
FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"rope_position_scale": 2.0}, "rope_position_scale must be 1.0, got 2.0"),
    ({"mup_attn_multiplier": 0.5}, "mup_attn_multiplier must be 1.0, got 0.5"),
    ({"attention_dropout_prob": 0.1}, "attention_dropout_prob must be 0.0, got 0.1"),
    ({"hidden_act": "silu"}, "hidden_act must be 'gegelu', got 'silu'"),
    ({"ff_dim_multiplier": 4}, "ff_dim_multiplier must be None, got 4"),
    ({"reorder_and_upcast_attn": True}, "reorder_and_upcast_attn must be False, got True"),
    ({"blocksparse_triton_kernel_block_size": 64}, "blocksparse_triton_kernel_block_size must be blocksparse_block_size=4, got 64"),
    ({"blocksparse_block_size": 0, "blocksparse_triton_kernel_block_size": 0}, "blocksparse block must be a whole number of at least 1"),
    ({"dense_attention_every_n_layers": None}, "dense_attention_every_n_layers must be a whole number of at least 1, got None"),
    ({"dummy_token_indices": [128]}, "dummy_ids must be a token id from 0 to vocab_size-1=127, got 128"),
    ({"dummy_token_indices": 5}, "dummy_token_indices must be a list of token ids, got 5"),
    ({"gegelu_limit": None}, "geglu_limit must be a number above 0, got None"),
    ({"mup_use_scaling": "yes"}, "mup_use_scaling must be true or false, got 'yes'"),
    ({"rope_scaling": {"type": "linear"}}, "rope_scaling must be null or of the type 'longrope', got 'linear'"),
    ({"rope_scaling": ROPE | {"long_factor": None}}, "longrope needs long_factor, a list of numbers; got None"),
    ({"rope_scaling": ROPE | {"short_mscale": 1.1}}, "longrope needs both of short_mscale and long_mscale, or neither; got 1.1 and None"),
    ({"rope_scaling": ROPE | {"original_max_position_embeddings": None}}, "longrope needs original_max_position_embeddings"),
    ({"hidden_size": "32"}, "hidden_size must be a whole number of at least 1, got '32'"),
]


@pytest.mark.parametrize(("change", "words"), FAULTS)
def test_what_is_not_computed_is_refused(change: dict[str, Any], words: str) -> None:
    raw = config_to_hf(TINY_SMALL, "float32")
    config_from_hf(raw, "folder/config.json")
    with pytest.raises(ModelError) as caught:
        config_from_hf(raw | change, "folder/config.json")
    assert words in str(caught.value)
    assert str(caught.value).startswith("folder/config.json: ")
    assert "\n" not in str(caught.value)


def test_a_missing_size_is_named() -> None:
    raw = config_to_hf(TINY_SMALL, "float32")
    del raw["ff_intermediate_size"]
    with pytest.raises(ModelError, match="no setting 'ff_intermediate_size'"):
        config_from_hf(raw, "config.json")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("drop", r"the weights lack model\.layers\.1\.mlp\.up_proj\.bias$"),
        ("add", "extra is no tensor of a 4-layer phi3small decoder"),
        ("reshape", r"model\.layers\.1\.mlp\.up_proj\.bias must have the shape \(96,\) by config\.json, got \(3,\)"),
    ],
)
def test_weights_that_do_not_fit(change: str, words: str, tmp_path: Path) -> None:
    save_decoder(random_decoder(TINY_SMALL), tmp_path / "model")
    tensors = load_file(tmp_path / "model" / SINGLE)
    name = "model.layers.1.mlp.up_proj.bias"
    if change == "drop":
        del tensors[name]
    else:
        tensors["extra" if change == "add" else name] = torch.zeros(3)
    save_file(tensors, tmp_path / "model" / SINGLE)
    with pytest.raises(ModelError, match=words):
        convert_model(tmp_path / "model", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (dataclasses.replace(TINY, feed_forward="geglu"), "phi3 layout (norm 'rms') has feed_forward = 'swiglu' only, got 'geglu'"),
        (dataclasses.replace(TINY, dummy_ids=(5,)), "phi3 layout (norm 'rms') has dummy_ids = () only, got (5,)"),
        (dataclasses.replace(TINY_SMALL, grouped_qkv=False), "phi3small layout (norm 'layer') has grouped_qkv = True only, got False"),
        (
            dataclasses.replace(TINY, original_max_positions=32, rope_scaling=LONG),
            "phi3 layout has one attention factor for both longrope sets, got 1.1 and 1.4",
        ),
    ],
)
def test_mixtures_that_neither_layout_can_say(config: DecoderConfig, words: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        save_decoder(random_decoder(config), tmp_path / "model")
    assert words in str(caught.value)
    assert not (tmp_path / "model").exists()
