"""The settings of [collect] and [web]: where pages come from, and which are kept."""

from pydantic import Field, field_validator, model_validator

from data_pipeline.recipe import Section


class CollectRecipe(Section):
    """[collect]: an own crawl, or the standard library's pages with generated bad ones mixed in."""

    warc: tuple[str, ...] = Field(
        default=(),
        description="web data, or lists of it (*.paths[.gz]): paths, URLs, globs; empty for the standard library's pages",
    )
    prefix: str = Field(default="", description="what relative lines of a list are below; empty for the list's own host or folder")
    bad_pages: bool = Field(default=True, description="mix generated pages in whose right verdict is known (standard library's pages only)")
    spam: int = Field(default=12, ge=0, le=10_000, description="pages that repeat a few phrases")
    menus: int = Field(default=10, ge=0, le=10_000, description="pages of links and nothing else")
    exact_copies: int = Field(default=10, ge=0, le=10_000, description="real pages once more, under another address")
    near_copies: int = Field(default=10, ge=0, le=10_000, description="real pages with a few words changed")
    foreign: int = Field(default=12, ge=0, le=10_000, description="pages in German, French and Spanish")
    personal: int = Field(default=12, ge=0, le=10_000, description="good pages with an e-mail address, a phone number and the like in them")
    stubs: int = Field(default=8, ge=0, le=10_000, description="pages of one or two sentences")
    symbols: int = Field(default=6, ge=0, le=10_000, description="pages of hash tags")
    module_seconds: float = Field(default=20.0, gt=0, le=600, description="CPU seconds that one module may take to import and render")

    @field_validator("warc", mode="before")
    @classmethod
    def one_or_many(cls, value: object) -> object:
        """A single name may stand without brackets."""
        return ((value,) if value else ()) if isinstance(value, str) else value


class Thresholds(Section):
    """What a page must satisfy. Defaults are those published for Gopher, C4 and FineWeb where there is one."""

    min_words: int = Field(default=50, ge=0, description="Gopher: 50")
    max_words: int = Field(default=100_000, ge=1, description="Gopher: 100,000")
    min_mean_word_length: float = Field(default=3.0, ge=0, le=100, description="Gopher: 3 characters")
    max_mean_word_length: float = Field(default=10.0, gt=0, le=100, description="Gopher: 10 characters")
    max_symbol_ratio: float = Field(default=0.1, ge=0, description="hash marks or ellipses per word; Gopher: 0.1")
    max_bullet_lines: float = Field(default=0.9, ge=0, le=1, description="share of lines that begin with a bullet; Gopher: 0.9")
    max_ellipsis_lines: float = Field(default=0.3, ge=0, le=1, description="share of lines that end with an ellipsis; Gopher: 0.3")
    min_alphabetic_words: float = Field(default=0.8, ge=0, le=1, description="share of words with a letter in them; Gopher: 0.8")
    min_stop_words: int = Field(default=2, ge=0, le=8, description="how many of the, be, to, of, and, that, have, with appear; Gopher: 2")
    max_duplicate_lines: float = Field(default=0.3, ge=0, le=1, description="share of lines seen before on the page; Gopher: 0.3")
    max_duplicate_line_characters: float = Field(default=0.2, ge=0, le=1, description="the same in characters; Gopher: 0.2")
    max_duplicate_paragraphs: float = Field(default=0.3, ge=0, le=1, description="share of paragraphs seen before; Gopher: 0.3")
    max_duplicate_paragraph_characters: float = Field(default=0.2, ge=0, le=1, description="the same in characters; Gopher: 0.2")
    max_top_2gram: float = Field(default=0.20, ge=0, le=1, description="share of characters in the commonest 2-gram; Gopher: 0.20")
    max_top_3gram: float = Field(default=0.18, ge=0, le=1, description="Gopher: 0.18")
    max_top_4gram: float = Field(default=0.16, ge=0, le=1, description="Gopher: 0.16")
    max_duplicate_5grams: float = Field(default=0.15, ge=0, le=1, description="share of characters in repeated 5-grams; Gopher: 0.15")
    max_duplicate_10grams: float = Field(default=0.10, ge=0, le=1, description="share of characters in repeated 10-grams; Gopher: 0.10")
    min_line_ends: float = Field(default=0.12, ge=0, le=1, description="share of lines that end in punctuation; FineWeb: 0.12")
    max_short_lines: float = Field(default=0.67, ge=0, le=1, description="share of lines of 30 characters or fewer; FineWeb: 0.67")
    max_newline_ratio: float = Field(default=0.3, ge=0, description="line breaks per word; FineWeb: 0.3")
    max_link_density: float = Field(default=0.8, ge=0, le=1, description="share of the page's characters that are links")


class CleanThresholds(Thresholds):
    """The stricter rules of the `clean` subset, which the second phase of pretraining reads."""

    min_words: int = Field(default=100, ge=0)
    max_duplicate_lines: float = Field(default=0.2, ge=0, le=1)
    max_duplicate_5grams: float = Field(default=0.12, ge=0, le=1)
    min_stop_words: int = Field(default=4, ge=0, le=8)
    max_link_density: float = Field(default=0.4, ge=0, le=1)


class Duplicates(Section):
    """Near-duplicates by MinHash: 5-word shingles, `bands` bands of `rows` values; with 14 and 8 pairs above 0.75 are found."""

    shingle_words: int = Field(default=5, ge=1, le=20)
    bands: int = Field(default=14, ge=1, le=256)
    rows: int = Field(default=8, ge=1, le=64)
    threshold: float = Field(default=0.7, gt=0, le=1, description="estimated Jaccard similarity from which two pages are the same")


class WebRecipe(Section):
    """[web]: raw pages to kept, dropped and held-out documents."""

    languages: tuple[str, ...] = Field(default=("en",), description="ISO 639-1 codes that are kept; empty keeps all")
    max_language_distance: int = Field(default=1000, ge=1, description="how far a page may be from its language's profile (0 is nearest)")
    language_margin: int = Field(default=20, ge=0, description="a kept language is taken when it is this near to the nearest one")
    c4_braces: bool = Field(default=True, description="C4: drop pages with a curly brace; off for technical pages, where braces are text")
    c4_lorem_ipsum: bool = Field(default=True, description="C4: drop pages with placeholder text")
    drop_repeated_paragraphs: bool = Field(default=False, description="remove paragraphs that stood on the page before, then measure")
    mask_personal_data: bool = Field(default=True, description="e-mail, phone, IP, card numbers and IBANs become <email>, <phone>, ...")
    rules: Thresholds = Thresholds()
    clean: CleanThresholds = CleanThresholds()
    duplicates: Duplicates = Duplicates()
    held_out: float = Field(default=0.03, ge=0, le=0.5, description="share of kept pages that training never sees")
    max_page_bytes: int = Field(default=8_000_000, ge=1_000, description="larger pages are dropped unread")
    page_seconds: float = Field(default=30.0, gt=0, le=600, description="CPU seconds after which the worker on one page is killed")
    workers: int = Field(default=0, ge=0, le=1024, description="processes; 0 for one per core")
    samples: int = Field(default=3, ge=0, le=20, description="sample pages per drop reason in funnel.json")

    @model_validator(mode="after")
    def check_bounds(self) -> "WebRecipe":
        for name, rules in (("rules", self.rules), ("clean", self.clean)):
            if rules.min_words > rules.max_words:
                raise ValueError(f"{name}.min_words = {rules.min_words} is above {name}.max_words = {rules.max_words}")
            if rules.min_mean_word_length > rules.max_mean_word_length:
                raise ValueError(
                    f"{name}.min_mean_word_length = {rules.min_mean_word_length} is above "
                    f"{name}.max_mean_word_length = {rules.max_mean_word_length}"
                )
        return self
