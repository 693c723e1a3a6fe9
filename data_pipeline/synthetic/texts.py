"""What is written from problems: lessons, worked examples, exercise sheets, chat rows and preference pairs."""

from collections.abc import Callable
from random import Random
from typing import Any

from data_pipeline.synthetic.problem import LETTERS, Family, Problem

# How a lesson speaks to whom.
AUDIENCES = (
    ("for young pupils", "Today we learn about {title}. {rule} Let us try one together."),
    ("for adults who return to school", "This lesson is about {title}. {rule} Here is one example."),
    ("for teachers", "Lesson plan: {title}. The rule to explain is this. {rule} An example for the board:"),
    ("for programmers", "Notes on {title}. {rule} For example:"),
    ("for parents", "How to help your child with {title}: {rule} Try this one."),
)

# A written answer, short or as a sentence. Fine-tuning uses both alike; preferences then ask for the sentence.
SHORT, SENTENCE = "{answer}", "The answer is {answer}."

HEADER = "The following are multiple choice questions (with answers) about {title}."


def multiple_choice(problem: Problem, rng: Random) -> tuple[str, str]:
    """The question with its four lettered options in MMLU's layout, and the right letter."""
    options, letter = problem.options(rng)
    lines = [problem.choice, *(f"{name}. {option}" for name, option in zip(LETTERS, options, strict=True)), "Answer:"]
    return "\n".join(lines), letter


def lesson(family: Family, problem: Problem, rng: Random) -> str:
    """A short explanation for one audience with one example."""
    audience, opening = rng.choice(AUDIENCES)
    text = opening.format(title=family.title, rule=family.rule)
    return f"{family.title.capitalize()}, {audience}\n\n{text}\n\n{problem.question}\n{problem.reason} The answer is {problem.answer}.\n"


def worked_example(problem: Problem, rng: Random) -> str:
    """Question, reason, answer in one of several layouts."""
    layouts = (
        "Question: {question}\nReason: {reason}\nAnswer: {answer}\n",
        "{question}\n\n{reason} The answer is {answer}.\n",
        "Example. {question}\nSolution. {reason} So the answer is {answer}.\n",
    )
    return rng.choice(layouts).format(question=problem.question, reason=problem.reason, answer=problem.answer)


def choice_answer(problem: Problem, letter: str, rng: Random, lettered: float = 0.2) -> str:
    """What stands after "Answer:" below four options: the right option's text, or now and then its letter alone.

    The text is what a small model learns first: it points at an option and copies it. The letter needs one step more.
    """
    return letter if rng.random() < lettered else problem.answer


def exercise_sheet(family: Family, problems: list[Problem], rng: Random) -> str:
    """Four-way questions with their answers, in MMLU's layout."""
    items = []
    for problem in problems:
        text, letter = multiple_choice(problem, rng)
        items.append(f"{text} {choice_answer(problem, letter, rng)}")
    return HEADER.format(title=family.title) + "\n\n" + "\n\n".join(items) + "\n"


def answer_sheet(problems: list[Problem]) -> str:
    """Questions with written answers."""
    return "\n\n".join(f"Question: {problem.question}\nAnswer: {problem.answer}" for problem in problems) + "\n"


def sft_row(problem: Problem, rng: Random, choices: float = 0.65) -> dict[str, Any]:
    """One chat row: a question with four options, or a question with a written answer in either style."""
    if rng.random() < choices:
        question, letter = multiple_choice(problem, rng)
        answer = choice_answer(problem, letter, rng)
    else:
        question, answer = problem.question, rng.choice((SHORT, SENTENCE)).format(answer=problem.answer)
    return {
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
        "family": problem.family,
    }


def choice_pair(problem: Problem, rng: Random) -> tuple[str, str, str]:
    return multiple_choice(problem, rng)[0], problem.answer, rng.choice(problem.distractors)


def answer_pair(problem: Problem, rng: Random) -> tuple[str, str, str]:
    return problem.question, SENTENCE.format(answer=problem.answer), SENTENCE.format(answer=rng.choice(problem.distractors))


def style_pair(problem: Problem, rng: Random) -> tuple[str, str, str]:
    return problem.question, SENTENCE.format(answer=problem.answer), SHORT.format(answer=problem.answer)


# kind of preference -> (question, chosen, rejected)
PAIRS: dict[str, Callable[[Problem, Random], tuple[str, str, str]]] = {
    "choice": choice_pair,  # the right option before a wrong one
    "answer": answer_pair,  # the right answer before a wrong one
    "style": style_pair,  # a full sentence before a bare word, both right
}


def preference(problem: Problem, kind: str, rng: Random) -> dict[str, Any]:
    """One preference pair in chat form."""
    question, chosen, rejected = PAIRS[kind](problem, rng)
    return {
        "prompt": [{"role": "user", "content": question}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
        "family": problem.family,
        "kind": kind,
    }
