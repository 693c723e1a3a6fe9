"""Skill families about words, facts in a text and dates: recall, alphabet, order in time."""

import datetime
import itertools
from random import Random

from data_pipeline.synthetic.problem import Case, Family, listed

COLOURS = ("red", "blue", "green", "black", "white", "brown", "yellow", "grey", "pink", "orange")
THINGS = ("key", "box", "door", "card", "book", "bag", "lamp", "chair")

# Common words, at most two with the same first letter.
WORDS = (
    "apple", "arrow", "bread", "bridge", "cloud", "candle", "dream", "dance", "eagle", "engine", "forest", "flower", "garden", "glass",
    "house", "honey", "island", "iron", "jacket", "jewel", "kitchen", "king", "lemon", "letter", "mountain", "mirror", "needle", "night",
    "ocean", "onion", "paper", "planet", "queen", "question", "river", "rabbit", "silver", "summer", "table", "tiger", "uncle", "village",
    "violin", "water", "window", "yellow", "yard", "zebra",
)  # fmt: skip

MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")


def draw_recall(rng: Random) -> Case:
    colours, numbers = rng.sample(COLOURS, 4), rng.sample(range(10, 100), 4)
    thing = rng.choice(THINGS)
    asked = rng.randrange(4)
    facts = ", ".join(f"{colour} {thing} {number}" for colour, number in zip(colours, numbers, strict=True))
    answer = str(numbers[asked])
    others = [str(number) for number in numbers if str(number) != answer]
    return Case(
        operands=(thing, *zip(colours, numbers, strict=True)),
        fields={"facts": facts, "thing": f"{colours[asked]} {thing}"},
        answer=answer,
        distractors=(others[0], others[1], others[2]),
        reason=f"The list says {colours[asked]} {thing} {answer}.",
    )


def check_recall(case: Case) -> bool:
    return dict(fact.rsplit(" ", 1) for fact in case.fields["facts"].split(", "))[case.fields["thing"]] == case.answer


RECALL = Family(
    name="recall",
    title="finding a fact in a list",
    rule="To answer from a list, find the thing that is asked for and copy what stands beside it.",
    wordings={
        "train": (
            "List: {facts}. What is the number of the {thing}?",
            "Prices: {facts}. What is the price of the {thing}?",
            "Here is a list: {facts}. Find the {thing}.",
            "Read the list: {facts}. Which number has the {thing}?",
        ),
        "held_out": ("Here is a list: {facts}. What is the number of the {thing}?", "Read the prices: {facts}. Find the {thing}."),
    },
    draw=draw_recall,
    check=check_recall,
)


def draw_alphabet(rng: Random) -> Case:
    by_letter: dict[str, str] = {}
    for word in rng.sample(WORDS, len(WORDS)):
        by_letter.setdefault(word[0], word)
    words = rng.sample(sorted(by_letter.values()), 4)
    place = rng.choice(("first", "last"))
    answer = sorted(words)[0 if place == "first" else -1]
    others = [word for word in words if word != answer]
    side, initials = "before" if place == "first" else "after", listed([one[0] for one in others])
    return Case(
        operands=(place, *sorted(words)),
        fields={"list": listed(words), "place": place},
        answer=answer,
        distractors=(others[0], others[1], others[2]),
        reason=f"The letter {answer[0]} of {answer} comes {side} {initials}.",
    )


def check_alphabet(case: Case) -> bool:
    letters = "abcdefghijklmnopqrstuvwxyz"
    own, others = letters.index(case.answer[0]), [letters.index(word[0]) for word in case.distractors]
    return own < min(others) if case.operands[0] == "first" else own > max(others)


ALPHABET = Family(
    name="alphabet",
    title="alphabetical order",
    rule="Words are put in alphabetical order by their first letter.",
    wordings={
        "train": (
            "Which word comes {place} in the alphabet: {list}?",
            "Of the words {list}, which comes {place} in the alphabet?",
            "Find the word that comes {place} in the alphabet: {list}.",
        ),
        "held_out": ("Which of {list} comes {place} in the alphabet?", "Of {list}, find the word that comes {place} in the alphabet."),
    },
    choice_wordings={
        "train": (
            "Which word comes {place} in the alphabet?",
            "Find the word that comes {place} in the alphabet.",
            "Which of these comes {place} in the alphabet?",
        ),
        "held_out": ("Which of these words comes {place} in the alphabet?", "Choose the word that comes {place} in the alphabet."),
    },
    draw=draw_alphabet,
    check=check_alphabet,
)


def draw_dates(rng: Random) -> Case:
    dates = [(10 * decade + rng.randrange(10), rng.randint(1, 12)) for decade in rng.sample(range(190, 200), 4)]
    place = rng.choice(("earliest", "latest"))
    answer = min(dates) if place == "earliest" else max(dates)

    def written(date: tuple[int, int]) -> str:
        return f"{MONTHS[date[1] - 1]} {date[0]}"

    others = [written(date) for date in dates if date != answer]
    return Case(
        operands=(place, *sorted(dates)),
        fields={"list": listed([written(date) for date in dates]), "place": place},
        answer=written(answer),
        distractors=(others[0], others[1], others[2]),
        reason=f"The year {answer[0]} is the {place} of the four years.",
    )


def check_dates(case: Case) -> bool:
    def day(text: str) -> datetime.date:
        month, year = text.split(" ")
        return datetime.date(int(year), MONTHS.index(month) + 1, 1)

    gaps = [(day(other) - day(case.answer)).days for other in case.distractors]
    return all(gap > 0 for gap in gaps) if case.operands[0] == "earliest" else all(gap < 0 for gap in gaps)


DATES = Family(
    name="dates",
    title="order in time",
    rule="To order dates, compare the years first: the decade decides where it differs.",
    wordings={
        "train": (
            "Which date is the {place}: {list}?",
            "Of the dates {list}, which is the {place}?",
            "Find the {place} of {list}.",
            "Which of {list} is the {place}?",
        ),
        "held_out": ("Of {list}, which date is the {place}?", "Find the {place} date: {list}."),
    },
    choice_wordings={
        "train": ("Which date is the {place}?", "Find the {place} date.", "Choose the {place} date.", "Which of these is the {place}?"),
        "held_out": ("Which of these dates is the {place}?", "Choose the date that is the {place}."),
    },
    draw=draw_dates,
    check=check_dates,
)

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def draw_sequence(rng: Random) -> Case:
    kind = rng.choice(("days", "months", "by one", "by one", "by ten", "by ten"))
    shown = rng.randint(3, 4)
    if kind in ("days", "months"):
        cycle = DAYS if kind == "days" else MONTHS
        start = rng.randrange(len(cycle))
        terms = [cycle[(start + place) % len(cycle)] for place in range(shown + 1)]
        others = [name for name in cycle if name not in (terms[-1], terms[-2])]
    else:
        step, start = (1 if kind == "by one" else 10), rng.randint(1, rng.choice((99, 899)))
        terms = [str(start + step * place) for place in range(shown + 1)]
        last = int(terms[-2])
        others = [str(last + shift) for shift in (2, 3, 5, 20, 30, 11, 1, 10) if last + shift != int(terms[-1])]
    wrong = rng.sample(others, 3)
    return Case(
        operands=(kind, start, shown),
        fields={"terms": ", ".join(terms[:-1])},
        answer=terms[-1],
        distractors=(wrong[0], wrong[1], wrong[2]),
        reason=f"After {terms[-2]} comes {terms[-1]}.",
    )


def check_sequence(case: Case) -> bool:
    terms = [*case.fields["terms"].split(", "), case.answer]
    if case.operands[0] in ("days", "months"):
        cycle = DAYS if case.operands[0] == "days" else MONTHS
        return all((cycle.index(after) - cycle.index(before)) % len(cycle) == 1 for before, after in itertools.pairwise(terms))
    return len({int(after) - int(before) for before, after in itertools.pairwise(terms)}) == 1


SEQUENCES = Family(
    name="sequences",
    title="what comes next",
    rule="To continue a sequence, look at how one member follows from the one before.",
    wordings={
        "train": ("What comes next: {terms}?", "Which comes after {terms}?", "Find the next one: {terms}.", "Continue: {terms}."),
        "held_out": ("What comes after {terms}?", "Which comes next: {terms}?", "Find what comes next: {terms}."),
    },
    draw=draw_sequence,
    check=check_sequence,
)
