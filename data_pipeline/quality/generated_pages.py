"""Pages whose score and kind are known, by site: what the classifier is proven on. They say nothing about how it does on real pages.

A page is sentences of its type mixed with others: its score is the share of its own sentences, times what its type can reach. Every site
has invented words of its own, so a model that learns a site's words learns nothing for another site; teaching words stand in
advertisements too ("learn", "explained", "lesson"), and prices in lessons.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from data_pipeline.quality.labels import Label
from data_pipeline.quality.rubric import KINDS
from data_pipeline.records import Document
from data_pipeline.synthetic.build import FAMILIES
from data_pipeline.synthetic.problem import draw_problem
from data_pipeline.synthetic.texts import lesson, worked_example

BEGINNINGS = ("bra", "cor", "del", "fen", "gri", "hol", "jas", "kel", "lum", "mor", "nev", "ost", "pra", "quil", "ros", "sel", "tor", "vem")
ENDINGS = ("ade", "bel", "cot", "dane", "eth", "ford", "gan", "ia", "ket", "lin", "mond", "nor", "ole", "pen", "rin", "sum", "tis", "ule")

CONCEPT = (
    "A {a} is a {b} whose {c} stays the same while its {d} changes.",
    "To understand why the {a} holds, look at how the {b} depends on the {c}.",
    "The {a} explains the {b}: when the {c} grows, the {d} must become smaller.",
    "For example, a {a} without a {b} would have no {c} at all.",
    "This means that every {a} can be described by its {b} and its {c}.",
    "The word {a} comes from the idea that a {b} carries a {c}.",
    "Because the {a} is part of the {b}, a change in one is a change in the other.",
    "There are two reasons: the {a} is heavier than the {b}, and the {c} is slower.",
    "In short, the {a} is to the {b} what the {c} is to the {d}.",
    "Students often confuse the {a} with the {b}; the difference is the {c}.",
)
REASONING = (
    "Suppose the {a} has {n} parts; then the {b} has {m}, since each part is used twice.",
    "Let us check the result: {n} and {m} together give the number of {a} again.",
    "It follows that the {a} cannot be larger than the {b}.",
    "First we assume that the {a} is a {b}, and this leads to a contradiction.",
    "Therefore the {a} must hold, which is what we wanted to show.",
    "If one {a} costs {n} and we need {m} of them, we multiply to find the price.",
    "Now compare the two sides: the left has a {a}, the right has none.",
    "The step is allowed because the {a} was defined as a {b} in the lesson before.",
)
PROCEDURE = (
    "Step {k}: place the {a} on the {b} and turn it until the {c} fits.",
    "Before you begin, make sure that the {a} is clean and the {b} is dry.",
    "Then add {n} {a} and stir until the {b} is smooth.",
    "Open the {a}, choose {b}, and enter the value of the {c}.",
    "Wait {n} minutes, then take the {a} out and let the {b} cool down.",
    "If the {a} does not start, check whether the {b} is connected to the {c}.",
    "You need a {a}, a {b}, {n} of {c} and some patience.",
    "When you are done, put the {a} back and close the {b}.",
)
REFERENCE = (
    "{A}: a kind of {b}, found in {n} forms.",
    "The {a} has a length of {n} and a {b} of {m}.",
    "{A}, see also {b} and {c}.",
    "Type: {a}. Unit: {b}. Range: {n} to {m}.",
    "The largest {a} is {n} high and stands in {B}.",
    "{A} was born in {B} and wrote {n} books about the {c}.",
    "Parameters: {a} (number), {b} (text), {c} (optional).",
    "Returns the {a} of the {b}, or nothing where there is none.",
)
EPHEMERAL = (
    "{A} beat {B} {n}:{m} on Saturday night.",
    "The match between {A} and {B} ended {n}:{m} after extra time.",
    "Tickets for the {a} on Friday cost {n} at the door.",
    "Today {n} degrees and rain in {A}, tomorrow sun.",
    "{A} scored in minute {n}, {B} saw a red card.",
    "The {a} of {A} rose by {n} per cent this week.",
    "Next train to {A}: {n}:{m}, platform {k}.",
    "Updated {n} minutes ago: the {a} in {B} is closed until further notice.",
)
ADVERT = (
    "Buy the new {a} today and save {n} per cent.",
    "Learn everything about our {a} and order your {b} now.",
    "Best {a} in {B}! Free delivery for every {b}.",
    "Why wait? The {a} that experts explained on television is here.",
    "Subscribe to the newsletter and get a {a} for free.",
    "Only {n} {a} left, click here before it is too late.",
    "Our lesson of the week: a good {a} costs less than you think.",
    "Customers who bought this {a} also liked the {b}.",
)
BOILER = (
    "Home | {A} | {B} | Contact | Login",
    "We use cookies to improve your visit to {A}.",
    "All rights reserved by {A}, terms and privacy.",
    "Share this page with friends of the {a}.",
    "Read more about {a} ... next page",
    "Sign in to see all {n} comments.",
    "Related: {a}, {b}, {c}, {A}",
    "Back to the top of {A}.",
)
RANT = (
    "I am so tired of everybody talking about the {a}.",
    "Honestly the {a} is the worst thing since the {b}, and you all know it!",
    "Nobody understands the {a} like I do, believe me.",
    "Why does the {a} always get away with it???",
    "Wake up people, the {a} is a lie and the {b} too.",
    "My neighbour bought a {a} and now he thinks he is a {b}.",
    "lol the {a} again, what a joke.",
    "Whatever, I never liked {A} anyway.",
)


@dataclass(frozen=True)
class PageType:
    """Sentences of a type of page, the kind it is, and the highest score it can get."""

    sentences: tuple[str, ...]
    kind: str
    most: float


TYPES = {
    "lesson": PageType(CONCEPT, "concept", 5.0),
    "worked example": PageType(REASONING, "reasoning", 5.0),
    "procedure": PageType(PROCEDURE, "procedure", 4.4),
    "reference": PageType(REFERENCE, "reference", 3.0),
    "result": PageType(EPHEMERAL, "ephemeral", 1.0),
    "advertisement": PageType(ADVERT, "other", 0.4),
    "menu": PageType(BOILER, "other", 0.0),
    "rant": PageType(RANT, "other", 0.4),
}
# What sorts of site there are, and how often each type of page stands on one.
PROFILES = (
    {"lesson": 5, "worked example": 4, "reference": 2, "menu": 1, "advertisement": 1},
    {"procedure": 6, "lesson": 1, "advertisement": 2, "rant": 1},
    {"result": 7, "rant": 1, "advertisement": 2, "menu": 1},
    {"advertisement": 6, "menu": 3, "procedure": 1, "reference": 1},
    {"rant": 5, "result": 1, "lesson": 1, "menu": 1},
    {"lesson": 2, "worked example": 1, "procedure": 2, "reference": 3, "result": 2, "advertisement": 2, "menu": 1, "rant": 1},
)


def generated_pages(pages: int, sites: int, seed: int = 0, noise: float = 0.0) -> Iterator[tuple[Document, Label]]:
    """Pages with labels, `noise` of the labels replaced by any score and kind: a pure function of the four.

    The page itself does not depend on `noise`, so that two runs differ in labels only.
    """
    for number in range(pages):
        rng = Random(repr((seed, "page", number)))
        site = rng.randrange(sites)
        name = list(PROFILES[site % len(PROFILES)])
        kind = rng.choices(name, list(PROFILES[site % len(PROFILES)].values()))[0]
        text, score = page_of(TYPES[kind], site_words(seed, site), rng)
        label = Label(f"page-{number:06d}", float(int(score + 0.5)), TYPES[kind].kind if score >= 0.5 or TYPES[kind].most < 1 else "other")
        chance = Random(repr((seed, "noise", number)))
        if chance.random() < noise:
            label = Label(label.id, float(chance.randrange(6)), chance.choice(list(KINDS)))
        url = f"https://www.{site_words(seed, site)[0]}{site}.example/{kind.replace(' ', '-')}/{number}"
        yield Document(id=label.id, text=text, source="web", url=url, language="en"), label


def site_words(seed: int, site: int) -> list[str]:
    """The forty invented words of a site."""
    rng = Random(repr((seed, "site", site)))
    return [rng.choice(BEGINNINGS) + rng.choice(("", *BEGINNINGS)) + rng.choice(ENDINGS) for _ in range(40)]


def page_of(kind: PageType, words: list[str], rng: Random) -> tuple[str, float]:
    """A page's text and its score before rounding."""
    own = rng.betavariate(2.0, 0.9)
    strangers = rng.choice([one.sentences for one in TYPES.values() if one.most <= 1.0 and one is not kind])
    count = rng.randrange(6, 22)
    mine = [rng.random() < own for _ in range(count)]
    lines = [sentence(rng.choice(kind.sentences if one else strangers), words, rng) for one in mine]
    if kind.most >= 5.0 and rng.random() < 0.3:
        family = rng.choice(list(FAMILIES.values()))
        problem = draw_problem(family, rng, "train", 0.0)
        lines.append(rng.choice((lesson(family, problem, rng), worked_example(problem, rng))).strip())
    breaks = [rng.choice((" ", " ", "\n", "\n\n")) for _ in lines]
    text = "".join(line + gap for line, gap in zip(lines, breaks, strict=True)).strip()
    return text, kind.most * sum(mine) / count


def sentence(pattern: str, words: list[str], rng: Random) -> str:
    """A pattern filled with a site's words and with numbers."""
    a, b, c, d = rng.sample(words, 4)
    number = {"n": rng.randrange(2, 60), "m": rng.randrange(2, 60), "k": rng.randrange(1, 9)}
    return pattern.format(a=a, b=b, c=c, d=d, A=a.capitalize(), B=b.capitalize(), **number)
