"""The settings of [web.decontamination]."""

from pydantic import Field

from data_pipeline.recipe import Section


class Decontamination(Section):
    """[web.decontamination]: which benchmarks are searched for, and what counts as finding an item. No benchmarks, no search."""

    benchmarks: tuple[str, ...] = Field(default=(), description="folders of benchmark files; every form that benchmark_items reads")
    words: int = Field(default=13, ge=9, le=64, description="one n-gram of so many words in common is evidence; GPT-3: 13")
    coverage_words: int = Field(default=8, ge=4, le=32, description="n-grams of so many words make up the coverage of an item")
    coverage: float = Field(default=0.5, gt=0, le=1, description="share of an item's words in short n-grams on one page that is evidence")
    near_coverage: float = Field(default=0.25, gt=0, le=1, description="from this share on a page is noted as a near hit")
    min_coverage_grams: int = Field(default=2, ge=1, description="coverage is evidence only with so many short n-grams found")
    whole_coverage: float = Field(
        default=0.9, gt=0, le=1, description="share of a question's own words that is evidence however common its n-grams are"
    )
    max_document_frequency: int = Field(default=20, ge=1, description="an n-gram on more pages of the crawl than this is no evidence")
    max_item_frequency: int = Field(default=10, ge=1, description="an n-gram of more items of one task than this is its wording")
    answer_words: int = Field(default=3, ge=1, description="a near hit beside an answer of at least so many words is evidence")
    answer_window: int = Field(default=50, ge=0, le=10_000, description="words before and after the found n-grams in which it is searched")
