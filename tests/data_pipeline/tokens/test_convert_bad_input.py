"""Broken or unfit vocabularies are one line that names the place, and nothing is written."""

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

import phial
from data_pipeline.errors import InputError
from data_pipeline.tokens.convert import Source, build_tokenizer
from data_pipeline.tokens.members import MEMBERS
from data_pipeline.tokens.merges import greedy, merge_pairs, run_pairs
from data_pipeline.tokens.sentencepiece_model import read_sentencepiece
from tests.data_pipeline.tokens.small_vocabularies import field, learnt_ranks, piece, sentencepiece_file, tiktoken_file

SP = "\u2581"
GOOD = [("ab", -1.0), ("a", -2.0), ("b", -3.0), (SP, -4.0)]
RANKS = {bytes([byte]): byte for byte in range(256)}

BAD_MODELS = {
    "type BPE is needed, got unigram": sentencepiece_file(GOOD, model_type=1),
    "with byte fallback is needed": sentencepiece_file(GOOD, byte_fallback=0),
    "<0x41> is missing \\(1 in all\\)": sentencepiece_file(GOOD, skip=0x41),
    "keeps repeated blanks": sentencepiece_file(GOOD, extra_blanks=1),
    "leaves text as it is": sentencepiece_file(GOOD, rules=b"map"),
    "repeats piece 259": sentencepiece_file([*GOOD, ("ab", -9.0)]),
    "is user-defined": sentencepiece_file(GOOD) + piece("X", 0, 4),
    "one unknown piece is needed, got 2": sentencepiece_file(GOOD) + piece("X", 0, 2),
    "is cut off": sentencepiece_file(GOOD)[:-3],
    "no pieces in it": field(9, b"something else"),
    "not a SentencePiece model": b"\x0f\xff\xff",
    "263 entries, mini has 32,000": sentencepiece_file(GOOD),
    "empty; a SentencePiece model": b"",
    "a tiktoken file; mini has": tiktoken_file(RANKS),
    "not a tokenizer \\(": b"{}",
    "a BPE tokenizer is needed, got WordLevel": Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>")).to_str().encode(),
    "a BPE tokenizer is needed, got Unigram": Tokenizer(models.Unigram([("<unk>", 0.0)], 0)).to_str().encode(),
    "piece 259 \\('ab'\\) has the score nan": sentencepiece_file([("ab", math.nan), *GOOD[1:]]),
    "piece 262 \\('\u2581'\\) has the score -inf": sentencepiece_file([*GOOD[:-1], (SP, -math.inf)]),
}
BAD_RANKS = {
    "line 257: not base64 \\(abc": tiktoken_file(RANKS) + b"abc 256\n",
    "line 257: a token in base64, a blank and a rank": tiktoken_file(RANKS) + b"YWI= x\n",
    "line 257: rank 255 is that of line 256 too": tiktoken_file(RANKS) + b"YWI= 255\n",
    "line 257: token b'a' has rank 97 already": tiktoken_file(RANKS) + b"YQ== 256\n",
    "0x07 is missing \\(1 in all\\)": tiktoken_file({token: rank for token, rank in RANKS.items() if rank != 7}),
    "without a gap; 256 is missing": tiktoken_file(RANKS | {b"ab": 257}),
    "a rank below": tiktoken_file(RANKS) + b"YWI= 99999999999999999999\n",
    "256 entries, small has 100,256": tiktoken_file(RANKS),
    "not a tiktoken file": sentencepiece_file(GOOD),
}


@pytest.mark.parametrize(("member", "said", "content"), [
    *(("mini", said, content) for said, content in BAD_MODELS.items()),
    *(("small", said, content) for said, content in BAD_RANKS.items()),
])  # fmt: skip
def test_one_line_and_exit_code_2(member: str, said: str, content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "source").write_bytes(content)
    arguments = ["tokenizer", "convert", str(tmp_path / "source"), str(tmp_path / "out"), "--member", member]
    assert phial.run(arguments) == 2
    told = capsys.readouterr().err
    assert re.search(said, told)
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([("xa", -5.0)], "joined from 'x', which is no piece"),
        ([("ba", -1.0), ("aba", -8.0)], "equal scores, so their merges have no order"),
        ([("ba", -9.0), ("bb", -9.0)], "must be runs of one character"),
    ],
)
def test_merges_that_pairs_cannot_say(more: list[tuple[str, float]], said: str) -> None:
    model = sentencepiece_file([*GOOD, *more])
    with pytest.raises(InputError, match=said):
        build_tokenizer(Source(Path("given"), model), replace(MEMBERS["mini"], entries=263 + len(more)))


def test_paths_and_members(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for source, member, said in [
        ("nowhere", "mini", "no such file"),
        (".", "mini", "has no tokenizer.json"),
        (".", "huge", "--member: one of"),
    ]:
        assert phial.run(["tokenizer", "convert", str(tmp_path / source), str(tmp_path / "out"), "--member", member]) == 2
        assert said in capsys.readouterr().err


def test_every_cut_of_a_model_is_refused() -> None:
    content = sentencepiece_file(GOOD)
    assert len(read_sentencepiece(content, "given").pieces) == 263
    for end in [*range(0, 200, 3), *range(len(content) - 12, len(content))]:
        with pytest.raises(InputError, match="given"):
            read_sentencepiece(content[:end], "given")


def test_pairs_join_as_ranks_do() -> None:
    """One pair per entry encodes as the ranks themselves; without the last pair it does not."""
    ranks = learnt_ranks(300)
    pairs = merge_pairs(ranks)
    order = {pair: number for number, pair in enumerate(pairs)}
    never = 1 << 62
    texts = [text.encode() for text in ("again and again", "東京 こんにちは", "  def add(a, b):", "doesn't", "ababab")]
    for text in texts:
        by_ranks = greedy(text, lambda left, right: ranks.get(left + right, never))
        assert greedy(text, lambda left, right: order.get((left, right), never)) == by_ranks
    used = next(pair for pair in pairs if pair[0] + pair[1] in greedy(texts[0], lambda left, right: ranks.get(left + right, never)))
    without = greedy(texts[0], lambda left, right: order.get((left, right), never) if (left, right) != used else never)
    assert without != greedy(texts[0], lambda left, right: ranks.get(left + right, never))


def test_runs_of_equal_rank() -> None:
    pairs = run_pairs([SP * 2, SP * 3, SP * 4], ["ab"], "given")
    assert pairs[-1] == (SP, SP)
    assert (SP * 3, SP) in pairs
    for runs, others in [(["ab", "cd"], []), ([SP * 2, SP * 3], [SP * 2 + "x"])]:
        with pytest.raises(InputError, match="runs of one character"):
            run_pairs(runs, others, "given")
