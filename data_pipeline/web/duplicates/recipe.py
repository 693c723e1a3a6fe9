"""The settings of [web.duplicates]."""

from pydantic import Field

from data_pipeline.recipe import Section


class Duplicates(Section):
    """Near-duplicates by MinHash: 5-word shingles, `bands` bands of `rows` values; with 14 and 8 pairs above 0.75 are found."""

    one_per_address: bool = Field(default=True, description="of the pages of one address the one fetched last stays")
    shingle_words: int = Field(default=5, ge=1, le=20)
    bands: int = Field(default=14, ge=1, le=256)
    rows: int = Field(default=8, ge=1, le=64)
    threshold: float = Field(default=0.7, gt=0, le=1, description="estimated Jaccard similarity from which two pages are the same")
    leaders: int = Field(
        default=128, ge=1, le=10_000, description="how many unlike pages of one band a page is compared with; more are found by other bands"
    )
