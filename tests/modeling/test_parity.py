"""The decoder's logits equal transformers' Phi3ForCausalLM bit for bit, and a changed decoder's do not."""

import dataclasses
from pathlib import Path

import pytest
import torch
from small_decoders import MEMBERS, random_decoder, random_ids
from torch import Tensor
from transformers import Phi3ForCausalLM

from modeling import load_decoder, save_decoder
from modeling.decoder import Decoder
from modeling.feed_forward import FeedForward
from modeling.hf_layout import hf_name, layout_of
from modeling.parallel.stream import Stream

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """Every member saved once in each dtype."""
    made = {}
    for member, config in MEMBERS.items():
        for name, dtype in DTYPES.items():
            made[member, name] = tmp_path_factory.mktemp("models") / f"{member}-{name}"
            save_decoder(random_decoder(config, dtype=dtype), made[member, name])
    return made


def reference(folder: Path, dtype: torch.dtype, attention: str) -> Phi3ForCausalLM:
    model, report = Phi3ForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation=attention, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    return model


@torch.no_grad()
def logits(model: Phi3ForCausalLM, ids_BT: Tensor) -> Tensor:
    return model(ids_BT).logits


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("member", MEMBERS)
def test_logits_are_bit_equal(folders: dict, member: str, dtype: str, attention: str) -> None:
    theirs = reference(folders[member, dtype], DTYPES[dtype], attention)
    ours = load_decoder(folders[member, dtype], attention=attention)
    for tokens in (1, 7, 21, 32, 33, 64):  # one token, below and at the window, both sides of longrope's switch, the longest
        ids_BT = random_ids(3, tokens)
        with torch.no_grad():
            assert torch.equal(ours(ids_BT), logits(theirs, ids_BT)), f"{tokens} tokens"


def paired_gradients(ours: Decoder, theirs: Phi3ForCausalLM, ids_BT: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Both gradients of every parameter, by our name, of the same weighted sum of logits."""
    weight_BTV = torch.randn(*ids_BT.shape, ours.config.vocab_size, generator=torch.Generator().manual_seed(4))
    (ours(ids_BT) * weight_BTV).sum().backward()
    (theirs(ids_BT).logits * weight_BTV).sum().backward()
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    pairs = {}
    for name, parameter in ours.named_parameters():
        other = expected.pop(hf_name(name, layout_of(ours.config)))
        assert parameter.grad is not None
        assert other is not None
        pairs[name] = (parameter.grad, other)
    assert not expected, "a parameter of the reference that we do not have"
    return pairs


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("member", MEMBERS)
def test_every_gradient_equals_the_references(folders: dict, member: str, attention: str) -> None:
    """Within 1e-6 of the tensor's norm in float32, in both of longrope's regimes and beyond the window."""
    for tokens in (32, 45):
        theirs = reference(folders[member, "float32"], torch.float32, attention)
        ours = load_decoder(folders[member, "float32"], attention=attention)
        for name, (mine, expected) in paired_gradients(ours, theirs, random_ids(2, tokens)).items():
            assert (mine - expected).norm() <= 1e-6 * expected.norm(), f"{name}, {tokens} tokens"


def test_a_gradient_off_by_a_millionth_is_noticed(folders: dict) -> None:
    """A norm's epsilon a fifth larger changes logits by about 1e-6 of their size, and some gradient by more than the bound."""
    theirs = reference(folders["gqa", "float32"], torch.float32, "sdpa")
    ours = load_decoder(folders["gqa", "float32"])
    for layer in ours.layers:
        layer.attention_norm.eps *= 1.2
    pairs = paired_gradients(ours, theirs, random_ids(2, 33))
    assert any((mine - expected).norm() > 1e-6 * expected.norm() for mine, expected in pairs.values())


def test_a_window_one_key_wider_is_noticed(folders: dict) -> None:
    """Some stacks count the window without the token itself; the check must see one key more."""
    theirs = reference(folders["window", "float32"], torch.float32, "sdpa")
    ours = load_decoder(folders["window", "float32"])
    wider = Decoder(dataclasses.replace(ours.config, window_keys=22))
    wider.load_state_dict(ours.state_dict())
    ids_BT = random_ids(2, 40)
    with torch.no_grad():
        expected_BTV = logits(theirs, ids_BT)
        assert torch.equal(ours(ids_BT), expected_BTV)
        assert torch.equal(wider(ids_BT)[:, :21], expected_BTV[:, :21])
        assert not torch.equal(wider(ids_BT), expected_BTV)


@pytest.mark.parametrize("mutation", ["gate order", "norm order", "interleaved rotation", "scale"])
def test_changed_arithmetic_is_noticed(folders: dict, mutation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = reference(folders["gqa", "bfloat16"], torch.bfloat16, "sdpa")
    ours = load_decoder(folders["gqa", "bfloat16"])
    ids_BT = random_ids(2, 20)
    expected_BTV = logits(theirs, ids_BT)
    if mutation == "gate order":

        def swapped(self: FeedForward, x: Tensor, stream: Stream) -> Tensor:
            up, gate = self.gate_up(x).chunk(2, dim=-1)
            return self.down(up * torch.nn.functional.silu(gate))

        monkeypatch.setattr(FeedForward, "forward", swapped)
    elif mutation == "norm order":
        monkeypatch.setattr(
            "modeling.norm.RMSNorm.forward",
            lambda self, x: (self.weight.float() * x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + self.eps)).to(x.dtype),
        )
    elif mutation == "interleaved rotation":

        def interleaved(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
            turned = torch.stack((-x[..., 1::2], x[..., ::2]), dim=-1).flatten(-2)
            return x * cos + turned * sin

        monkeypatch.setattr("modeling.attention.rotate", interleaved)
    else:
        for layer in ours.layers:
            layer.attention.scale *= 1.01
    with torch.no_grad():
        assert not torch.equal(ours(ids_BT), expected_BTV)
