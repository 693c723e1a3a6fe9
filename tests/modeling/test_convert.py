"""Conversion holds about one shard, whatever the model's size; every phi3 preset's settings load in transformers."""

import dataclasses
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from small_decoders import random_decoder, random_ids
from torch import Tensor
from transformers import Phi3ForCausalLM

from modeling import convert, load_decoder, save_decoder
from modeling.checkpoint import write_checkpoint
from modeling.config import DecoderConfig, LongRope
from modeling.convert import convert_model
from modeling.errors import ModelError
from modeling.model_checkpoint import PREFIX, decoder_metadata
from modeling.presets import PRESETS, TINY, TINY_SMALL

SHARD = 40_000
WIDE = {"phi3": dataclasses.replace(TINY, num_layers=16), "phi3small": dataclasses.replace(TINY_SMALL, num_layers=16, tied=False)}
PHI3_MEMBERS = [name for name, config in PRESETS.items() if config.norm == "rms"]


class Peak:
    """The most bytes of tensors alive at once: those that passed from reader to writer, and those handed to the file format."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes = 0
        self.passed: list[weakref.ref[Tensor]] = []
        for name in ("stream_hf_tensors", "stream_checkpoint_tensors"):
            monkeypatch.setattr(convert, name, self.passing(getattr(convert, name)))
        for room in ("modeling.hf_weights.save_file", "modeling.checkpoint_parts.save_file"):
            monkeypatch.setattr(room, self.writing)

    def look(self, held: dict[str, Tensor]) -> None:
        self.passed = [one for one in self.passed if one() is not None]
        alive = {id(one): one.nbytes for one in [*held.values(), *(ref() for ref in self.passed)] if one is not None}
        self.bytes = max(self.bytes, sum(alive.values()))

    def passing(self, stream: Any) -> Any:
        def streamed(*arguments: Any) -> Iterator[tuple[str, Tensor]]:
            for name, tensor in stream(*arguments):
                self.passed.append(weakref.ref(tensor))
                self.look({})
                yield name, tensor

        return streamed

    def writing(self, tensors: dict[str, Tensor], *arguments: Any, **options: Any) -> None:
        self.look(tensors)
        save_file(tensors, *arguments, **options)


@pytest.mark.parametrize("layout", WIDE)
def test_about_one_shard_is_held(layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = random_decoder(WIDE[layout])
    save_decoder(decoder, tmp_path / "model", shard_bytes=SHARD)
    total = sum(parameter.nbytes for parameter in decoder.parameters())
    largest = max(parameter.nbytes for parameter in decoder.parameters())
    assert len(list((tmp_path / "model").glob("*.safetensors"))) >= 8
    del decoder
    peak = Peak(monkeypatch)
    convert_model(tmp_path / "model", tmp_path / "checkpoint", shard_bytes=SHARD)
    convert_model(tmp_path / "checkpoint", tmp_path / "back", shard_bytes=SHARD)
    assert 0 < peak.bytes <= SHARD + 2 * largest < total / 3
    names = sorted(path.name for path in (tmp_path / "model").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "back").iterdir())
    assert all((tmp_path / "model" / name).read_bytes() == (tmp_path / "back" / name).read_bytes() for name in names)


def test_the_peak_shows_a_converter_that_holds_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = random_decoder(WIDE["phi3"])
    total = sum(parameter.nbytes for parameter in decoder.parameters())
    save_decoder(decoder, tmp_path / "model", shard_bytes=SHARD)
    del decoder
    peak = Peak(monkeypatch)
    watched = convert.stream_hf_tensors
    monkeypatch.setattr(convert, "stream_hf_tensors", lambda *arguments: iter(list(watched(*arguments))))
    convert_model(tmp_path / "model", tmp_path / "checkpoint", shard_bytes=SHARD)
    assert peak.bytes >= total


def shrunk(config: DecoderConfig) -> DecoderConfig:
    """The member's settings at a toy's sizes: as many key heads per query head, the same rotated share and rope kind."""
    heads = 2 * config.num_heads // config.num_kv_heads
    rope = config.rope_scaling
    if rope is not None:
        rope = LongRope(short_factors=rope.short_factors[:6], long_factors=rope.long_factors[-6:], attention_factor=rope.attention_factor)
    head_dim = int(12 / config.rotary_fraction)
    return dataclasses.replace(
        config,
        vocab_size=128,
        hidden_size=heads * head_dim,
        intermediate_size=40,
        num_layers=2,
        num_heads=heads,
        num_kv_heads=2,
        max_positions=64,
        original_max_positions=None if config.original_max_positions is None else 32,
        window_keys=None if config.window_keys is None else 20 if config.window_keys < config.max_positions else config.window_keys,
        rope_scaling=rope,
        bos_id=1,
        eos_ids=(2, 3),
        pad_id=2,
    )


@pytest.mark.parametrize("name", PHI3_MEMBERS)
def test_every_member_loads_in_transformers(name: str, tmp_path: Path) -> None:
    config = shrunk(PRESETS[name])
    save_decoder(random_decoder(config), tmp_path / "model")
    loaded: Any = Phi3ForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32, output_loading_info=True)
    theirs, told = loaded
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    assert not told["mismatched_keys"]
    ours = load_decoder(tmp_path / "model")
    assert ours.config == config
    ids_BT = random_ids(2, 40)  # past the window, and past the original length
    with torch.no_grad():
        assert torch.equal(ours(ids_BT), theirs.eval()(ids_BT).logits)


def test_a_training_checkpoint_brings_the_tokenizer_of_its_run(tmp_path: Path) -> None:
    decoder = random_decoder(TINY)
    checkpoint = tmp_path / "run" / "checkpoints" / "step-2"
    weights = {PREFIX + name: parameter.detach() for name, parameter in decoder.named_parameters()}
    write_checkpoint(checkpoint, weights, decoder_metadata(TINY))
    convert_model(checkpoint, tmp_path / "none")
    assert not (tmp_path / "none" / "tokenizer.json").exists()
    (tmp_path / "run" / "tokenizer").mkdir()
    (tmp_path / "run" / "tokenizer" / "tokenizer.json").write_text("{}")
    convert_model(checkpoint, tmp_path / "model")
    assert (tmp_path / "model" / "tokenizer.json").read_text() == "{}"
    (checkpoint / "tokenizer.json").write_text('{"own": 1}')  # the checkpoint's parts must not go along
    convert_model(checkpoint, tmp_path / "own")
    assert sorted(path.name for path in (tmp_path / "own").iterdir()) == ["config.json", "generation_config.json", "model.safetensors"]


def test_what_a_killed_writer_had_taken_away_is_no_free_name(tmp_path: Path) -> None:
    save_decoder(random_decoder(TINY), tmp_path / "model")
    save_decoder(random_decoder(TINY), tmp_path / "kept")
    (tmp_path / "kept").rename(tmp_path / ".kept.0123abcd.old")
    with pytest.raises(ModelError, match="kept: the folder is not empty"):
        convert_model(tmp_path / "model", tmp_path / "kept")
    assert (tmp_path / "kept" / "model.safetensors").exists()
