"""The pages of `make_crawl`, fast: sentences come from joined columns of the word tables, no two of a page with the same beginning."""

import random
from collections import deque
from dataclasses import dataclass, field, replace
from itertools import product

from data_pipeline.web.generated_pages import personal
from data_pipeline.web.invented_words import ENGLISH, FOREIGN, MENU, PRODUCTS

STARTS = [f"{one} {two}" for one, two in product(ENGLISH[0], ENGLISH[1])]
MIDDLES = [f"{one} {two}" for one, two in product(ENGLISH[2], ENGLISH[3])]
ENDS = list(ENGLISH[4])
BLOCKED = tuple(f"blocked-{number}.example" for number in range(20))
TRACKING = ("utm_source=letter&utm_medium=mail", "gclid={id}", "fbclid={id}", "sessionid={id}", "PHPSESSID={id}")

# Kinds with their weights.
KINDS = {
    "good": 54, "exact copy": 5, "near copy": 5, "other address": 6, "spam": 4, "hidden": 5, "menu": 3, "foreign": 5, "stub": 4,
    "personal": 4, "contaminated": 2, "blocked": 2, "noindex": 1,
}  # fmt: skip

STYLE = "<style>body{font:16px serif;margin:0 auto;max-width:60em}nav li{display:inline;padding:0 1em}.off{position:absolute}</style>"
SCRIPT = "<script>window.settings={theme:'plain',columns:2};function open_menu(n){return document.getElementById('m'+n)}</script>"


@dataclass(frozen=True)
class CrawlPage:
    """A page and its truth."""

    url: str
    html: str
    kind: str
    expect: str
    text: str = ""
    personal: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    copy_of: str = ""
    headers: str = ""


def questions(seed: int, count: int = 215) -> list[list[str]]:
    """Four-way questions: question, four options, the letter of the answer."""
    chance = random.Random(f"{seed} questions")
    found: list[list[str]] = []
    for number in range(count):
        who, what = chance.choice(ENGLISH[0]).lower(), chance.choice(ENGLISH[2])
        when, why = chance.choice(ENGLISH[3]), chance.choice(ENGLISH[4])
        place = f"hall {1000 + number * 7}"
        text = f"In the chronicle of {place}, which object did {who} carry {when} past {what} {why}, as the third page of it tells?"
        options = chance.sample(["a copper kettle", "a ladder", "a sack of barley", "a painted door", "a violin", "a lantern"], 4)
        found.append([text, *options, chance.choice("ABCD")])
    return found


class Maker:
    """Makes page after page. Copies are of recent pages or of a sample of all earlier ones, so they cross files too."""

    def __init__(self, seed: int, asked: list[list[str]]) -> None:
        self.chance = random.Random(f"{seed} crawl")
        self.asked = asked[15:]
        self.number = 0
        self.recent: deque[CrawlPage] = deque(maxlen=64)
        self.sample: list[CrawlPage] = []
        self.goods = 0
        self.menus = [
            "".join(f'<li><a href="/{one.lower()}/{place}">{one}</a></li>' for place, one in enumerate(self.chance.sample(MENU, 8)))
            for _ in range(64)
        ]
        self.sides = [
            "".join(f'<li><a href="/read/{self.chance.randrange(10**6)}">{one}</a></li>' for one in self.chance.sample(MENU, 6))
            for _ in range(64)
        ]
        self.kinds, self.weights = list(KINDS), list(KINDS.values())

    def page(self) -> CrawlPage:
        """The next page, of a kind drawn by its weight."""
        kind = self.chance.choices(self.kinds, self.weights)[0]
        if kind in ("exact copy", "near copy", "other address") and self.goods < 8:
            kind = "good"
        return getattr(self, kind.replace(" ", "_"))()

    def sentences(self, count: int) -> list[str]:
        draw = self.chance.random
        end, start, step = int(draw() * 14), int(draw() * 240), (7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 49, 53)[int(draw() * 14)]
        middle, stride = int(draw() * 252), (5, 11, 13, 17, 19, 23, 25, 29, 31, 37, 41, 43, 47, 53)[int(draw() * 14)]
        return [
            f"{STARTS[(start + step * one) % 240]} {MIDDLES[(middle + stride * one) % 252]} {ENDS[(end + 3 * one + one // 14) % 14]}."
            for one in range(count)
        ]

    def paragraphs(self, count: int) -> list[str]:
        """Paragraphs of three to six sentences, `count` sentences in all."""
        lines, found, place = self.sentences(count), [], 0
        while place < count:
            size = 3 + int(self.chance.random() * 4)
            found.append(" ".join(lines[place : place + size]))
            place += size
        return found

    def url(self, site: str = "site") -> str:
        self.number += 1
        return f"http://{site}-{self.number % 1009}.example/{MENU[self.number % 24].lower().replace(' ', '-')}/{self.number}.html"

    def html(self, title: str, body: str, language: str = "en", head: str = "", around: str = "") -> str:
        chance = self.chance
        menu, side = self.menus[int(chance.random() * 64)], self.sides[int(chance.random() * 64)]
        return (
            f'<!DOCTYPE html>\n<html lang="{language}"><head><meta charset="utf-8"><title>{title}</title>'
            f"{head}{STYLE}{SCRIPT}</head>\n<body>"
            f'<header><nav id="m1"><ul>{menu}</ul></nav></header>\n<main><article><h1>{title}</h1>\n{body}\n</article></main>\n{around}'
            f'<aside><h2>Read on</h2><ul>{side}</ul></aside>\n<footer><p><a href="/terms">Terms</a> <a href="/imprint">Imprint</a> '
            f"All rights kept by the makers of this page.</p></footer></body></html>\n"
        )

    def good(
        self, site: str = "site", kind: str = "good", expect: str = "keep", around: str = "", head: str = "", extra: str = ""
    ) -> CrawlPage:
        """A page to keep; `around` stands beside its main text, `head` in its head, `extra` is a paragraph amid the others."""
        parts = self.paragraphs(14 + int(self.chance.random() * 15))
        if extra:
            parts.insert(len(parts) // 2, extra)
        url = self.url(site)
        title = f"Notes {self.number} from the valley"
        body = "\n".join(f"<p>{one}</p>" for one in parts)
        text = "\n\n".join(parts) if expect == "keep" else ""
        page = CrawlPage(url, self.html(title, body, head=head, around=around), kind, expect, text)
        if kind == "good":
            self.remember(page)
        return page

    def remember(self, page: CrawlPage) -> None:
        self.recent.append(page)
        self.goods += 1
        if len(self.sample) < 256:
            self.sample.append(page)
        elif (place := int(self.chance.random() * self.goods)) < 256:
            self.sample[place] = page

    def original(self) -> CrawlPage:
        return self.chance.choice(self.recent if self.chance.random() < 0.5 else self.sample)

    def exact_copy(self) -> CrawlPage:
        page = self.original()
        return CrawlPage(self.url("mirror"), page.html, "exact copy", "drop", copy_of=page.url)

    def near_copy(self) -> CrawlPage:
        page = self.original()
        notice = f"<p>This copy was made by mirror {self.number}. {self.sentences(1)[0]}</p>"
        return CrawlPage(self.url("mirror"), page.html.replace("</h1>", f"</h1>\n{notice}", 1), "near copy", "drop", copy_of=page.url)

    def other_address(self) -> CrawlPage:
        """The same page by https, with www., with tracking parameters or a session's id."""
        page = self.original()
        self.number += 1
        way = self.number % 7
        if way == 0:
            url = page.url.replace("http://", "https://")
        elif way == 1:
            url = page.url.replace("http://", "http://www.")
        else:
            url = f"{page.url}?{TRACKING[way - 2].format(id=f'{self.number:08x}')}"
        return CrawlPage(url, page.html, "other address", "drop", copy_of=page.url)

    def spam(self) -> CrawlPage:
        phrase = f"buy {self.chance.choice(PRODUCTS)} online now"
        lines = [
            f"{phrase.capitalize()}, {one[:-1].lower()}, and {phrase}! {phrase} and {phrase} and {phrase}." for one in self.sentences(8)
        ]
        return CrawlPage(self.url("shop"), self.html(phrase, "".join(f"<p>{one}</p>" for one in lines)), "spam", "drop")

    def hidden(self) -> CrawlPage:
        """A good page with text that no reader sees, in one of three ways."""
        self.number += 1
        phrase = f"secret offer {self.number}: {self.chance.choice(PRODUCTS)}"
        text = " ".join(f"{phrase}." for _ in range(4))
        way = ("hidden", 'style="display:none"', 'aria-hidden="true" style="position:absolute;left:-9999px"')[self.number % 3]
        return replace(self.good("site", "hidden", "keep", around=f"<div {way}><p>{text}</p></div>\n"), hidden=[phrase])

    def menu(self) -> CrawlPage:
        rows = "".join(f'<li><a href="/{place}.html">{one} {self.number + place}</a></li>' for place, one in enumerate(MENU * 3))
        return CrawlPage(self.url("portal"), self.html("Sitemap", f"<ul>{rows}</ul>"), "menu", "drop")

    def foreign(self) -> CrawlPage:
        language = self.chance.choice(list(FOREIGN))
        lines = [" ".join(self.chance.choice(column) for column in FOREIGN[language]) + "." for _ in range(24)]
        body = "".join(f"<p>{' '.join(lines[place : place + 4])}</p>" for place in range(0, 24, 4))
        return CrawlPage(self.url(), self.html(lines[0], body, language), "foreign", "drop")

    def stub(self) -> CrawlPage:
        return CrawlPage(self.url("note"), self.html("A note", f"<p>{' '.join(self.sentences(2))}</p>"), "stub", "drop")

    def personal(self) -> CrawlPage:
        self.number += 1
        page = personal(self.chance, self.number)
        return CrawlPage(page.url, page.html, "personal", "keep", personal=list(page.personal))

    def contaminated(self) -> CrawlPage:
        """A good page with a question of the benchmark and its options in it."""
        row = self.chance.choice(self.asked)
        options = " ".join(f"{letter}. {one}" for letter, one in zip("ABCD", row[1:5], strict=True))
        return self.good("quiz", "contaminated", "drop", extra=f"{row[0]} {options} Answer: {row[5]}.")

    def blocked(self) -> CrawlPage:
        page = self.good("site", "blocked", "drop")
        host = f"{self.chance.choice(('', 'www.', 'a.b.'))}{self.chance.choice(BLOCKED)}"
        return replace(page, url=f"http://{host}/{self.number}.html")

    def noindex(self) -> CrawlPage:
        """Asks robots to stay away, in the page or in the header."""
        if self.number % 2:
            return self.good("site", "noindex", "drop", head='<meta name="robots" content="noindex, nofollow">')
        return replace(self.good("site", "noindex", "drop"), headers="X-Robots-Tag: noindex\r\n")
