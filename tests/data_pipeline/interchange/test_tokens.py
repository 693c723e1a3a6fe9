"""Token files of other programs, against bytes packed by hand with struct and read back by hand."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.errors import InputError
from data_pipeline.interchange.convert import Settings, convert
from data_pipeline.interchange.datatrove import in_words, open_datatrove
from data_pipeline.interchange.tokens import digest_of
from data_pipeline.tokens.recipe import TokenizerRecipe, TokensRecipe
from data_pipeline.tokens.shards import TokenShards, tokenize
from data_pipeline.tokens.tokenizer import end_of_text_id, load_tokenizer, train_tokenizer

DOCUMENTS = [[7, 8, 9, 0], [500, 0], [1] * 900 + [0]]
HEADER = b"MMIDIDX\x00\x00" + struct.pack("<Q", 1)


@pytest.fixture
def blocks_of_five(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks so small that documents are spread over several."""
    monkeypatch.setattr("data_pipeline.interchange.tokens.BLOCK_TOKENS", 5)
    monkeypatch.setattr("data_pipeline.interchange.megatron.BLOCK_TOKENS", 5)
    monkeypatch.setattr("data_pipeline.interchange.megatron.PIECE", 2)


def write_ds(path: Path, documents: list[list[int]], form: str = "H", metadata: str | None = None) -> Path:
    """As datatrove writes it."""
    flat = [one for document in documents for one in document]
    path.write_bytes(struct.pack(f"<{len(flat)}{form}", *flat))
    path.with_name(path.name + ".index").write_bytes(
        struct.pack(f"<{len(documents)}Q", *np.cumsum([len(one) for one in documents]).tolist())
    )
    if metadata is not None:
        path.with_name(path.name + ".metadata").write_text(metadata)
    return path


def write_indexed(stem: Path, sequences: list[list[int]], firsts: list[int], form: str = "H") -> None:
    """As Megatron writes it."""
    width, code = {"H": (2, 8), "i": (4, 4)}[form]
    flat = [one for sequence in sequences for one in sequence]
    stem.with_name(stem.name + ".bin").write_bytes(struct.pack(f"<{len(flat)}{form}", *flat))
    lengths = [len(one) for one in sequences]
    pointers = [width * sum(lengths[:number]) for number in range(len(lengths))]
    parts = [HEADER, struct.pack("<BQQ", code, len(lengths), len(firsts)), struct.pack(f"<{len(lengths)}i", *lengths)]
    parts += [struct.pack(f"<{len(pointers)}q", *pointers), struct.pack(f"<{len(firsts)}q", *firsts)]
    stem.with_name(stem.name + ".idx").write_bytes(b"".join(parts))


@pytest.mark.usefixtures("blocks_of_five")
def test_datatrove_to_megatron_and_back_are_the_bytes_of_their_own_writers(tmp_path: Path) -> None:
    source = write_ds(tmp_path / "a.ds", DOCUMENTS, metadata="gpt2|2\n907\n907 T")
    record = convert(source, tmp_path / "b", Settings(to_form="megatron"))
    assert (record["tokens"], record["documents"], record["dtype"]) == (907, 3, "uint16")
    write_indexed(tmp_path / "by_hand", DOCUMENTS, [0, 1, 2, 3])
    for ending in ("bin", "idx"):
        assert (tmp_path / f"b.{ending}").read_bytes() == (tmp_path / f"by_hand.{ending}").read_bytes()
    convert(tmp_path / "b.idx", tmp_path / "c.ds", Settings())
    for ending in ("ds", "ds.index"):
        assert (tmp_path / f"c.{ending}").read_bytes() == (tmp_path / f"a.{ending}").read_bytes()
    assert (tmp_path / "c.ds.metadata").read_text() == "unknown|2\n907\n907 T"
    assert not list(tmp_path.glob(".*"))  # no temporary file stays
    other = write_ds(tmp_path / "other.ds", [[7, 8], [9, 0, 500, 0], [1] * 900 + [0]])
    assert digest_of(open_datatrove(other)).hexdigest() != record["digest"]  # the same ids, other documents


@pytest.mark.usefixtures("blocks_of_five")
def test_documents_of_several_sequences_are_joined_and_wide_ids_stay(tmp_path: Path) -> None:
    write_indexed(tmp_path / "m", [[70_000, 1], [2], [], [3, 4, 5, 6, 7, 8], [9]], [0, 2, 3, 5], "i")
    record = convert(tmp_path / "m", tmp_path / "d.ds", Settings())
    assert (record["documents"], record["dtype"], len(record["notes"])) == (3, "uint32", 1)
    ids = np.frombuffer((tmp_path / "d.ds").read_bytes(), "<u4")
    assert ids.tolist() == [70_000, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert np.frombuffer((tmp_path / "d.ds.index").read_bytes(), "<u8").tolist() == [3, 3, 10]
    with pytest.raises(InputError, match="the id 70000 does not fit uint16"):
        convert(tmp_path / "m", tmp_path / "narrow.ds", Settings(dtype="uint16"))
    assert not list(tmp_path.glob("*narrow*"))
    with pytest.raises(InputError, match="stands there already"):
        convert(tmp_path / "m", tmp_path / "d.ds", Settings())


@pytest.mark.usefixtures("blocks_of_five")
def test_shards_go_out_and_come_back(tmp_path: Path) -> None:
    texts = [f"The pear number {number} is green." for number in range(40)]
    train_tokenizer(TokenizerRecipe(vocab_size=320), texts, tmp_path / "tokenizer")
    tokenize(TokensRecipe(shard_tokens=1_024), tmp_path / "tokenizer", "web", texts * 5, tmp_path / "web")
    ours = TokenShards.open(tmp_path / "web")
    assert ours.num_shards > 1
    settings = Settings(tokenizer=str(tmp_path / "tokenizer"), source="web", shard_tokens=1_024)
    convert(tmp_path / "web", tmp_path / "web.ds", settings)
    flat = np.frombuffer((tmp_path / "web.ds").read_bytes(), "<u2")
    assert flat.tolist() == np.concatenate(list(ours.documents())).tolist()
    convert(tmp_path / "web.ds", tmp_path / "mega.bin", settings)
    convert(tmp_path / "mega.bin", tmp_path / "back", settings)
    assert json.loads((tmp_path / "back" / "manifest.json").read_text()) == json.loads((tmp_path / "web" / "manifest.json").read_text())
    end = end_of_text_id(load_tokenizer(tmp_path / "tokenizer"))
    for documents, line in (
        ([[5, end], [5, 6]], "document 1 ends with the id 6"),
        ([[5, end], []], "document 1 is empty"),
        ([[9_999, end]], "9999 is not in the vocabulary"),
    ):
        bad = write_ds(tmp_path / "bad.ds", documents)
        with pytest.raises(InputError, match=line):
            convert(bad, tmp_path / "none", settings)
    with pytest.raises(InputError, match="--tokenizer"):
        convert(tmp_path / "web.ds", tmp_path / "none", Settings())
    assert not (tmp_path / "none").exists()
    tokens = tmp_path / "web" / "tokens-00000.bin"
    tokens.write_bytes(bytes([tokens.read_bytes()[0] ^ 1]) + tokens.read_bytes()[1:])
    with pytest.raises(InputError, match="SHA-256"):
        convert(tmp_path / "web", tmp_path / "none.ds", settings)


def test_damaged_token_files_are_refused_in_one_line(tmp_path: Path) -> None:
    def refused(path: Path, line: str) -> None:
        with pytest.raises(InputError, match=line) as caught:
            convert(path, tmp_path / "out.bin", Settings())
        assert "\n" not in str(caught.value)
        assert not list(tmp_path.glob("*out*"))

    source = write_ds(tmp_path / "a.ds", DOCUMENTS)
    whole = source.read_bytes()
    source.write_bytes(whole[:-2])
    refused(source, "truncated or damaged")
    source.write_bytes(whole)
    index = tmp_path / "a.ds.index"
    good = index.read_bytes()
    index.write_bytes(struct.pack("<3Q", 800, 6, 907))
    refused(source, "document ends must rise")
    index.write_bytes(good[:-1])
    refused(source, "no whole number of 8-byte ends")
    index.write_bytes(good)
    (tmp_path / "a.ds.metadata").write_text("gpt2|4\n907\n907 T")
    refused(source, "907 tokens of 4 bytes")
    (tmp_path / "a.ds.metadata").unlink()
    (tmp_path / "a.ds.loss").write_bytes(b"\x01" * 907)
    refused(source, "--ignore-loss-mask")
    assert convert(source, tmp_path / "kept.bin", Settings(ignore_loss_mask=True))["notes"] == ["a.ds.loss left behind"]
    index.unlink()
    refused(source, "ends of documents are unknown")

    write_indexed(tmp_path / "m", DOCUMENTS, [0, 1, 2, 3])
    idx, data = tmp_path / "m.idx", tmp_path / "m.bin"
    good = idx.read_bytes()
    for changed, line in (
        (good[:-1], "the file is truncated"),
        (good[:20], "does not begin like"),
        (good + b"\x00", "modes of sequences"),
        (good[:17] + b"\x05" + good[18:], "ids of type 5"),
        (good[:34] + struct.pack("<i", 5) + good[38:], "without gaps"),
        (good[:-8] + struct.pack("<q", 2), "rising sequences"),
    ):
        idx.write_bytes(changed)
        refused(tmp_path / "m", line)
    idx.write_bytes(good)
    data.write_bytes(data.read_bytes()[:-1])
    refused(tmp_path / "m", "truncated")
    data.unlink()
    refused(tmp_path / "m", "no such file")
    refused(tmp_path / "nothing", "--from FORM tells it")
    (tmp_path / "x.jsonl").write_text('{"text": "a"}\n')
    refused(tmp_path / "x.jsonl", "documents")


@pytest.mark.parametrize(
    ("tokens", "words"), [(0, "0.00 T"), (907, "907 T"), (12_345, "12.3 kT"), (9_996, "10.0 kT"), (3_100_000_000, "3.10 GT")]
)
def test_counts_in_words(tokens: int, words: str) -> None:
    assert in_words(tokens) == words
