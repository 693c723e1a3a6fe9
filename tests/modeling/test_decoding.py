"""Decoding with a cache equals reading the whole text, for every member, window and longrope regime, padded or not."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
import torch
from small_decoders import MEMBERS, SMALL, random_decoder, random_ids
from torch import Tensor, nn
from transformers import Phi3ForCausalLM

from modeling import decoding as decoding_module
from modeling import kv_cache, save_decoder
from modeling.decoder import Decoder
from modeling.decoding import Decoding, generate, pad_left
from modeling.errors import ModelError
from modeling.kv_cache import KVCache

EVERY = {**MEMBERS, "small": SMALL}
# float32: the same sums over the same keys in another order.
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def greedy_by_whole_texts(decoder: Decoder, prompt: list[int], steps: int) -> list[int]:
    """The reference: the whole text again for every token; None in place of a token whose lead is within the tolerance."""
    ids = list(prompt)
    for _ in range(steps):
        with torch.no_grad():
            ids.append(int(decoder(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


def margin(decoder: Decoder, ids: list[int]) -> float:
    with torch.no_grad():
        first, second = decoder(torch.tensor([ids]))[0, -1].topk(2).values.tolist()
    return first - second


def assert_same_tokens(decoder: Decoder, prompt: list[int], found: list[int], steps: int) -> None:
    """Equal to the reference up to a token whose lead over the next is below 1e-5, after which both go their own way."""
    expected = greedy_by_whole_texts(decoder, prompt, steps)
    for number, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        if ours != theirs:
            assert margin(decoder, prompt + expected[:number]) < 1e-5, f"token {number}"
            return


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("member", EVERY)
def test_stepwise_logits_equal_the_whole_text(member: str, attention: str) -> None:
    """A prompt, a few tokens at once, then one by one; longrope's members cross their original length of 32 on the way."""
    decoder = random_decoder(EVERY[member]).eval()
    decoder.backend = attention
    ids_BT = random_ids(2, 64)
    decoding = Decoding(decoder, batch_size=2, capacity=64)
    for start, end in [(0, 15), (15, 19), *((at, at + 1) for at in range(19, 64))]:
        logits_BV = decoding.feed(ids_BT[:, start:end])
        with torch.no_grad():
            whole_BV = decoder(ids_BT[:, :end])[:, -1]
        torch.testing.assert_close(logits_BV, whole_BV, **CLOSE, msg=lambda text, end=end: f"{end} tokens: {text}")


@pytest.mark.parametrize("member", EVERY)
def test_greedy_tokens_equal_those_of_whole_texts(member: str) -> None:
    decoder = random_decoder(EVERY[member]).eval()
    prompts = [random_ids(1, tokens, seed=tokens)[0].tolist() for tokens in (3, 17, 17, 26)]
    answers = generate(decoder, prompts, max_new_tokens=24, stop_ids=())
    for prompt, answer in zip(prompts, answers, strict=True):
        assert len(answer) == 24
        assert_same_tokens(decoder, prompt, answer, 24)


def test_left_padding_changes_no_logits() -> None:
    for member, config in EVERY.items():
        decoder = random_decoder(config).eval()
        rows = [random_ids(1, tokens, seed=tokens)[0].tolist() for tokens in (1, 9, 30)]
        ids_BT, padding_B = pad_left(rows, 2)
        assert padding_B is not None
        with torch.no_grad():
            padded_BTV = decoder(ids_BT, padding_B=padding_B)
            for row, ids in enumerate(rows):
                alone_BTV = decoder(torch.tensor([ids]))
                torch.testing.assert_close(
                    padded_BTV[row : row + 1, -len(ids) :], alone_BTV, **CLOSE, msg=lambda text, m=member: f"{m}: {text}"
                )
        assert not torch.allclose(decoder(ids_BT)[0, -1], padded_BTV[0, -1], atol=1e-3)  # padding that is seen does change them


def test_transformers_generates_the_same_padded_batch(tmp_path) -> None:
    ours = random_decoder(MEMBERS["gqa"]).eval()
    save_decoder(ours, tmp_path / "model")
    theirs = Phi3ForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    rows = [random_ids(1, tokens, seed=tokens)[0].tolist() for tokens in (4, 11, 19)]
    ids_BT, padding_B = pad_left(rows, 2)
    assert padding_B is not None
    mask_BT = (torch.arange(19) >= padding_B[:, None]).long()
    given = theirs.generate(ids_BT, attention_mask=mask_BT, max_new_tokens=20, do_sample=False, eos_token_id=None, pad_token_id=2)
    assert generate(ours, rows, 20, stop_ids=()) == given[:, 19:].tolist()


def test_a_windowed_cache_lets_keys_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays at its size while the text grows past it, chunks longer than the whole cache among the steps."""
    monkeypatch.setattr(kv_cache, "SLACK", 3)
    for member in ("window", "window-gqa"):
        decoder = random_decoder(MEMBERS[member]).eval()
        ids_BT = random_ids(2, 64)
        cache = KVCache(decoder.config, batch_size=2, capacity=64)
        assert cache.keys.shape[3] == 20 + 3
        with torch.no_grad():
            whole_BTV = decoder(ids_BT)
            for start, end in ((0, 2), (2, 30), (30, 31), (31, 32), (32, 33), (33, 34), (34, 60), (60, 62), (62, 63), (63, 64)):
                torch.testing.assert_close(decoder(ids_BT[:, start:end], cache=cache), whole_BTV[:, start:end], **CLOSE)
                assert cache.held <= 23
        assert cache.length == 64


def test_one_key_fewer_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_cache, "SLACK", 3)
    decoder = random_decoder(MEMBERS["window"]).eval()
    ids_BT = random_ids(1, 64)
    cache = KVCache(decoder.config, batch_size=1, capacity=64)
    assert cache.reach is not None
    cache.reach -= 1
    with torch.no_grad():
        decoder(ids_BT[:, :40], cache=cache)
        last_BTV = decoder(ids_BT[:, 40:41], cache=cache)
    assert not torch.allclose(last_BTV, decoder(ids_BT[:, :41])[:, -1:], **CLOSE)


def test_padding_leaves_with_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_cache, "SLACK", 3)
    decoder = random_decoder(MEMBERS["window"]).eval()
    prompts = [random_ids(1, tokens, seed=tokens)[0].tolist() for tokens in (2, 25)]
    for prompt, answer in zip(prompts, generate(decoder, prompts, 30, stop_ids=()), strict=True):
        assert_same_tokens(decoder, prompt, answer, 30)


def test_crossing_reads_the_text_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the new start the keys keep the short factors and the logits are others."""
    decoder = random_decoder(MEMBERS["longrope"]).eval()
    ids_BT = random_ids(1, 40)
    stale = Decoding(decoder, 1, 64)
    monkeypatch.setattr(stale, "_factors", lambda length: "short")
    stale.feed(ids_BT[:, :32])
    stale.cache.factors = "long"
    monkeypatch.setattr(stale, "_factors", lambda length: "long")
    right = Decoding(decoder, 1, 64)
    right.feed(ids_BT[:, :32])
    assert right.cache.factors == "short"
    logits_BV, stale_BV = right.feed(ids_BT[:, 32:33]), stale.feed(ids_BT[:, 32:33])
    assert right.cache.factors == "long"
    with torch.no_grad():
        whole_BV = decoder(ids_BT[:, :33])[:, -1]
    torch.testing.assert_close(logits_BV, whole_BV, **CLOSE)
    assert not torch.allclose(stale_BV, whole_BV, atol=1e-3)


@pytest.mark.parametrize("member", EVERY)
def test_rewinding_and_going_on(member: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Back to before longrope's crossing, and to keys that a window has let go."""
    monkeypatch.setattr(kv_cache, "SLACK", 3)
    decoder = random_decoder(EVERY[member]).eval()
    ids_BT, other_BT = random_ids(2, 50), random_ids(2, 5, seed=9)
    decoding = Decoding(decoder, 2, 64)
    decoding.feed(ids_BT)
    for length in (48, 33, 20, 0):
        decoding.rewind(length)
        found_BV = decoding.feed(other_BT)
        with torch.no_grad():
            whole_BV = decoder(torch.cat((ids_BT[:, :length], other_BT), dim=1))[:, -1]
        torch.testing.assert_close(found_BV, whole_BV, **CLOSE)
        decoding.rewind(length)


@contextmanager
def interruption(part: nn.Module, after: int) -> Iterator[None]:
    """Ctrl-C inside that part of the decoder, once it has run `after` times."""
    runs = iter([False] * after + [True])

    def hook(*_: object) -> None:
        if next(runs):
            raise KeyboardInterrupt

    handle = part.register_forward_pre_hook(hook)
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        handle.remove()


@pytest.mark.parametrize(("start", "end", "after"), [(0, 30, 2), (30, 31, 0), (20, 50, 0), (30, 50, 1)])
@pytest.mark.parametrize("member", EVERY)
def test_a_feed_broken_off_has_read_nothing(member: str, start: int, end: int, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One token or several chunks, at their beginning or between two layers; afterwards another text comes, or the same one again."""
    monkeypatch.setattr(kv_cache, "SLACK", 3)
    monkeypatch.setattr(decoding_module, "CHUNK", 8)
    decoder = random_decoder(EVERY[member]).eval()
    ids_BT, other_BT = random_ids(2, 50), random_ids(2, 5, seed=9)
    for part in (decoder.embedding, decoder.layers[1]):
        for next_BT in (other_BT, ids_BT[:, start:end]):
            decoding = Decoding(decoder, 2, 64)
            if start:
                decoding.feed(ids_BT[:, :start])
            with interruption(part, after):
                decoding.feed(ids_BT[:, start:end])
            assert decoding.length == start
            found_BV = decoding.feed(next_BT)
            with torch.no_grad():
                whole_BV = decoder(torch.cat((ids_BT[:, :start], next_BT), dim=1))[:, -1]
            torch.testing.assert_close(found_BV, whole_BV, **CLOSE)


def test_a_cache_whose_window_is_half_moved_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_cache, "SLACK", 3)
    decoder = random_decoder(MEMBERS["window"]).eval()
    ids_BT = random_ids(1, 50)
    cache = KVCache(decoder.config, batch_size=1, capacity=64)
    with torch.no_grad():
        whole_BTV = decoder(ids_BT)
        decoder(ids_BT[:, :20], cache=cache)
        with interruption(decoder.layers[1], 0):
            decoder(ids_BT[:, 20:50], cache=cache)
        for spoilt in (cache, cache.take(torch.zeros(1, dtype=torch.long), 64)):
            assert not spoilt.rewind(10)
            with pytest.raises(ModelError, match="moved the cache's window was broken off; reset it"):
                decoder(ids_BT[:, 20:50], cache=spoilt)
        cache.reset()
        torch.testing.assert_close(decoder(ids_BT, cache=cache), whole_BTV, **CLOSE)


def test_a_cache_does_not_rewind_forward() -> None:
    cache = KVCache(MEMBERS["mha"], batch_size=1, capacity=64)
    cache.advance(5)
    assert not cache.rewind(6)
    assert (cache.length, cache.held) == (5, 5)
    assert cache.rewind(5)


def test_no_dropout_acts_in_training_mode() -> None:
    config = dataclasses.replace(SMALL, embedding_dropout=0.5, feed_forward_dropout=0.5)
    decoder = random_decoder(config).eval()
    prompt = random_ids(1, 9)[0].tolist()
    wanted = generate(decoder, [prompt], 20, stop_ids=())
    decoder.train()
    decoder.layers[0].eval()
    torch.manual_seed(0)
    with torch.no_grad():
        assert not torch.equal(decoder(torch.tensor([prompt])), decoder(torch.tensor([prompt])))  # dropout does act here
    assert generate(decoder, [prompt], 20, stop_ids=()) == wanted
    assert decoder.training
    assert decoder.layers[1].training
    assert not decoder.layers[0].training


def test_stops_and_limits() -> None:
    decoder = random_decoder(MEMBERS["mha"]).eval()
    (free,) = generate(decoder, [[5, 6]], 12, stop_ids=())
    cut = free.index(free[4])
    assert generate(decoder, [[5, 6]], 12, stop_ids={free[4]}) == [free[:cut]]
    assert len(generate(decoder, [list(range(60))], 50, stop_ids=())[0]) == 4  # max_positions is 64

    def worst(logits_BV: Tensor) -> Tensor:
        return logits_BV.argmin(-1)

    assert generate(decoder, [[5, 6]], 12, stop_ids=(), choose=worst) != [free]


@pytest.mark.parametrize(
    ("prompts", "new", "words"),
    [
        ([[1], []], 4, "needs at least one token"),
        ([[1, 128]], 4, "token id 128 is not in the vocabulary of 128"),
        ([[1] * 64], 4, "64 tokens leave no room for an answer in max_positions=64"),
        ([[1]], 0, "max_new_tokens must be 1 or more, got 0"),
    ],
)
def test_what_does_not_fit_is_refused(prompts: list[list[int]], new: int, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        generate(random_decoder(MEMBERS["mha"]), prompts, new)


def test_prompts_may_be_tensors_and_nothing_but_ids() -> None:
    decoder = random_decoder(MEMBERS["gqa"])
    prompts = [[3, 5, 7], [4, 2]]
    expected = generate(decoder, prompts, 5)
    assert generate(decoder, [torch.tensor(row) for row in prompts], 5) == expected
    wrong: list[tuple[Any, str]] = [
        ([torch.tensor([1.0, 2.0])], "token ids are whole numbers, got 1.0"),
        (torch.tensor([1, 2]), "a list of them is needed, each a list"),
        ([1, 2], "a list of them is needed, each a list"),
        (["hello"], "token ids are whole numbers, got 'h'"),
        (torch.tensor([[[1]]]), r"token ids are whole numbers, got \[1\]"),
    ]
    for given, words in wrong:
        with pytest.raises(ModelError, match=words):
            generate(decoder, given, 5)
    with pytest.raises(ModelError, match="rope_factors must be 'auto', 'short' or 'long', got 'x'"):
        Decoder(MEMBERS["gqa"], rope_factors=cast(Any, "x"))
