"""Skill families about numbers: comparison, addition, place value, sequences, units."""

from fractions import Fraction
from random import Random

from data_pipeline.synthetic.problem import Case, Family, listed


def three_others(rng: Random, answer: str, candidates: list[str]) -> tuple[str, str, str]:
    """Three different wrong options, near ones first where the caller lists them first."""
    pool = list(dict.fromkeys(one for one in candidates if one != answer))
    first, second, third = pool[:3] if len(pool) == 3 else rng.sample(pool, 3)
    return first, second, third


def draw_comparison(rng: Random) -> Case:
    digits = rng.choice((2, 3))
    firsts = rng.sample(range(1, 10), 4)  # the first digit decides
    numbers = [int(f"{first}{rng.randrange(10 ** (digits - 1)):0{digits - 1}d}") for first in firsts]
    most = rng.choice(("largest", "smallest"))
    answer = sorted(numbers)[-1 if most == "largest" else 0]
    others = [str(one) for one in numbers if one != answer]
    return Case(
        operands=(most, *sorted(numbers)),
        fields={"most": most, "list": listed([str(one) for one in numbers])},
        answer=str(answer),
        distractors=(others[0], others[1], others[2]),
        reason=f"{answer} is {'greater' if most == 'largest' else 'less'} than {listed(others)}.",
    )


def check_comparison(case: Case) -> bool:
    # By differences, not by sorting.
    sign = 1 if case.operands[0] == "largest" else -1
    return all(sign * (int(case.answer) - int(other)) > 0 for other in case.distractors)


COMPARISON = Family(
    name="comparison",
    title="comparing numbers",
    rule="To compare two whole numbers, look at how many digits they have, then at the first digit.",
    wordings={
        "train": (
            "Which number is the {most}: {list}?",
            "Of the numbers {list}, which is the {most}?",
            "Find the {most} of {list}.",
            "Which of {list} is the {most}?",
        ),
        "held_out": ("Of {list}, which number is the {most}?", "Find the {most} number: {list}."),
    },
    choice_wordings={
        "train": (
            "Which number is the {most}?",
            "Find the {most} number.",
            "Choose the {most} number.",
            "Which of these is the {most}?",
        ),
        "held_out": ("Which of these numbers is the {most}?", "Choose the number that is the {most}."),
    },
    draw=draw_comparison,
    check=check_comparison,
)


def draw_addition(rng: Random) -> Case:
    tens, units = rng.randint(1, 99), rng.randint(0, 8)
    added = rng.randint(1, 9 - units)  # no carry
    left, total = 10 * tens + units, 10 * tens + units + added
    near = [str(total + shift) for shift in (-10, 10, -1, 1, 2, 20) if total + shift > 0]
    return Case(
        operands=(left, added),
        fields={"left": str(left), "right": str(added)},
        answer=str(total),
        distractors=three_others(rng, str(total), near),
        reason=f"{units} + {added} = {units + added}, so {left} + {added} = {total}.",
    )


def check_addition(case: Case) -> bool:
    left, added = (int(str(one)) for one in case.operands)
    total = left
    for _ in range(added):
        total += 1
    return total == int(case.answer)


ADDITION = Family(
    name="addition",
    title="adding small numbers",
    rule="To add a small number, add it to the units; while the units stay below ten, the tens do not change.",
    wordings={
        "train": ("What is {left} + {right}?", "Find {left} + {right}.", "How much is {left} + {right}?", "Add: {left} + {right}."),
        "held_out": ("What do we get for {left} + {right}?", "How much do we find for {left} + {right}?"),
    },
    draw=draw_addition,
    check=check_addition,
)


def draw_place_value(rng: Random) -> Case:
    names = ("thousands", "hundreds", "tens", "units")[-rng.choice((3, 4)) :]
    digits = [rng.randint(1, 9) for _ in names]
    answer = "".join(map(str, digits))
    swapped = [answer[:at] + answer[at + 1] + answer[at] + answer[at + 2 :] for at in range(len(answer) - 1)]
    changed = [answer[:at] + str(int(answer[at]) % 9 + 1) + answer[at + 1 :] for at in range(len(answer))]
    lengthened = [answer[:at] + "0" + answer[at:] for at in range(1, len(answer))]
    parts = " + ".join(str(digit) + "0" * zeros for digit, zeros in zip(digits, range(len(digits) - 1, -1, -1), strict=True))
    words = listed([f"{digit} {name}" for digit, name in zip(digits, names, strict=True)])
    return Case(
        operands=tuple(digits),
        fields={"parts": parts, "list": words},
        answer=answer,
        distractors=three_others(rng, answer, swapped + changed + lengthened),
        reason=f"{words} are written {answer}.",
    )


def check_place_value(case: Case) -> bool:
    return sum(int(part) for part in case.fields["parts"].split(" + ")) == int(case.answer)


PLACE_VALUE = Family(
    name="place_value",
    title="place value",
    rule="The digits of a number count hundreds, tens and units, in that order.",
    wordings={
        "train": ("What is {parts}?", "Write {parts} as one number.", "Find {parts}.", "Which number is {parts}?"),
        "held_out": ("Which one number is {parts}?", "Write the number {parts}."),
    },
    draw=draw_place_value,
    check=check_place_value,
)


def draw_parity(rng: Random) -> Case:
    kind, divisor, rest = rng.choice((("even", 2, 0), ("odd", 2, 1), ("a multiple of 5", 5, 0), ("a multiple of 10", 10, 0)))
    high = rng.choice((100, 1000))
    right = [number for number in range(11, high) if number % divisor == rest]
    wrong = [number for number in range(11, high) if number % divisor != rest]
    answer, others = rng.choice(right), rng.sample(wrong, 3)
    numbers = [answer, *others]
    rng.shuffle(numbers)
    return Case(
        operands=(kind, *sorted(numbers)),
        fields={"kind": kind, "list": listed([str(number) for number in numbers])},
        answer=str(answer),
        distractors=(str(others[0]), str(others[1]), str(others[2])),
        reason=f"{answer} ends in {answer % 10}, so it is {kind}.",
    )


def check_parity(case: Case) -> bool:
    endings = {"even": "02468", "odd": "13579", "a multiple of 5": "05", "a multiple of 10": "0"}[str(case.operands[0])]
    return case.answer[-1] in endings and not any(other[-1] in endings for other in case.distractors)


DIVISIBILITY = Family(
    name="divisibility",
    title="even numbers, odd numbers and multiples",
    rule="The last digit tells whether a number is even, odd, a multiple of 5 or a multiple of 10.",
    wordings={
        "train": ("Which of {list} is {kind}?", "Which number is {kind}: {list}?", "Find the one that is {kind}: {list}."),
        "held_out": ("Of {list}, which number is {kind}?", "Of the numbers {list}, find the one that is {kind}."),
    },
    choice_wordings={
        "train": ("Which number is {kind}?", "Find the number that is {kind}.", "Which of these is {kind}?"),
        "held_out": ("Which of these numbers is {kind}?", "Choose the number that is {kind}."),
    },
    draw=draw_parity,
    check=check_parity,
)

# (larger unit, smaller unit, how many of the smaller make one of the larger)
CONVERSIONS = (
    ("kilometres", "metres", 1000),
    ("metres", "centimetres", 100),
    ("centimetres", "millimetres", 10),
    ("kilograms", "grams", 1000),
    ("litres", "millilitres", 1000),
    ("euros", "cents", 100),
)


def draw_units(rng: Random) -> Case:
    large, small, factor = rng.choice(CONVERSIONS)
    amount = rng.choice([one for one in range(2, 1000) if one % 10])
    answer = amount * factor
    others = [str(amount * one) for one in (1, 10, 100, 1000, 10000) if one != factor]
    return Case(
        operands=(large, amount),
        fields={"amount": str(amount), "large": large, "small": small},
        answer=str(answer),
        distractors=three_others(rng, str(answer), others),
        reason=f"One of the {large} is {factor} {small}, so {amount} {large} are {answer} {small}.",
    )


def check_units(case: Case) -> bool:
    size = {"kilometres": "1000", "metres": "1", "centimetres": "1/100", "millimetres": "1/1000"}
    size |= {"kilograms": "1000", "grams": "1", "litres": "1", "millilitres": "1/1000", "euros": "1", "cents": "1/100"}
    amount, large, small = int(case.fields["amount"]), case.fields["large"], case.fields["small"]
    return amount * Fraction(size[large]) / Fraction(size[small]) == int(case.answer)


UNITS = Family(
    name="units",
    title="converting units",
    rule="To change a larger unit into a smaller one, multiply by how many of the smaller make one of the larger.",
    wordings={
        "train": (
            "How many {small} are in {amount} {large}?",
            "How many {small} make {amount} {large}?",
            "Write {amount} {large} in {small}.",
            "What is {amount} {large} in {small}?",
        ),
        "held_out": ("How many {small} is {amount} {large}?", "Find {amount} {large} in {small}."),
    },
    draw=draw_units,
    check=check_units,
)
