"""A problem with a computed answer, the family it belongs to, and the split that keeps held-out operands and wordings out of training."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Literal

Split = Literal["train", "held_out"]
LETTERS = "ABCD"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One draw of operands with everything that follows from them."""

    operands: tuple[object, ...]  # what makes the case this case: equal operands, equal split
    fields: dict[str, str]  # what the wordings are filled with
    answer: str
    distractors: tuple[str, str, str]
    reason: str  # one sentence that leads to the answer
    program: tuple[str, str] | None = None  # source and call, where the answer is what a program returns


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A question with its answer, three wrong options and the reason."""

    family: str
    key: str  # family and operands
    question: str  # complete in itself, for a written answer
    choice: str  # asked above four lettered options
    answer: str
    distractors: tuple[str, str, str]
    reason: str
    program: tuple[str, str] | None = None

    def options(self, rng: Random) -> tuple[list[str], str]:
        """The four options in random order and the letter of the right one."""
        order = [self.answer, *self.distractors]
        rng.shuffle(order)
        return order, LETTERS[order.index(self.answer)]


@dataclass(frozen=True, kw_only=True)
class Family:
    """A skill: how its cases are drawn and checked, and the wordings of its questions."""

    name: str
    title: str  # as in "questions about {title}"
    rule: str  # one sentence that states the skill
    wordings: dict[Split, tuple[str, ...]]  # of questions that are complete in themselves; the held-out ones are never trained on
    choice_wordings: dict[Split, tuple[str, ...]] | None = None  # of questions above four options; None: the same wordings
    draw: Callable[[Random], Case]
    check: Callable[[Case], bool]  # the answer found a second way; every drawn case must pass


def is_held_out(family: str, operands: tuple[object, ...], share: float) -> bool:
    """Whether these operands are kept from training: a pure function of the operands, the same in every run."""
    digest = hashlib.sha256(repr((family, operands)).encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def draw_problem(family: Family, rng: Random, split: Split, share: float) -> Problem:
    """A checked problem of the split: held-out operands with held-out wordings, or trained ones with trained ones."""
    while True:
        case = family.draw(rng)
        if is_held_out(family.name, case.operands, share) == (split == "held_out"):
            break
    if len({case.answer, *case.distractors}) != 4 or not family.check(case):
        raise AssertionError(f"{family.name}: the answer {case.answer!r} to {case.operands!r} does not check")
    wording = rng.choice(family.wordings[split])
    choice = rng.choice(family.choice_wordings[split]) if family.choice_wordings else wording
    return Problem(
        family=family.name,
        key=f"{family.name}:{case.operands!r}",
        question=wording.format(**case.fields),
        choice=choice.format(**case.fields),
        answer=case.answer,
        distractors=case.distractors,
        reason=case.reason,
        program=case.program,
    )


def listed(items: list[str]) -> str:
    """`12, 47 and 3`."""
    return f"{', '.join(items[:-1])} and {items[-1]}"
