"""`--split`: scores on clean and dirty items come from the same rows as the whole score."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from data_pipeline.errors import InputError
from data_pipeline.web.decontamination.decide import decide
from data_pipeline.web.decontamination.index import BenchmarkIndex
from data_pipeline.web.decontamination.recipe import Decontamination
from data_pipeline.web.decontamination.report import write_contamination
from eval import evaluate
from eval.commands import contamination_lines
from eval.contamination import by_contamination, read_split


def test_clean_and_dirty_are_parts_of_the_whole(make_model: Callable[..., Path], data_folder: Path, tmp_path: Path) -> None:
    """The lists that decontamination writes of the same folder name the items as evaluation does."""
    index = BenchmarkIndex.build(data_folder, Decontamination())
    document = json.loads((data_folder / "documents.jsonl").read_text(encoding="utf-8").splitlines()[1])["text"]
    verdicts = decide(index, [index.match_text(f"Seen elsewhere. {document}")])
    write_contamination(tmp_path / "found", index, verdicts, str, 1)
    tasks = ["exercises", "bits_per_byte", "mmlu"]
    model = make_model()
    results = evaluate(model, tasks, data_folder, tmp_path / "out", split=tmp_path / "found", max_new_tokens=2)["tasks"]
    texts = results["bits_per_byte"]
    assert sum(texts[part]["items"] for part in ("clean", "dirty", "unchecked")) == texts["items"] == 4
    assert texts["dirty"]["items"] >= 1
    rows = [json.loads(line) for line in (tmp_path / "out" / "items.jsonl").read_text(encoding="utf-8").splitlines()]
    dirty = set(json.loads((tmp_path / "found" / "split" / "bits_per_byte.json").read_text())["splits"][""]["dirty"])
    mine = [row for row in rows if row["task"] == "bits_per_byte" and row["id"] in dirty]
    bits = sum(row["bits_per_byte"] * row["bytes"] for row in mine) / sum(row["bytes"] for row in mine)
    assert texts["dirty"]["score"] == pytest.approx(bits)
    assert results["mmlu"]["unchecked"]["items"] == 12  # questions of four words
    assert results["mmlu"]["clean"] == {"items": 0}
    assert results["mmlu"]["unchecked"]["score"] == results["mmlu"]["score"]
    (tmp_path / "found" / "split" / "mmlu.json").unlink()
    without = evaluate(model, ["mmlu"], data_folder, tmp_path / "out", split=tmp_path / "found" / "split", max_new_tokens=2)["tasks"][
        "mmlu"
    ]
    assert contamination_lines("mmlu", without) == ["mmlu: no list of clean and dirty items for this task"]


def test_lists_of_other_files_are_refused(tmp_path: Path) -> None:
    rows = [{"id": "a"}, {"id": "b"}]
    with pytest.raises(InputError, match="no item 'b'"):
        by_contamination("exercises", rows, {"a": "clean"}, lambda some: {})
    with pytest.raises(InputError, match="no such folder"):
        read_split(tmp_path / "none", "mmlu")
    assert read_split(tmp_path, "mmlu") is None
    (tmp_path / "mmlu.json").write_text(json.dumps({"format": 1, "splits": {"dev": {}}}))
    with pytest.raises(InputError, match="of the split 'test'"):
        read_split(tmp_path, "mmlu")
    told = contamination_lines("t", {"clean": {"items": 2, "score": 0.5, "standard_error": 0.1}, "dirty": {"items": 0}})
    assert told == ["t: clean 0.5000 ± 0.1000 (2 items), dirty 0 items"]
