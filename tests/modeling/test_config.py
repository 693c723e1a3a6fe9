"""Configurations refuse nonsense with the numbers, and counts are exact."""

import dataclasses
import subprocess
import sys

import pytest
import torch

from modeling.config import BlockSparse, DecoderConfig, LongRope
from modeling.counts import count_parameters, kv_cache_bytes_per_token
from modeling.decoder import Decoder
from modeling.errors import ModelError
from modeling.presets import DEMO, PHI3_MINI_4K, PHI3_SMALL_8K, PRESETS, TINY, preset
from modeling.rope import rotary_tables

PUBLISHED_COUNTS = {
    "phi3-mini-4k": 3_821_079_552,
    "phi3-mini-128k": 3_821_079_552,
    "phi3-small-8k": 7_392_272_384,
    "phi3-medium-4k": 13_960_238_080,
    "phi3.5-mini": 3_821_079_552,
    "phi4-mini": 3_836_021_760,
    "phi4": 14_659_507_200,
}


@pytest.mark.parametrize("name", PUBLISHED_COUNTS)
def test_members_have_the_published_parameter_counts(name: str) -> None:
    config, count = preset(name), PUBLISHED_COUNTS[name]
    assert count_parameters(config) == count
    with torch.device("meta"):
        decoder = Decoder(config)
    assert sum(parameter.numel() for parameter in decoder.parameters()) == count


@pytest.mark.parametrize("name", ["demo", "tiny", "tiny-small"])
def test_the_formula_counts_small_members(name: str) -> None:
    with torch.device("meta"):
        decoder = Decoder(PRESETS[name])
    assert sum(parameter.numel() for parameter in decoder.parameters()) == count_parameters(PRESETS[name])


def test_demo_is_about_three_million() -> None:
    assert 2.9e6 < count_parameters(DEMO) < 3.2e6


def test_mini_leaves_384_kib_per_token_in_its_cache() -> None:
    assert kv_cache_bytes_per_token(PHI3_MINI_4K) == 384 * 1024


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_size": 30}, "hidden_size=30 is not a multiple of num_heads=4"),
        ({"num_kv_heads": 3}, "num_heads=4 is not a multiple of num_kv_heads=3"),
        ({"num_layers": 0}, "num_layers must be a whole number of at least 1, got 0"),
        ({"vocab_size": 12.5}, "vocab_size must be a whole number of at least 1, got 12.5"),
        ({"window_keys": 0}, "window_keys must be a whole number of at least 1, got 0"),
        ({"norm_eps": 0.0}, "norm_eps must be a number above 0, got 0.0"),
        ({"rotary_fraction": 1.5}, "rotary_fraction must be above 0 and at most 1, got 1.5"),
        ({"rotary_fraction": 0.4}, "rotates 3 features; an even number is needed"),
        ({"original_max_positions": 65}, "original_max_positions=65 is above max_positions=64"),
        ({"pad_id": 128}, "pad_id must be a token id from 0 to vocab_size-1=127, got 128"),
        ({"eos_ids": (2, -1)}, "eos_ids must be a token id from 0 to vocab_size-1=127, got -1"),
        ({"vocab_size": 10**19}, "vocab_size must be below 2147483648, got 10000000000000000000"),
        ({"vocab_size": 2**30, "hidden_size": 2**30}, "a matrix of 3221225472 rows of hidden_size=1073741824 is more than memory can be"),
        ({"num_layers": 20_000}, "num_layers must be at most 10000, got 20000"),
        ({"rope_theta": 10**400}, "rope_theta must be a number above 0, got 1000"),
        ({"norm_eps": float("nan")}, "norm_eps must be a number above 0, got nan"),
        ({"logits_divisor": 10**400}, "logits_divisor must be a number above 0, got 1000"),
        (
            {"blocksparse": BlockSparse(block=2**40), "window_keys": None},
            "blocksparse block must be a whole number of at least 1 and below",
        ),
        (
            {"rope_scaling": LongRope(short_factors=(1.0,) * 4, long_factors=(10**400,) * 4)},
            "long_factors must be numbers above 0, got 1000",
        ),
        (
            {"rope_scaling": LongRope(short_factors=(1.0,) * 4, long_factors=(1.0,) * 4, attention_factor=10**400)},
            "attention_factor must be a number above 0, got 1000",
        ),
        ({"rope_scaling": LongRope(short_factors=(1.0,), long_factors=(1.0,))}, "has 1 short_factors where 8 rotated features need 4"),
    ],
)
def test_nonsense_is_refused_with_the_numbers(change: dict, words: str) -> None:
    with pytest.raises(ModelError) as caught:
        dataclasses.replace(TINY, **change)
    assert words in str(caught.value)


def test_a_configuration_survives_json() -> None:
    config = dataclasses.replace(
        TINY, original_max_positions=32, rope_scaling=LongRope(short_factors=(1.0,) * 4, long_factors=(2.0,) * 4, attention_factor=1.1)
    )
    assert DecoderConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ModelError, match="not a decoder's configuration"):
        DecoderConfig.from_dict({"vocab_size": 3, "colour": "red"})


def test_an_unknown_preset_lists_the_known() -> None:
    with pytest.raises(ModelError, match="no decoder preset 'phi9'; there is phi3-mini-4k"):
        preset("phi9")


@pytest.mark.parametrize(("name", "pairs"), [("phi3-mini-128k", 48), ("phi3.5-mini", 48), ("phi4-mini", 48), ("phi3-medium-128k", 64)])
def test_long_members_have_rising_factors_for_every_pair(name: str, pairs: int) -> None:
    rope = preset(name).rope_scaling
    assert rope is not None
    assert (len(rope.short_factors), len(rope.long_factors)) == (pairs, pairs)
    assert list(rope.short_factors) == sorted(rope.short_factors)
    assert list(rope.long_factors) == sorted(rope.long_factors)
    assert 1.0 <= rope.long_factors[0] < rope.long_factors[-1] <= 65.0
    assert abs(preset(name).rope_attention_factor - 1.190238) < 1e-6
    assert preset(name).rope_long_attention_factor == preset(name).rope_attention_factor


def test_a_member_without_published_factors_at_hand_is_refused() -> None:
    with pytest.raises(ModelError, match=r"preset 'phi3-small-128k' has no longrope factors of its own.*give the model's folder"):
        preset("phi3-small-128k")


def test_smalls_vocabulary_ends_in_91_dummies() -> None:
    live = [one for one in range(100_256, 100_352) if one not in PHI3_SMALL_8K.dummy_ids]
    assert live == [100_257, 100_261, 100_262, 100_263, 100_266]
    assert len(PHI3_SMALL_8K.dummy_ids) == 91


def test_the_long_set_may_have_an_attention_factor_of_its_own() -> None:
    rope = LongRope(short_factors=(1.0,) * 4, long_factors=(2.0,) * 4, attention_factor=1.1, long_attention_factor=1.3)
    config = dataclasses.replace(TINY, original_max_positions=32, rope_scaling=rope)
    position_BT = torch.zeros(1, 1)
    cos = {factors: rotary_tables(config, position_BT, factors, torch.float64)[0] for factors in ("short", "long")}
    assert torch.allclose(cos["short"], torch.tensor(1.1, dtype=torch.float64))
    assert torch.allclose(cos["long"], torch.tensor(1.3, dtype=torch.float64))
    old = config.to_dict()
    del old["rope_scaling"]["long_attention_factor"]  # a checkpoint written before the setting existed
    assert DecoderConfig.from_dict(old).rope_long_attention_factor == 1.1
    with pytest.raises(ModelError, match="rope_scaling long_attention_factor must be a number above 0, got 0"):
        dataclasses.replace(config, rope_scaling=dataclasses.replace(rope, long_attention_factor=0))


def test_configurations_load_without_torch() -> None:
    code = "import sys, modeling.config, modeling.counts, modeling.hf_config, modeling.commands; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
