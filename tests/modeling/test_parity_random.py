"""Random configurations, odd sizes among them: logits bit for bit, gradients, and folders that transformers takes without a complaint."""

import dataclasses
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_decoders import random_decoder
from torch import Tensor
from transformers import Phi3ForCausalLM

from modeling import load_decoder, save_decoder
from modeling.config import DecoderConfig, LongRope
from modeling.errors import ModelError


def examples(count: int) -> settings:
    """The same examples in every run; the folder is overwritten by each, so that they share it is meant."""
    return settings(max_examples=count, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@st.composite
def configurations(draw: st.DrawFn) -> DecoderConfig:
    """Decoders of one to three layers whose sizes are rarely round."""
    kv_heads = draw(st.integers(1, 4))
    heads = kv_heads * draw(st.integers(1, 4))
    head_dim = 2 * draw(st.integers(1, 20))
    # Of all fractions, those that rotate an even number of features.
    rotated = 2 * draw(st.integers(1, head_dim // 2))
    original = draw(st.integers(5, 40))
    scaling = None
    if draw(st.booleans()):
        factors = st.tuples(*[st.floats(0.5, 40.0, width=32)] * (rotated // 2))
        scaling = LongRope(short_factors=draw(factors), long_factors=draw(factors), attention_factor=draw(st.none() | st.floats(0.8, 1.5)))
    return DecoderConfig(
        vocab_size=draw(st.integers(3, 150)),
        hidden_size=heads * head_dim,
        intermediate_size=draw(st.integers(1, 90)),
        num_layers=draw(st.integers(1, 3)),
        num_heads=heads,
        num_kv_heads=kv_heads,
        max_positions=2 * original if scaling else 80,
        original_max_positions=original if scaling else None,
        rope_theta=draw(st.sampled_from([1e4, 2.5e5, 500.0])),
        rope_scaling=scaling,
        rotary_fraction=rotated / head_dim,
        window_keys=draw(st.none() | st.integers(1, 50)),
        norm_eps=draw(st.sampled_from([1e-5, 1e-6])),
        tied=draw(st.booleans()),
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[DecoderConfig, Tensor, str]:
    """A configuration, token ids that fit it, and a backend."""
    config = draw(configurations())
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, config.max_positions)))
    ids_BT = torch.randint(0, config.vocab_size, shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    return config, ids_BT, draw(st.sampled_from(["sdpa", "eager"]))


def pair(config: DecoderConfig, folder: Path, dtype: torch.dtype, attention: str):
    """Our decoder and the reference, from one folder that the reference loads whole."""
    save_decoder(random_decoder(config, dtype=dtype), folder)
    theirs, report = Phi3ForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation=attention, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    # transformers maps the file, so its tensors begin where they lie in it; at odd addresses torch's vector kernels sum in another order.
    for parameter in theirs.parameters():
        parameter.data = parameter.data.clone()
    return load_decoder(folder, attention=attention), theirs


@pytest.mark.parametrize("dtype", DTYPES)
@examples(80)
@given(case=cases())
def test_logits_are_bit_equal(tmp_path: Path, dtype: str, case: tuple[DecoderConfig, Tensor, str]) -> None:
    config, ids_BT, attention = case
    ours, theirs = pair(config, tmp_path / "model", DTYPES[dtype], attention)
    with torch.no_grad():
        assert torch.equal(ours(ids_BT), theirs(ids_BT).logits)


@examples(25)
@given(case=cases())
def test_gradients_are_equal(tmp_path: Path, case: tuple[DecoderConfig, Tensor, str]) -> None:
    """Every tensor within 1e-6 of the largest gradient's norm: a gradient that is zero but for rounding has no size of its own."""
    from modeling.hf_layout import hf_name, layout_of

    config, ids_BT, attention = case
    ours, theirs = pair(config, tmp_path / "model", torch.float32, attention)
    ours(ids_BT).square().sum().backward()
    theirs(ids_BT).logits.square().sum().backward()
    largest = max(parameter.grad.norm() for parameter in theirs.parameters())
    for name, parameter in ours.named_parameters():
        expected = theirs.get_parameter(hf_name(name, layout_of(ours.config))).grad
        assert (parameter.grad - expected).norm() <= 1e-6 * largest, name


@examples(15)
@given(config=configurations())
def test_the_configuration_survives_the_folder(tmp_path: Path, config: DecoderConfig) -> None:
    save_decoder(random_decoder(config), tmp_path / "model")
    found = load_decoder(tmp_path / "model").config
    assert dataclasses.replace(found, original_max_positions=config.original_max_positions) == config


SIMPLE = DecoderConfig(vocab_size=20, hidden_size=8, intermediate_size=8, num_layers=1, num_heads=2, num_kv_heads=1, max_positions=16)
NONSENSE = st.sampled_from([-1, 0, "x", float("nan"), [3], True])


@examples(60)
@given(name=st.sampled_from([one.name for one in dataclasses.fields(DecoderConfig)]), value=NONSENSE)
def test_nonsense_is_refused_or_harmless(name: str, value: object) -> None:
    """One wrong value in any setting: a ModelError of one line that names it, or a configuration that can be built."""
    line = None
    try:
        config = dataclasses.replace(SIMPLE, **{name: value})
    except ModelError as error:
        line = str(error)
    else:
        random_decoder(config)
    assert line is None or (name in line and "\n" not in line)
