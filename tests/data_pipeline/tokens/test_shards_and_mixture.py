"""Shards and mixtures: every target is given once per epoch, never across documents, in an order that only recipe and seed decide."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from data_pipeline.errors import InputError
from data_pipeline.tokens.mixture import IGNORED, Mixture, PhaseRecipe, Row, draw, quotas
from data_pipeline.tokens.packing import pack, shuffled
from data_pipeline.tokens.recipe import TokenizerRecipe, TokensRecipe
from data_pipeline.tokens.shards import TokenShards, tokenize
from data_pipeline.tokens.tokenizer import encode_text, load_tokenizer, train_tokenizer

T = 32
TEXTS = {
    "web": [f"page {n}: " + "word " * (n % 60) + "<|end|>" for n in range(120)],
    "synthetic": [f"{n} + {n} = {2 * n}." for n in range(90)],
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tokens")
    train_tokenizer(TokenizerRecipe(vocab_size=320), [text for texts in TEXTS.values() for text in texts], root / "tokenizer")
    for source, texts in TEXTS.items():
        tokenize(TokensRecipe(shard_tokens=1024, batch_documents=7), root / "tokenizer", source, ["", *texts], root / source)
    return root


@pytest.fixture(scope="module")
def tokenizer(root: Path) -> Tokenizer:
    return load_tokenizer(root / "tokenizer")


@pytest.fixture
def shards(root: Path) -> dict[str, TokenShards]:
    return {source: TokenShards.open(root / source, verify=True) for source in TEXTS}


def phases(*steps: int, **changes: Any) -> list[PhaseRecipe]:
    weights = [{"web": 0.8, "synthetic": 0.2}, {"web": 1.0, "synthetic": 2.0}]
    return [
        PhaseRecipe(**{"name": f"p{n}", "steps": one, "weights": weights[n], "max_epochs": 50, **changes}) for n, one in enumerate(steps)
    ]


def test_documents_come_back_whole(shards: dict[str, TokenShards], tokenizer: Tokenizer) -> None:
    for source, texts in TEXTS.items():
        found = [ids.tolist() for ids in shards[source].documents()]
        assert found == [[*encode_text(tokenizer, text), 0] for text in texts]
        assert shards[source].num_tokens == sum(map(len, found)) == shards[source].ends()[-1]
    manifest = json.loads((shards["web"].folder / "manifest.json").read_text(encoding="utf-8"))
    assert len(manifest["shards"]) > 3
    assert all(shard["tokens"] <= 1024 for shard in manifest["shards"])
    assert manifest["dtype"] == "uint16"


def test_a_large_vocabulary_takes_four_bytes(tmp_path: Path, root: Path) -> None:
    tokenizer = load_tokenizer(root / "tokenizer")
    tokenizer.add_tokens([f"w{n}" for n in range(65_600)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert tokenize(TokensRecipe(), tmp_path, "web", ["a w65599 b"], tmp_path / "web")["dtype"] == "uint32"
    (ids,) = TokenShards.open(tmp_path / "web", verify=True).documents()
    assert 320 + 65_599 in ids.tolist()


def test_no_text_leaves_nothing(tmp_path: Path, root: Path) -> None:
    with pytest.raises(InputError, match="tokens/web: no text to tokenize"):
        tokenize(TokensRecipe(), root / "tokenizer", "web", ["", ""], tmp_path / "web")
    assert list(tmp_path.iterdir()) == []


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda web: shutil.rmtree(web), "no such file; token shards are written by"),
        (lambda web: (web / "tokens-00001.bin").unlink(), "no such file, though the manifest names it"),
        (lambda web: (web / "tokens-00001.bin").write_bytes(b"12"), "of uint16 .* bytes. are needed, got 2 bytes"),
        (lambda web: edit(web / "manifest.json", dtype="uint32"), "of uint32"),
        (lambda web: edit(web / "manifest.json", dtype="float32"), "dtype must be one of uint16, uint32, got 'float32'"),
        (lambda web: edit(web / "manifest.json", format=9), "format 1 is needed, got 9"),
        (lambda web: edit(web / "manifest.json", tokens=1), "tokens is 1, but the shards hold"),
        (lambda web: edit(web / "manifest.json", shards=[]), "shards must be a list"),
        (lambda web: (web / "manifest.json").write_text("{", encoding="utf-8"), "not valid JSON"),
        (lambda web: (web / "ends-00000.bin").write_bytes(bytes((web / "ends-00000.bin").stat().st_size)), "document ends must rise"),
    ],
)
def test_damaged_shards(tmp_path: Path, root: Path, damage: Any, said: str) -> None:
    web = tmp_path / "web"
    shutil.copytree(root / "web", web)
    damage(web)
    with pytest.raises(InputError, match=said) as error:
        list(TokenShards.open(web).documents())
    assert "\n" not in str(error.value)


def test_a_flipped_bit_is_found_on_request(tmp_path: Path, root: Path) -> None:
    shutil.copytree(root / "web", tmp_path / "web")
    content = bytearray((root / "web/tokens-00001.bin").read_bytes())
    content[10] ^= 1
    (tmp_path / "web/tokens-00001.bin").write_bytes(content)
    TokenShards.open(tmp_path / "web")
    with pytest.raises(InputError, match=r"tokens-00001\.bin: SHA-256"):
        TokenShards.open(tmp_path / "web", verify=True)


@pytest.mark.parametrize("context", [1, 7, 32, 500])
def test_an_epoch_gives_every_target_once(context: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 200, 300)
    ends = np.cumsum(lengths)
    packing = pack(ends, context, "key")
    seen: Counter[int] = Counter()
    for row in range(packing.num_rows):
        starts, sizes = packing.pieces(row)
        assert sizes.min() >= 2
        assert sizes.sum() <= context + 1
        for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
            seen.update(range(start + 1, start + size))
            document = np.searchsorted(ends, start, side="right")
            assert start + size <= ends[document]  # never past its document
            if lengths[document] <= context + 1:
                assert size == lengths[document]  # kept whole where it fits
    firsts = set((ends - lengths).tolist())
    assert seen == Counter(position for position in range(int(ends[-1])) if position not in firsts)
    assert packing.targets_until[-1] == sum(seen.values())


def test_epochs_differ_and_rows_are_full() -> None:
    lengths = np.random.default_rng(0).lognormal(5, 1, 3000).astype(np.int64) + 2
    ends = np.cumsum(lengths)
    one, same, other = pack(ends, 256, "0/web/0"), pack(ends, 256, "0/web/0"), pack(ends, 256, "0/web/1")
    assert np.array_equal(one.starts, same.starts)
    assert not np.array_equal(one.starts[:50], other.starts[:50])
    assert one.targets_until[-1] / (one.num_rows * 256) > 0.97


def test_shuffled_is_a_permutation_and_fixed_for_ever() -> None:
    assert sorted(shuffled(1000, "a").tolist()) == list(range(1000))
    assert shuffled(8, "phial").tolist() != shuffled(8, "phial2").tolist()
    assert shuffled(0, "a").tolist() == []
    assert shuffled(8, "phial").tolist() == [4, 2, 3, 1, 5, 7, 0, 6]


def leaks(row: Row, known: set[tuple[int, ...]]) -> list[str]:
    """What is wrong with a row: positions, targets, or documents that are no span of a known document."""
    found = []
    for document in np.unique(row.documents).tolist():
        here = np.flatnonzero(row.documents == document)
        if row.positions[here].tolist() != list(range(len(here))) or np.any(np.diff(here) != 1):
            found.append("positions")
        for t in here.tolist():
            inside = t + 1 < len(row.documents) and row.documents[t + 1] == document
            if t + 1 < len(row.documents) and not inside and row.targets[t] != IGNORED:
                found.append("a target in another document")
            if row.targets[t] != IGNORED and (int(row.ids[t]), int(row.ids[t + 1])) not in known:
                found.append("a target that never followed")
    return found


def test_no_row_leaks(shards: dict[str, TokenShards]) -> None:
    mixture = Mixture(phases(12, 12), shards, T, 4, seed=0)
    known = {pair for one in shards.values() for ids in one.documents() for pair in zip(ids.tolist(), ids.tolist()[1:], strict=False)}
    several = 0
    for step in range(mixture.num_steps):
        for index in range(4):
            row = mixture.row(step, index)
            assert (row.ids.shape, row.positions.shape, row.documents.shape, row.targets.shape) == ((T + 1,), (T,), (T,), (T,))
            assert leaks(row, known) == []
            several += row.documents[-1] > 0
            kept = row.targets != IGNORED
            assert np.array_equal(row.targets[kept], row.ids[1:][kept])
    assert several > 20
    joined = next(row for row in (mixture.row(step, 0) for step in range(24)) if row.documents[-1] > 0)
    unmasked = Row(joined.ids, joined.positions, joined.documents, joined.ids[1:], joined.source)
    assert leaks(unmasked, known) != []  # the check can fail
    assert leaks(Row(joined.ids, np.arange(T), joined.documents, joined.targets, joined.source), known) != []


def test_rows_are_a_pure_function(shards: dict[str, TokenShards]) -> None:
    first, second = (Mixture(phases(6, 6), shards, T, 4, seed=3) for _ in range(2))
    order = [(step, index) for step in range(12) for index in range(4)]
    forward = {place: first.row(*place).ids.tolist() for place in order}
    assert forward == {place: second.row(*place).ids.tolist() for place in reversed(order)}  # as another rank, or a resumed run, asks
    assert first.fingerprint() == second.fingerprint()
    other = Mixture(phases(6, 6), shards, T, 4, seed=4)
    assert other.fingerprint() != first.fingerprint()
    assert forward != {place: other.row(*place).ids.tolist() for place in order}
    with pytest.raises(IndexError):
        first.row(12, 0)


def test_weights_are_met_at_every_moment_and_exactly_at_the_end() -> None:
    weights = {"a": 0.5, "b": 0.3, "c": 0.15, "d": 0.05, "none": 0.0}
    quota = quotas(weights, 997)
    assert sum(quota.values()) == 997
    assert all(abs(quota[source] - 997 * weights[source]) < 1 for source in quota)
    assert "none" not in quota
    counts: Counter[str] = Counter()
    for row in range(997):
        source, before = draw(quota, row)
        assert before == counts[source]
        counts[source] += 1
        assert all(abs(counts[one] - quota[one] * (row + 1) / 997) < len(quota) for one in quota)
    assert counts == quota


def test_report_counts_what_the_rows_hold(shards: dict[str, TokenShards]) -> None:
    mixture = Mixture(phases(30, 20), shards, T, 4, seed=0)
    report = mixture.report()
    for number, (begin, end) in enumerate([(0, 30), (30, 50)]):
        tokens: Counter[str] = Counter()
        rows: Counter[str] = Counter()
        for step in range(begin, end):
            for index in range(4):
                row = mixture.row(step, index)
                tokens[row.source] += int((row.targets != IGNORED).sum())
                rows[row.source] += 1
        told = report["phases"][number]["sources"]
        assert {source: one["tokens"] for source, one in told.items()} == tokens
        assert {source: one["rows"] for source, one in told.items()} == rows
    assert report["sources"]["synthetic"]["epochs"] > 1  # so several epochs were gone through
    assert report["sources"]["synthetic"]["epochs"] == pytest.approx(
        sum(phase["sources"]["synthetic"]["epochs"] for phase in report["phases"])
    )


def test_what_is_refused_before_training(root: Path, shards: dict[str, TokenShards], tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"phase p0: source \w+ would be read [\d.]+ times, max_epochs is 2: [\d,]+ tokens available, [\d,]+ needed"
    ):
        Mixture(phases(400, max_epochs=2), shards, T, 4, 0)
    with pytest.raises(InputError, match="no token shards of source 'web'; there is synthetic"):
        Mixture(phases(1), {"synthetic": shards["synthetic"]}, T, 4, 0)
    with pytest.raises(InputError, match="no phase"):
        Mixture([], shards, T, 4, 0)
    train_tokenizer(TokenizerRecipe(vocab_size=384), TEXTS["web"] * 3, tmp_path / "tokenizer")
    tokenize(TokensRecipe(), tmp_path / "tokenizer", "web", TEXTS["web"], tmp_path / "web")
    with pytest.raises(InputError, match="another tokenizer"):
        Mixture(phases(1), {**shards, "web": TokenShards.open(tmp_path / "web")}, T, 4, 0)
    for weights in ({"web": -1.0}, {"web": 0.0}, {"web": float("nan")}, {}):
        with pytest.raises(ValueError, match="weights"):
            PhaseRecipe(name="a", steps=1, weights=weights)
