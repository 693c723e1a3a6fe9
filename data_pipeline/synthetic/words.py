"""Skill families about words, facts in a text and dates: recall, alphabet, order in time."""

import datetime
from random import Random

from data_pipeline.synthetic.problem import Case, Family, listed

COLOURS = ("red", "blue", "green", "black", "white", "brown", "yellow", "grey", "pink", "orange")
THINGS = ("key", "box", "door", "card", "book", "bag", "lamp", "chair")
PLACES = ("room", "house", "shelf", "desk", "page", "gate", "locker", "table")

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
    thing, place = rng.choice(THINGS), rng.choice(PLACES)
    asked = rng.randrange(4)
    facts = ", ".join(f"the {colour} {thing} is for {place} {number}" for colour, number in zip(colours, numbers, strict=True))
    answer = str(numbers[asked])
    others = [str(number) for number in numbers if str(number) != answer]
    return Case(
        operands=(thing, place, *zip(colours, numbers, strict=True)),
        fields={"facts": facts, "Facts": facts[0].upper() + facts[1:], "thing": f"{colours[asked]} {thing}", "place": place},
        answer=answer,
        distractors=(others[0], others[1], others[2]),
        reason=f"The text says that the {colours[asked]} {thing} is for {place} {answer}.",
    )


def check_recall(case: Case) -> bool:
    facts = dict(fact.removeprefix("the ").split(" is for ") for fact in case.fields["facts"].split(", "))
    return facts[case.fields["thing"]] == f"{case.fields['place']} {case.answer}"


RECALL = Family(
    name="recall",
    title="finding a fact in a text",
    rule="To answer from a text, find the sentence about the thing that is asked for and copy what it says.",
    wordings=(
        "{Facts}. Which {place} is the {thing} for?",
        "Read: {facts}. Which {place} is the {thing} for?",
        "{Facts}. What is the number of the {place} for the {thing}?",
        "Remember this: {facts}. The {thing} is for which {place}?",
        "{Facts}. Find the {place} for the {thing}.",
    ),
    held_out_wordings=(
        "Read this: {facts}. Find the {place} for the {thing}.",
        "{Facts}. The {thing} is for which {place}?",
    ),
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
    wordings=(
        "Which word comes {place} in the alphabet: {list}?",
        "Put {list} in alphabetical order. Which is {place}?",
        "Of the words {list}, which comes {place} in a dictionary?",
        "In alphabetical order, which of {list} comes {place}?",
        "Find the word that comes {place} in the alphabet: {list}.",
    ),
    held_out_wordings=(
        "Which of the words {list} comes {place} in the alphabet?",
        "In a dictionary, which of {list} comes {place}?",
    ),
    draw=draw_alphabet,
    check=check_alphabet,
)


def draw_dates(rng: Random) -> Case:
    years = rng.sample(range(1900, 2030), 4)
    dates = [(year, rng.randint(1, 12), rng.randint(1, 28)) for year in years]
    place = rng.choice(("earliest", "latest"))
    answer = min(dates) if place == "earliest" else max(dates)

    def written(date: tuple[int, int, int]) -> str:
        return f"{date[2]} {MONTHS[date[1] - 1]} {date[0]}"

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
        number, month, year = text.split(" ")
        return datetime.date(int(year), MONTHS.index(month) + 1, int(number))

    gaps = [(day(other) - day(case.answer)).days for other in case.distractors]
    return all(gap > 0 for gap in gaps) if case.operands[0] == "earliest" else all(gap < 0 for gap in gaps)


DATES = Family(
    name="dates",
    title="order in time",
    rule="To order dates, compare the years first, then the months, then the days.",
    wordings=(
        "Which date is the {place}: {list}?",
        "Of the dates {list}, which is the {place}?",
        "Find the {place} date among {list}.",
        "Look at {list}. Which date is the {place}?",
        "Which of {list} is the {place} date?",
    ),
    held_out_wordings=("Among {list}, which date is the {place}?", "Look at the dates {list} and find the {place}."),
    draw=draw_dates,
    check=check_dates,
)
