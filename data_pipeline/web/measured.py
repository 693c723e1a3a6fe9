"""One page to all that can be measured of it alone: text, language, values, keys. Thresholds are applied later, to what is stored."""

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from data_pipeline.web.duplicates import signature, text_key
from data_pipeline.web.extract import extract_page
from data_pipeline.web.language import Language, decided_language
from data_pipeline.web.measures import Values, measure
from data_pipeline.web.page_tools import PageTools, tools_of
from data_pipeline.web.personal_data import mask
from data_pipeline.web.reading import Page
from data_pipeline.web.recipe import WebRecipe
from data_pipeline.web.rejection import Rejection
from data_pipeline.web.same_address import address_key
from data_pipeline.web.without_repeats import without_repeats

if TYPE_CHECKING:
    from data_pipeline.quality.model import Score


@dataclass(frozen=True)
class Measured:
    """A page as it is stored. `problem` is why there was nothing to measure: a status, a size, a blocked address."""

    page: Page  # without its bytes
    html_bytes: int
    domain: str
    text: str = ""
    language: Language = field(default_factory=lambda: Language("", 0))
    extraction: str = "none"
    values: Values | None = None
    problem: Rejection | None = None
    personal: dict[str, int] = field(default_factory=dict)
    text_key: bytes = b""
    address_key: bytes | None = None
    signature: bytes | None = None  # uint32 [bands * rows]
    hits: bytes = b""  # n-grams in common with benchmark items
    quality: "Score | None" = None


def measure_page(recipe: WebRecipe, page: Page) -> Measured:
    """Everything about one page; a pure function of the page, the recipe and the files that the recipe names."""
    tools = tools_of(recipe)
    size = size_of(page)
    domain, bare = tools.domain(page.url), replace(page, html=b"", text="")
    problem = problem_of(recipe, tools, page)
    if problem is not None:
        return Measured(bare, size, domain, problem=problem)
    text, how, link_density = text_of(page)
    if recipe.drop_repeated_paragraphs:
        text = without_repeats(text)
    text, personal = mask(text) if recipe.mask_personal_data else (text, Counter())
    values, hashes = measure(text, link_density)
    return Measured(
        bare,
        size,
        domain,
        text,
        decided_language(text, recipe.languages, recipe.language_margin, recipe.max_language_distance),
        how,
        values,
        None,
        dict(personal),
        text_key(text),
        address_key(page.url) if page.url else None,
        signature(hashes, recipe.duplicates).tobytes() if len(hashes) else None,
        tools.hits(hashes),
        tools.quality(text),
    )


def size_of(page: Page) -> int:
    """Bytes of what the record holds: HTML, or text where it came as text."""
    return len(page.html) if page.html else len(page.text.encode("utf-8", "surrogatepass"))


def warm_up(recipe: WebRecipe) -> None:
    """Loads what measuring needs, and compiles what this machine has not compiled yet, before any page's seconds are counted."""
    words = "The first page of all is short and of no use to anyone; it has words, and that is enough for it. "
    measure_page(recipe, Page("", "http://example.org/", f"<html><body><h1>One</h1><p>{words * 4}</p></body></html>".encode(), ""))


def problem_of(recipe: WebRecipe, tools: PageTools, page: Page) -> Rejection | None:
    """Why nothing is measured of a page, asked before its text is looked for."""
    if page.problem:
        limit = {"too_large": float(recipe.limits.max_page_bytes), "http_status": 299.0}.get(page.problem, 0.0)
        return Rejection(page.problem, page.problem, page.value, limit)
    return tools.refused_address(page.url)


def text_of(page: Page) -> tuple[str, str, float]:
    """The page's text, how it was found, and the share of its characters that are links; what came as text is taken as it is."""
    if page.text:
        return page.text, "as text", 0.0
    found = extract_page(page.html, page.charset, page.url or None)
    return found.text, f"{found.method} ({found.why})" if found.why else found.method, found.link_density
