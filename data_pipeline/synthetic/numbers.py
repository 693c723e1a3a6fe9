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
    high = rng.choice((99, 999))
    numbers = rng.sample(range(10, high), 4)
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
    rule="To compare two whole numbers, look at how many digits they have, then at the first digit that differs.",
    wordings=(
        "Which number is the {most}: {list}?",
        "Of the numbers {list}, which is the {most}?",
        "Find the {most} of {list}.",
        "Which of {list} is the {most}?",
        "Look at {list}. Which one is the {most}?",
        "Name the {most} number among {list}.",
    ),
    held_out_wordings=("Look at the numbers {list} and find the {most}.", "Among {list}, which number is the {most}?"),
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
    wordings=(
        "What is {left} + {right}?",
        "Add {right} to {left}. What do you get?",
        "What is the sum of {left} and {right}?",
        "Find {left} + {right}.",
        "How much is {left} plus {right}?",
    ),
    held_out_wordings=("What do you get for {left} + {right}?", "Find the sum of {left} and {right}."),
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
    wordings=(
        "What is {parts}?",
        "Which number has {list}?",
        "Write {parts} as one number.",
        "Write {list} as a number.",
        "Find {parts}.",
    ),
    held_out_wordings=("Which number is {parts}?", "What number do {list} make?"),
    draw=draw_place_value,
    check=check_place_value,
)


def draw_sequence(rng: Random) -> Case:
    step = rng.choice((1, 2, 5, 10))
    start = rng.randint(1, 400)
    terms = [start + step * place for place in range(5)]
    answer, last = terms[4], terms[3]
    near = [str(one) for one in (last + 1, last + 2, last + 5, last + 10, last + 3, last + 20) if one != answer]
    shown = ", ".join(str(one) for one in terms[:4])
    return Case(
        operands=(start, step),
        fields={"terms": shown},
        answer=str(answer),
        distractors=three_others(rng, str(answer), near),
        reason=f"Each number is {step} more than the one before, and {last} + {step} = {answer}.",
    )


def check_sequence(case: Case) -> bool:
    terms = [int(one) for one in case.fields["terms"].split(", ")]
    return int(case.answer) - terms[-1] == terms[1] - terms[0]


SEQUENCES = Family(
    name="sequences",
    title="number sequences",
    rule="In a sequence with a fixed step, the next number is the last number plus the step.",
    wordings=(
        "What comes next: {terms}, ...?",
        "Which number comes after {terms}?",
        "Find the next number: {terms}, ...",
        "The numbers {terms} have a fixed step. What is the next one?",
        "Continue the sequence {terms}.",
    ),
    held_out_wordings=("What is the next number after {terms}?", "The sequence is {terms}, ... Which number comes next?"),
    draw=draw_sequence,
    check=check_sequence,
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
    wordings=(
        "How many {small} are in {amount} {large}?",
        "How many {small} make {amount} {large}?",
        "Write {amount} {large} in {small}.",
        "What is {amount} {large} in {small}?",
        "Change {amount} {large} into {small}.",
    ),
    held_out_wordings=("How many {small} are {amount} {large}?", "Find how many {small} are in {amount} {large}."),
    draw=draw_units,
    check=check_units,
)
