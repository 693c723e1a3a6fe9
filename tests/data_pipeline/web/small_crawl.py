"""A small crawl of several files, one of them damaged, and a way to measure it without processes."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.web import measure_crawl, segments
from data_pipeline.web.recipe import Thresholds, WebRecipe
from data_pipeline.web.warc_writer import WarcWriter

RULES = Thresholds(min_words=10, min_sentences=0)
RECIPE = WebRecipe(workers=1, languages=(), rules=RULES, held_out=0.1)
TEXT = "the river and the hill have a road that goes to the old town with its market where people come to buy bread"
WORDS = TEXT.split(" ")


def page(number: int) -> str:
    text = " ".join(WORDS[(number * step) % len(WORDS)] + ("s" if (number + step) % 5 == 0 else "") for step in range(1, 60))
    return f"<html><body><h1>Page {number}</h1><p>It is page {number} of the town. {text}.</p><p>{text[::-1][:80]}. Number {number}.</p>"


def write_crawl(folder: Path, files: int = 3, pages: int = 9) -> Path:
    folder.mkdir()
    for file in range(files):
        with open(folder / f"part-{file}.warc.gz", "wb") as stream:
            writer = WarcWriter(stream, "made by a test")
            for number in range(pages):
                writer.response(f"http://example.org/{file}/{number}", page(file * 100 + number).encode())
    data = (folder / "part-1.warc.gz").read_bytes()
    (folder / "part-1.warc.gz").write_bytes(data[:-200])  # a damage in the middle of the crawl
    return folder


class Inline:
    """Measures pages in this process; deaths of workers are tested with the pool itself, and below with a killed build."""

    def __init__(self, function: Callable[[Any, Any], Any], setting: Any, *limits: float, prepare: Any = None) -> None:
        self.function = function
        self.setting = setting

    def map(self, tasks: Iterator[Any]) -> Iterator[Any]:
        return (self.function(self.setting, task) for task in tasks)


def make_small(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(segments, "ROWS", 4)
    patch.setattr(measure_crawl, "Pool", Inline)
