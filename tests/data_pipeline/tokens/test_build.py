"""The two token verbs on a run folder: what they read, what they write, and which verb they ask for when something is missing."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import phial
from data_pipeline.errors import InputError
from data_pipeline.records import Document, write_documents
from data_pipeline.run_folder import RunFolder
from data_pipeline.storage import write_json_lines
from data_pipeline.tokens.build import tokenize_run
from data_pipeline.tokens.recipe import TokensRecipe
from data_pipeline.tokens.shards import TokenShards


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder.open(tmp_path / "run")
    run.web.mkdir()
    pages = {"id": ["a", "b", "c"], "text": ["hello world " * 9, "menu " * 9, "clean page " * 9], "clean": [True, False, True]}
    pq.write_table(pa.table(pages), run.web / "kept.parquet")
    write_documents(run.synthetic / "documents.parquet", [Document(id="s", text="1 + 1 = 2 " * 9, source="synthetic")])
    turns = [{"role": "user", "content": "how much?"}, {"role": "assistant", "content": "xyzzy " * 9}]
    write_json_lines(run.synthetic / "sft.jsonl", [{"messages": turns, "family": "sums"}])
    (tmp_path / "r.toml").write_text("[tokenizer]\nvocab_size = 384\n", encoding="utf-8")
    return run


def verb(run: RunFolder, *words: str) -> int:
    return phial.run([*words[:2], str(run.root.parent / "r.toml"), "--out", str(run.root), *words[2:]])


def test_both_verbs(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert verb(run, "tokenizer", "train") == 0
    shown = capsys.readouterr().out
    assert "from 6 texts" in shown  # three pages, one lesson, two turns
    assert "384 was asked for" in shown  # a smaller vocabulary is said aloud
    assert verb(run, "data", "tokenize", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert {source: one["documents"] for source, one in facts.items()} == {"web": 3, "web_clean": 2, "synthetic": 1}
    for source, one in facts.items():
        assert TokenShards.open(run.tokens / source, verify=True).num_tokens == one["tokens"]
    assert facts["web"]["text_bytes"] == len("hello world " * 9 + "menu " * 9 + "clean page " * 9)
    assert "vocab_size = 384" in run.recipe.read_text(encoding="utf-8")


def test_missing_stages_name_their_verb(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert verb(run, "data", "tokenize") == 2
    assert "run `phial tokenizer train` first" in capsys.readouterr().err
    assert verb(run, "tokenizer", "train") == 0
    (run.synthetic / "documents.parquet").unlink()
    capsys.readouterr()
    assert verb(run, "data", "tokenize") == 2
    assert "run `phial data synthesize` first" in capsys.readouterr().err
    assert not run.tokens.exists()  # seen before the first source was written
    assert verb(run, "data", "tokenize", "--set", "tokens.sources=['web']") == 0
    (run.web / "kept.parquet").unlink()
    assert verb(run, "data", "tokenize", "--set", "tokens.sources=['web']") == 2
    assert "run `phial data build` first" in capsys.readouterr().err
    (run.synthetic / "sft.jsonl").unlink()
    assert verb(run, "tokenizer", "train") == 2
    assert "run `phial data build` or `phial data synthesize` first" in capsys.readouterr().err


def test_damaged_inputs(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert verb(run, "tokenizer", "train") == 0
    pq.write_table(pa.table({"id": ["a"], "text": ["x"]}), run.web / "kept.parquet")
    with pytest.raises(InputError, match="no column 'clean'; text and clean needed, got id, text"):
        tokenize_run(TokensRecipe(sources=("web_clean",)), run)
    (run.web / "kept.parquet").write_bytes(b"no")
    with pytest.raises(InputError, match="not a Parquet file"):
        tokenize_run(TokensRecipe(sources=("web",)), run)
    before = (run.tokenizer / "tokenizer.json").read_bytes()
    (run.synthetic / "sft.jsonl").write_text('{"messages": [{"role": "user"}]}\n', encoding="utf-8")
    pq.write_table(pa.table({"id": ["a"], "text": ["x"]}), run.web / "kept.parquet")
    assert verb(run, "tokenizer", "train") == 2
    assert "sft.jsonl, row 1: messages must be a list of turns" in capsys.readouterr().err
    assert (run.tokenizer / "tokenizer.json").read_bytes() == before
