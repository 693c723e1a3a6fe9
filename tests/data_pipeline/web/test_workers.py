"""The pool of workers that may die: order, deaths, limits, faults."""

import errno
import os
import sys
from pathlib import Path

import pytest

from data_pipeline.web.workers import Killed, Pool

sys.path.insert(0, str(Path(__file__).parent))  # workers import the function by its module's name
from tasks_for_workers import double


def test_results_come_in_order_and_a_death_costs_one_task() -> None:
    tasks: list[int | str] = [*range(40), "die", *range(40, 60), "spin", 60]
    results = list(Pool(double, 7, workers=2, seconds=0.5).map(iter(tasks)))
    expected = [Killed(task, 0.5) if isinstance(task, str) else 2 * task + 7 for task in tasks]
    assert results == expected


def test_a_fault_in_the_function_is_not_hidden() -> None:
    with pytest.raises(RuntimeError, match="a fault of ours"):
        list(Pool(double, 0, workers=1).map(["raise"]))


def test_what_the_system_refuses_a_worker_is_raised_as_it_is() -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        list(Pool(double, 0, workers=1).map(["full"]))
    assert caught.value.errno == errno.ENOSPC


def test_a_task_that_wants_too_much_memory_costs_only_itself() -> None:
    assert list(Pool(double, 0, workers=1).map([1, "hog", 2])) == [2, Killed("hog", 30.0), 4]


def test_a_worker_that_holds_much_is_replaced_between_tasks() -> None:
    one, *others = list(Pool(double, 0, workers=1, memory_bytes=2**26).map(["keep"] * 3))
    assert len({one, *others}) == 3
    assert len(set(Pool(double, 0, workers=1).map(["keep"] * 3))) == 1


def test_no_tasks() -> None:
    assert list(Pool(double, 0, workers=1).map([])) == []
    assert os.getpid()
