"""Generated pages whose right verdict is known: bad ones of several kinds, and good ones with personal data in them."""

import html
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from data_pipeline.web.invented_words import ENGLISH, FOREIGN, MENU, NAMES, PRODUCTS
from data_pipeline.web.recipe import CollectRecipe


@dataclass(frozen=True)
class GeneratedPage:
    """A page and its truth: `expect` is `keep` or a drop reason, `personal` are strings that must not survive."""

    url: str
    html: str
    kind: str
    expect: str
    personal: tuple[str, ...] = ()
    copy_of: str = ""  # the original's URL; a copy is written after it


def generated_pages(recipe: CollectRecipe, originals: Sequence[tuple[str, str]], seed: int) -> Iterator[GeneratedPage]:
    """All kinds in the recipe's numbers. `originals` are (url, html) of real pages, of which the copies are made."""
    makers: list[tuple[str, int, Callable[[random.Random, int], GeneratedPage]]] = [
        ("spam", recipe.spam, spam),
        ("menu", recipe.menus, menu),
        ("foreign", recipe.foreign, foreign),
        ("personal", recipe.personal, personal),
        ("stub", recipe.stubs, stub),
        ("symbols", recipe.symbols, symbols),
        ("exact copy", recipe.exact_copies if originals else 0, lambda chance, number: exact_copy(originals, chance, number)),
        ("near copy", recipe.near_copies if originals else 0, lambda chance, number: near_copy(originals, chance, number)),
    ]
    for kind, count, maker in makers:
        for number in range(count):
            yield maker(random.Random(f"{seed} {kind} {number}"), number)


def page(title: str, body: str, language: str = "en") -> str:
    """An HTML page with a menu, the body in <main>, and a footer, as sites have them."""
    links = "".join(f'<li><a href="/{word.lower()}">{word}</a></li>' for word in MENU[:5])
    return (
        f'<!DOCTYPE html>\n<html lang="{language}"><head><meta charset="utf-8"><title>{html.escape(title)}</title></head><body>\n'
        f"<nav><ul>{links}</ul></nav>\n<main><article><h1>{html.escape(title)}</h1>\n{body}\n</article></main>\n"
        f'<footer><p><a href="/terms">Terms</a> <a href="/imprint">Imprint</a></p></footer></body></html>\n'
    )


def sentences(table: Sequence[Sequence[str]], chance: random.Random, count: int) -> list[str]:
    """Different sentences, one choice per column of the table; neighbours are not repeated as long as the table allows."""
    found: dict[str, None] = {}
    used: set[tuple[str, str]] = set()
    tries = 0
    while len(found) < count:
        parts = [chance.choice(column) for column in table]
        pairs = set(pairwise(parts))
        tries += 1
        if tries > 100 or not pairs & used:
            found[" ".join(parts) + "."] = None
            used |= pairs
            tries = 0
    return list(found)


def paragraphs(lines: Sequence[str], per_paragraph: int = 4) -> str:
    groups = [lines[start : start + per_paragraph] for start in range(0, len(lines), per_paragraph)]
    return "\n".join(f"<p>{html.escape(' '.join(group))}</p>" for group in groups)


def spam(chance: random.Random, number: int) -> GeneratedPage:
    """A few phrases over and over, with ordinary words between them, so that every paragraph differs."""
    phrase = f"buy {chance.choice(PRODUCTS)} online now"
    lines = [f"{phrase.capitalize()}, {line[0].lower()}{line[1:-1]}, and {phrase}!" for line in sentences(ENGLISH, chance, 6)]
    body = paragraphs([f"{line} {phrase} and {phrase} and {phrase}." for line in lines], 1)
    return GeneratedPage(f"http://shop-{number}.example/offer.html", page(phrase, body), "spam", "repetition")


def menu(chance: random.Random, number: int) -> GeneratedPage:
    """Links and nothing else."""
    words = [f"{chance.choice(MENU)} {chance.choice(MENU).lower()} {chance.randrange(2000, 2030)}" for _ in range(80)]
    body = "<ul>" + "".join(f'<li><a href="/{place}.html">{word}</a></li>' for place, word in enumerate(words)) + "</ul>"
    return GeneratedPage(f"http://portal-{number}.example/", page("Sitemap", body), "menu", "link_density")


def foreign(chance: random.Random, number: int) -> GeneratedPage:
    """A good page in another language."""
    language = list(FOREIGN)[number % len(FOREIGN)]
    lines = sentences(FOREIGN[language], chance, 20)
    return GeneratedPage(
        f"http://site-{number}.example/{language}.html", page(lines[0], paragraphs(lines), language), "foreign", "language"
    )


def stub(chance: random.Random, number: int) -> GeneratedPage:
    """One or two sentences."""
    lines = sentences(ENGLISH, chance, 1 + number % 2)
    return GeneratedPage(f"http://note-{number}.example/", page("A note", paragraphs(lines)), "stub", "too_short")


def symbols(chance: random.Random, number: int) -> GeneratedPage:
    """Sentences in which every third word carries a hash tag."""
    words = " ".join(sentences(ENGLISH, chance, 12)).split()
    tagged = [f"#{word}" if place % 3 == 0 else word for place, word in enumerate(words)]
    return GeneratedPage(f"http://tags-{number}.example/", page("Tagged", f"<p>{html.escape(' '.join(tagged))}</p>"), "symbols", "symbols")


def exact_copy(originals: Sequence[tuple[str, str]], chance: random.Random, number: int) -> GeneratedPage:
    """A real page, byte for byte."""
    url, text = chance.choice(originals)
    return GeneratedPage(f"http://mirror-{number}.example/copy.html", text, "exact copy", "exact_duplicate", copy_of=url)


def near_copy(originals: Sequence[tuple[str, str]], chance: random.Random, number: int) -> GeneratedPage:
    """A real page with a mirror's notice on top and its file's place changed."""
    url, text = chance.choice(originals)
    notice = f"<p>This copy was made by mirror number {number}. {sentences(ENGLISH, chance, 1)[0]}</p>"
    changed = text.replace("<body>", f"<body>{notice}", 1)
    return GeneratedPage(f"http://mirror-{number}.example/near.html", changed, "near copy", "near_duplicate", copy_of=url)


def personal(chance: random.Random, number: int) -> GeneratedPage:
    """A good page with invented personal data, and technical numbers beside it that must stay as they are."""
    name = chance.choice(NAMES)
    secrets = {
        "email": f"{name}.{chance.randrange(100, 999)}@mail-{number}.example",
        "phone": f"+49 {chance.randrange(30, 99)} {chance.randrange(1_000_000, 9_999_999)}",
        "phone_us": f"({chance.randrange(201, 989)}) 555-{chance.randrange(100, 199):04d}",
        "ip": f"{chance.choice((62, 81, 93, 141))}.{chance.randrange(1, 255)}.{chance.randrange(1, 255)}.{chance.randrange(1, 255)}",
        "card": card_number(chance),
        "iban": iban(chance),
    }
    told = [
        f"You can write to {secrets['email']} or call {secrets['phone']} in the morning.",
        f"The number of the workshop in the city is {secrets['phone_us']}, and the last visitor came from {secrets['ip']}.",
        f"Please pay with card {secrets['card']} or to the account {secrets['iban']} before Friday.",
        "The program needs Python 3.11.7 and listens on 127.0.0.1 only, so it is safe to try.",
    ]
    lines = sentences(ENGLISH, chance, 24)
    for place, sentence in zip(sorted(chance.sample(range(4, 24), len(told))), told, strict=True):
        lines.insert(place, sentence)
    body = page(f"The diary of {name.capitalize()}", paragraphs(lines))
    return GeneratedPage(f"http://diary-{number}.example/{name}.html", body, "personal", "keep", tuple(secrets.values()))


def card_number(chance: random.Random) -> str:
    """Sixteen digits in fours with a right Luhn check digit."""
    digits = [4, *(chance.randrange(10) for _ in range(14))]
    doubled = sum(sum(divmod(2 * digit, 10)) if place % 2 == 0 else digit for place, digit in enumerate(digits))
    text = "".join(map(str, [*digits, -doubled % 10]))
    return " ".join(text[start : start + 4] for start in range(0, 16, 4))


def iban(chance: random.Random) -> str:
    """A German IBAN with right check digits (ISO 13616: the number modulo 97 is 1)."""
    account = "".join(str(chance.randrange(10)) for _ in range(18))
    text = f"DE{98 - int(account + '131400') % 97:02d}{account}"
    return " ".join(text[start : start + 4] for start in range(0, len(text), 4))
