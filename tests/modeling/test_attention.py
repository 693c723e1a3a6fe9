"""The window holds exactly its keys, packed documents never see one another, and decoding with a cache equals the whole text at once."""

import dataclasses

import pytest
import torch
from small_decoders import MEMBERS, random_decoder, random_ids
from transformers import Phi3ForCausalLM

from modeling import save_decoder
from modeling.decoder import Decoder
from modeling.errors import ModelError
from modeling.kv_cache import KVCache
from modeling.presets import TINY
from modeling.visible import Visible, dense_mask, document_positions

DOCUMENTS = torch.tensor([[4] * 10 + [7] * 22 + [4] * 8])  # an id that comes back is another document


@pytest.mark.parametrize("window", [1, 5, 21])
def test_the_window_holds_exactly_its_keys(window: int) -> None:
    mask = dense_mask(Visible(num_queries=40, num_keys=40, window_keys=window), torch.device("cpu"))
    assert mask.sum(-1).flatten().tolist() == [min(position + 1, window) for position in range(40)]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_token_outside_the_window_changes_nothing(attention: str) -> None:
    decoder = Decoder(dataclasses.replace(TINY, num_layers=1), attention=attention)
    decoder.load_state_dict(random_decoder(decoder.config).state_dict())
    ids_BT = random_ids(1, 40)
    other_BT = ids_BT.clone()
    other_BT[0, 10] = (other_BT[0, 10] + 1) % 128
    with torch.no_grad():
        changed = (decoder(ids_BT) != decoder(other_BT)).any(-1)[0].nonzero().flatten().tolist()
    assert changed == list(range(10, 10 + 21))


def test_document_positions_restart() -> None:
    assert document_positions(DOCUMENTS).tolist() == [[*range(10), *range(22), *range(8)]]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("member", MEMBERS)
def test_packed_documents_equal_documents_alone(member: str, attention: str) -> None:
    """Tolerance: float32 sums over the same keys in rows of another length, 2e-5 of logits of order 1."""
    decoder = random_decoder(MEMBERS[member])
    decoder.backend, decoder.rope_factors = attention, "short"
    ids_BT = random_ids(1, 40)
    with torch.no_grad():
        packed_BTV = decoder(ids_BT, documents_BT=DOCUMENTS)
        for start, end in ((0, 10), (10, 32), (32, 40)):
            torch.testing.assert_close(packed_BTV[:, start:end], decoder(ids_BT[:, start:end]), atol=2e-5, rtol=1e-4)


def test_no_gradient_crosses_documents() -> None:
    decoder = random_decoder(MEMBERS["gqa"])
    seen = {}
    decoder.embedding.register_forward_hook(lambda module, args, out: seen.setdefault("x", out).retain_grad())
    decoder(random_ids(1, 40), documents_BT=DOCUMENTS)[:, 10:32].square().sum().backward()
    reached = seen["x"].grad.abs().sum(-1)[0] > 0
    assert reached.nonzero().flatten().tolist() == list(range(10, 32))


def test_an_all_ones_mask_leaks_in_transformers_and_ours_does_not(tmp_path) -> None:
    """The trap that packing sets: transformers takes an all-ones mask as one document, whatever the positions say."""
    ours = random_decoder(MEMBERS["mha"])
    save_decoder(ours, tmp_path / "model")
    theirs = Phi3ForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    ids_BT = random_ids(1, 40)
    positions_BT = document_positions(DOCUMENTS)
    with torch.no_grad():
        alone_BTV = ours(ids_BT[:, 10:32])
        leaked_BTV = theirs(ids_BT, position_ids=positions_BT, attention_mask=torch.ones_like(ids_BT)).logits[:, 10:32]
        packed_BTV = ours(ids_BT, positions_BT, DOCUMENTS)[:, 10:32]
    assert (leaked_BTV - alone_BTV).abs().max() > 0.01
    torch.testing.assert_close(packed_BTV, alone_BTV, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("member", MEMBERS)
def test_decoding_with_a_cache_equals_the_whole_text(member: str, attention: str) -> None:
    """Within 2e-5 in float32, and the same best token; first a prompt, then a few tokens at once, then one by one."""
    decoder = random_decoder(MEMBERS[member])
    decoder.backend, decoder.rope_factors = attention, "short"
    ids_BT = random_ids(2, 48)
    cache = KVCache(decoder.config, batch_size=2, capacity=48)
    with torch.no_grad():
        whole_BTV = decoder(ids_BT)
        steps = [(0, 15), (15, 19), *((at, at + 1) for at in range(19, 48))]
        stepped_BTV = torch.cat([decoder(ids_BT[:, start:end], cache=cache) for start, end in steps], dim=1)
    torch.testing.assert_close(stepped_BTV, whole_BTV, atol=2e-5, rtol=1e-4)
    assert torch.equal(stepped_BTV.argmax(-1), whole_BTV.argmax(-1))


def test_crossing_the_longrope_length_with_a_cache_is_refused() -> None:
    decoder = random_decoder(MEMBERS["longrope"])
    cache = KVCache(decoder.config, batch_size=1, capacity=64)
    with torch.no_grad():
        decoder(random_ids(1, 32), cache=cache)
        with pytest.raises(ModelError, match="filled with short rope factors"):
            decoder(random_ids(1, 1), cache=cache)
        cache.reset()
        assert torch.equal(decoder(random_ids(1, 33), cache=cache), decoder(random_ids(1, 33)))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda d: d(random_ids(1, 65)), "65 tokens are longer than max_positions=64"),
        (lambda d: d(torch.zeros(3, dtype=torch.long)), "ids must be"),
        (lambda d: d(random_ids(2, 5), documents_BT=torch.zeros(2, 4, dtype=torch.long)), r"documents have the shape \(2, 4\)"),
        (lambda d: d(random_ids(2, 5), cache=KVCache(TINY, batch_size=1, capacity=8)), "batch_size=1, got a batch of 2"),
        (lambda d: d(random_ids(1, 9), cache=KVCache(TINY, batch_size=1, capacity=8)), "the cache holds 8 tokens; 0 are there and 9 more"),
        (lambda d: KVCache(TINY, batch_size=1, capacity=65), "1 to max_positions=64 tokens, got capacity=65"),
        (lambda d: Decoder(TINY, attention="fast"), "no attention backend 'fast'; there is sdpa, eager"),
    ],
)
def test_what_does_not_fit_is_refused(call, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        call(random_decoder(TINY))
