"""The settings of [collect] and [web]: where pages come from, and which are kept."""

from pydantic import Field, field_validator, model_validator

from data_pipeline.quality.recipe import QualityRecipe
from data_pipeline.recipe import Section
from data_pipeline.web.decontamination.recipe import Decontamination
from data_pipeline.web.duplicates.recipe import Duplicates
from data_pipeline.web.reading import ReadLimits
from data_pipeline.web.repeated_lines import LineRules
from data_pipeline.web.thresholds import CleanThresholds, Thresholds
from data_pipeline.web.url_rules import AddressRules

USUAL = {"en", "de", "fr", "es"}  # known without a look at the language models, which take a second to load


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


class WebRecipe(Section):
    """[web]: raw pages to kept, dropped and held-out documents."""

    languages: tuple[str, ...] = Field(default=("en",), description="ISO 639-1 codes that are kept; empty keeps all")
    max_language_distance: int = Field(default=1000, ge=1, description="how far a page may be from its language's profile (0 is nearest)")
    language_margin: int = Field(default=20, ge=0, description="a kept language is taken when it is this near to the nearest one")
    drop_noindex: bool = Field(default=True, description="drop pages that ask robots not to keep them, in a header or in their own head")
    c4_braces: bool = Field(default=True, description="C4: drop pages with a curly brace; off for technical pages, where braces are text")
    c4_lorem_ipsum: bool = Field(default=True, description="C4: drop pages with placeholder text")
    drop_repeated_paragraphs: bool = Field(default=False, description="remove paragraphs that stood on the page before, then measure")
    mask_personal_data: bool = Field(default=True, description="e-mail, phone, IP, card numbers and IBANs become <email>, <phone>, ...")
    rules: Thresholds = Thresholds()
    clean: CleanThresholds = CleanThresholds()
    duplicates: Duplicates = Duplicates()
    lines: LineRules = LineRules()
    held_out: float = Field(default=0.03, ge=0, le=0.5, description="share of kept pages that training never sees")
    limits: ReadLimits = ReadLimits()
    addresses: AddressRules = AddressRules()
    quality: QualityRecipe = QualityRecipe()
    decontamination: Decontamination = Decontamination()
    page_seconds: float = Field(default=30.0, gt=0, le=600, description="CPU seconds after which the worker on one page is killed")
    workers: int = Field(default=0, ge=0, le=1024, description="processes; 0 for one per core")
    samples: int = Field(default=3, ge=0, le=20, description="sample pages per drop reason in funnel.json")

    @field_validator("languages")
    @classmethod
    def known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """A name that no page can have would drop every page without a word."""
        unknown = [code for code in value if code not in USUAL]
        if unknown:
            from data_pipeline.web.language import known_languages

            for code in unknown:
                if code not in known_languages():
                    raise ValueError(f"no language {code!r} is told apart; codes of ISO 639-1 are needed, for example en, de, zh")
        return value

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
