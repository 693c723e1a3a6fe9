"""One page to one judged document: extraction, personal data, language, measured values, rules, signature. A pure function of the page."""

import re
from dataclasses import dataclass, field

import numpy as np

from data_pipeline.web.duplicates import signature, text_key
from data_pipeline.web.extract import extract_page
from data_pipeline.web.language import Language, decided_language, language_of
from data_pipeline.web.measures import Values, measure
from data_pipeline.web.personal_data import mask
from data_pipeline.web.recipe import WebRecipe
from data_pipeline.web.rules import Rejection, first_rejection, rules_of, threshold_rules
from data_pipeline.web.warc_reader import Page

__all__ = ["Judged", "judge", "language_of"]

PARAGRAPHS = re.compile(r"\n[^\S\n]*\n")


@dataclass(frozen=True)
class Judged:
    """A page after everything that can be said about it alone."""

    id: str
    url: str
    html_bytes: int
    text: str = ""
    language: str = ""
    language_distance: int = 0
    extraction: str = "none"
    values: Values | None = None
    rejection: Rejection | None = None
    clean: bool = False
    personal: dict[str, int] = field(default_factory=dict)
    key: bytes = b""
    signature: np.ndarray | None = None


def judge(recipe: WebRecipe, page: Page) -> Judged:
    """The page's text, values and verdict; duplicates are found later, over all pages."""
    if page.problem:
        return Judged(page.id, page.url, 0, rejection=Rejection(page.problem, page.problem, page.value, limit_of(page, recipe)))
    extraction = extract_page(page.html, page.charset, page.url or None)
    how = f"{extraction.method} ({extraction.why})" if extraction.why else extraction.method
    text = without_repeats(extraction.text) if recipe.drop_repeated_paragraphs else extraction.text
    text, personal = mask(text) if recipe.mask_personal_data else (text, {})
    values, hashes = measure(text, extraction.link_density)
    language = decided_language(text, recipe.languages, recipe.language_margin, recipe.max_language_distance)
    rejection = refuse_text(recipe, text, values, language) or first_rejection(rules_of(recipe), values)
    kept = rejection is None
    return Judged(
        page.id,
        page.url,
        len(page.html),
        text,
        language.code,
        language.distance,
        how,
        values,
        rejection,
        kept and first_rejection(threshold_rules(recipe.clean), values) is None,
        dict(personal),
        text_key(text) if kept else b"",
        signature(hashes, recipe.duplicates) if kept else None,
    )


def without_repeats(text: str) -> str:
    """The text without the paragraphs that stood in it before: reference pages list the same inherited methods under every class."""
    return "\n\n".join(dict.fromkeys(part.strip("\n") for part in PARAGRAPHS.split(text)))


def limit_of(page: Page, recipe: WebRecipe) -> float:
    """The threshold behind a page's problem."""
    return {"too_large": float(recipe.max_page_bytes), "http_status": 299.0}.get(page.problem, 0.0)


def refuse_text(recipe: WebRecipe, text: str, values: Values, language: Language) -> Rejection | None:
    """No text, a menu, too little text to tell its language, or a language that is not kept: asked before the rules."""
    if values.link_density > recipe.rules.max_link_density:
        return Rejection("link_density", "link_density", values.link_density, recipe.rules.max_link_density)
    if not text:
        return Rejection("no_text", "characters", 0.0, 1.0)
    if values.words < recipe.rules.min_words:
        return Rejection("too_short", "words", float(values.words), float(recipe.rules.min_words))
    far = language.distance > recipe.max_language_distance and not language.second
    if recipe.languages and (language.code not in recipe.languages or far):
        return Rejection("language", language.code, float(language.distance), float(recipe.max_language_distance))
    return None
