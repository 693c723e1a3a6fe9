"""Configurations refuse nonsense with the numbers, and counts are exact."""

import dataclasses
import subprocess
import sys

import pytest
import torch

from modeling.config import DecoderConfig, LongRope
from modeling.counts import count_parameters, kv_cache_bytes_per_token
from modeling.decoder import Decoder
from modeling.errors import ModelError
from modeling.presets import DEMO, PHI3_MEDIUM_4K, PHI3_MINI_4K, PRESETS, TINY, preset


@pytest.mark.parametrize(("config", "count"), [(PHI3_MINI_4K, 3_821_079_552), (PHI3_MEDIUM_4K, 13_960_238_080)])
def test_members_have_the_published_parameter_counts(config: DecoderConfig, count: int) -> None:
    assert count_parameters(config) == count
    with torch.device("meta"):
        decoder = Decoder(config)
    assert sum(parameter.numel() for parameter in decoder.parameters()) == count


@pytest.mark.parametrize("name", ["demo", "tiny"])
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


def test_configurations_load_without_torch() -> None:
    code = "import sys, modeling.config, modeling.counts, modeling.hf_config, modeling.commands; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
