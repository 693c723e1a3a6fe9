"""Four-way questions while a run goes on, on any layout: a small benchmark that says early whether a run learns.

The cloze form: the question without its options, and each option's text as the answer. Small models that do not know letters yet are above
chance in it long before they are in the lettered form (OLMES, arXiv 2406.08446, section 3). `phial eval` measures what is reported.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from data_pipeline.benchmarks import ChoiceItem, read_mmlu
from data_pipeline.tokens.mixture import IGNORED, Row
from data_pipeline.tokens.tokenizer import encode_text, end_of_text_id, load_tokenizer
from training.batches import stack
from training.engine import Engine
from training.job import Job
from training.world import World

PROMPT = "Question: {question}\nAnswer:"
PAD_TO = 64  # rows are padded to a multiple of this, so that compiled layers see few lengths


@dataclass(frozen=True)
class Answer:
    """One option of one question, as a row of the decoder."""

    item: int
    option: int
    row: Row


def question_scores(job: Job, engine: Engine, world: World, beat: Callable[[], None]) -> dict[str, float]:
    """`accuracy` (the option with the highest summed log-probability is the right one), `accuracy_per_byte` (divided by the option's
    UTF-8 bytes) and `bits_per_byte` of the right answers, over `benchmark_items` questions of `benchmarks`; all ranks take part, and call
    `beat` after every round.

    Data ranks share the rows; one without a row of its own in a round computes another's again, since a forward pass may need all ranks.
    """
    items = spread(read_items(job), job.recipe.benchmark_items)
    length = PAD_TO * job.layout.context
    answers = rows_of(items, load_tokenizer(job.tokenizer), job.recipe.context, length)
    data = engine.mesh.group("data")
    mine: dict[tuple[int, int], float] = {}
    for begin in range(0, len(answers), data.size):
        one = answers[min(begin + data.index, len(answers) - 1)]
        micro = stack([one.row])
        mine[one.item, one.option] = -float(engine.loss(micro)) * micro.num_targets
        beat()
    found: dict[tuple[int, int], float] = {}
    for some in world.gather(mine):
        found |= some
    return summarise(items, found)


def read_items(job: Job) -> list[ChoiceItem]:
    """The test items of MMLU's layout, subjects in order."""
    return [item for items in read_mmlu(job.recipe.benchmarks, "test").values() for item in items]


def spread(items: list[ChoiceItem], count: int) -> list[ChoiceItem]:
    """So many of them at even distances, the same at every evaluation."""
    return [items[number * len(items) // count] for number in range(min(count, len(items)))] if count < len(items) else items


def rows_of(items: list[ChoiceItem], tokenizer: Tokenizer, context: int, length: int) -> list[Answer]:
    """Every option of every item; a question that does not fit `context` with its answer is cut on the left."""
    padding = end_of_text_id(tokenizer)
    answers = []
    for number, item in enumerate(items):
        prompt = PROMPT.format_map({"question": item.question.strip()})
        joined = [encode_text(tokenizer, f"{prompt} {option.strip()}\n") for option in item.options]
        shared = common_prefix([encode_text(tokenizer, prompt), *joined])
        for option, ids in enumerate(joined):
            first = min(shared, len(ids) - 1)
            cut = max(0, len(ids) - context - 1)
            answers.append(Answer(number, option, padded(ids[cut:], max(1, first - cut), padding, length, context)))
    return answers


def padded(ids: list[int], first: int, padding: int, length: int, context: int) -> Row:
    """A row whose targets are the ids from place `first` on; what fills it up is a document of its own."""
    inputs = len(ids) - 1
    slots = min(-(-inputs // length) * length, max(context, inputs))
    places = np.arange(slots)
    whole = np.full(slots + 1, padding, np.int64)
    whole[: len(ids)] = ids
    asked = (places + 1 >= first) & (places < inputs)
    positions = np.where(places < inputs, places, places - inputs)
    return Row(whole, positions, (places >= inputs).astype(np.int64), np.where(asked, whole[1:], IGNORED), "questions")


def common_prefix(several: list[list[int]]) -> int:
    """How many ids all of them begin with: an answer is scored from there, since a token may span the joint."""
    return next((n for n, ids in enumerate(zip(*several, strict=False)) if len(set(ids)) > 1), min(map(len, several)))


def summarise(items: list[ChoiceItem], log_probability: dict[tuple[int, int], float]) -> dict[str, float]:
    """The figures of all items."""
    right = right_per_byte = 0
    bits = bytes_read = 0.0
    for number, item in enumerate(items):
        values = [log_probability[number, option] for option in range(len(item.options))]
        sizes = [max(1, len(option.strip().encode())) for option in item.options]
        per_byte = [value / size for value, size in zip(values, sizes, strict=True)]
        right += values.index(max(values)) == item.answer
        right_per_byte += per_byte.index(max(per_byte)) == item.answer
        bits -= values[item.answer] / math.log(2)
        bytes_read += sizes[item.answer]
    return {"accuracy": right / len(items), "accuracy_per_byte": right_per_byte / len(items), "bits_per_byte": bits / bytes_read}
