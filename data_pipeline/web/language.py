"""The language of a text: resiliparse's letter profiles, and where those are nearly undecided a second opinion by py3langid's model."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from resiliparse.parse.lang import detect_fast, supported_langs

NO_CUTOFF = 1_000_000
SECOND_OPINION_CHARACTERS = 2_000
SHORT_TEXT = 300  # characters; below, letter profiles rest on too few letters
NEAR_LIMIT = 0.1  # distances from this share below the largest allowed one up to this share above it are near


@dataclass(frozen=True)
class Language:
    """The language that was decided on, and what the second opinion said: empty where it was not asked; where it was asked, it decided.

    `code` is ISO 639-1, `distance` the distance to its letter profile: 0 is nearest, -1 says that it has none.
    """

    code: str
    distance: int
    second: str = ""


@cache
def known_languages() -> frozenset[str]:
    """The codes that can be decided on: those with a letter profile, and those of the second opinion."""
    return frozenset(supported_langs()) | frozenset(str(code) for code in classifier().nb_classes)


def language_of(text: str, preferred: tuple[str, ...] = (), margin: int = 0) -> tuple[str, int]:
    """The nearest language's ISO 639-1 code and the distance to its profile (0 is nearest), by resiliparse's letter profiles alone.

    A preferred language that is at most `margin` farther than the nearest one is taken: on pages full of names, neighbours such as English
    and Danish come within a few units of each other.
    """
    if not text:
        return "", 0
    language, distance = detect_fast(text, cutoff=NO_CUTOFF)
    if preferred and language not in preferred:
        near, near_distance = detect_fast(text, cutoff=NO_CUTOFF, langs=list(preferred))
        if near in preferred and near_distance - distance <= margin:
            return near, int(near_distance)
    return language, int(distance)


def decided_language(text: str, preferred: tuple[str, ...], margin: int, limit: int) -> Language:
    """The language by the profiles, or by the second opinion where a preferred language is at stake and the profiles are near undecided.

    Near: a preferred and another language lie within `margin` of each other, the distance of a preferred language is near `limit`, the
    largest that is kept, or the text is short. Without preferred languages nothing is at stake.
    """
    code, distance = language_of(text, preferred, margin)
    if not preferred or not text or not near_undecided(text, preferred, margin, limit, code, distance):
        return Language(code, distance)
    second = second_opinion(text)
    if second == code:
        return Language(code, distance, second)
    return Language(second, profile_distance(text, second), second)


def near_undecided(text: str, preferred: tuple[str, ...], margin: int, limit: int, code: str, distance: int) -> bool:
    """Whether the profiles' decision for or against the preferred languages hangs on few units or few letters."""
    if len(text) < SHORT_TEXT:
        return True
    if code in preferred and abs(distance - limit) <= NEAR_LIMIT * limit:
        return True
    ranked: Any = detect_fast(text, cutoff=NO_CUTOFF, n_results=len(preferred) + 1)  # a list, as there is more than one result
    own = next((far for one, far in ranked if one in preferred), None)
    if own is None:
        own = profile_distance(text, *preferred)
    other = next((far for one, far in ranked if one not in preferred), NO_CUTOFF)
    return abs(own - other) <= margin


def profile_distance(text: str, *codes: str) -> int:
    """The distance to the nearest of these languages' profiles; -1 where none has one."""
    code, distance = detect_fast(text, cutoff=NO_CUTOFF, langs=list(codes))
    return int(distance) if code in codes else -1


def second_opinion(text: str) -> str:
    """The code that py3langid's classifier gives the beginning of the text."""
    return str(classifier().classify(text[:SECOND_OPINION_CHARACTERS])[0])


@cache
def classifier() -> Any:
    """py3langid with the model inside its package; it takes half a second to load, once per process."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE)
