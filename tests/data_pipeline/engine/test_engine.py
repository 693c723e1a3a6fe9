"""The engine on this machine: results, identity, limits, failures, budget. One pair of workers serves most of the file."""

import pickle
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_pipeline.engine import Budget, Engine, LimitExceeded, Limits, TaskError, WorkerLost, process
from data_pipeline.engine.identity import digest
from data_pipeline.engine.plans import read_plan
from data_pipeline.engine.standing import stand
from data_pipeline.errors import InputError
from tests.data_pipeline.engine import sample_tasks as tasks

QUICK = Limits(retries=2, losses=2, backoff_seconds=0.02)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine(tmp_path_factory.mktemp("journal"), workers=2) as made:
        yield made


def files(engine: Engine, folder: str) -> list[str]:
    return engine.store.names(folder)


def test_results_come_once_and_a_rerun_is_free(engine: Engine) -> None:
    futures = list(engine.map(tasks.square, [*range(6), 3]))
    assert {future.index: future.result() for future in futures} == {0: 0, 1: 1, 2: 4, 3: 9, 4: 16, 5: 25, 6: 9}
    assert all(future.parameters**2 == future.result() and future.attempts == 1 for future in futures)
    assert len({future.task_id for future in futures}) == 6  # two equal parameters are one task
    before = files(engine, "claims")
    again = list(engine.map(tasks.square, range(6)))
    assert [future.result() for future in again] == [0, 1, 4, 9, 16, 25]  # what is done comes in order
    assert files(engine, "claims") == before
    assert [future.result() for future in engine.map(tasks.square, [7])] == [49]
    assert len(files(engine, "claims")) == len(before) + 1  # the check can fail: a new parameter is a new try


def test_a_lost_or_damaged_value_is_made_again(engine: Engine) -> None:
    (future,) = engine.map(tasks.square, [101])
    value = Path(engine.store.path(future.record["value"]))
    value.write_bytes(pickle.dumps(7))
    with pytest.raises(InputError, match="its SHA-256 differs"):
        future.result()
    (future,) = engine.map(tasks.square, [101])
    assert (future.result(), future.attempts) == (10201, 2)
    value.unlink()
    (future,) = engine.map(tasks.square, [101])
    assert (future.result(), future.attempts) == (10201, 3)


def test_damage_is_mended_or_one_line(tmp_path: Path) -> None:
    with Engine(tmp_path, workers=0) as engine:
        engine.map(tasks.square, [7])
    for path in (tmp_path / "objects").iterdir():
        path.write_bytes(b"damaged")
    with Engine(tmp_path, workers=1) as engine:  # parameters are uploaded anew
        (future,) = engine.map(tasks.square, [7], limits=QUICK)
        assert future.result() == 49
        record = tmp_path / f"done/{future.task_id}.json"
        record.write_bytes(b"")  # as a machine leaves a file that lost its power
        with pytest.raises(InputError, match=f"{record}: not a record .* remove it and run again"):
            engine.costs()


def test_reduce_is_a_tree_in_the_order_of_the_parameters(engine: Engine) -> None:
    assert engine.reduce(tasks.join, list("abcdefg")) == "(((ab)(cd))((ef)g))"
    futures = list(engine.map(tasks.square, range(5)))
    assert engine.reduce(tasks.join, reversed(futures)) == "(((01)(49))16)"
    assert engine.reduce(tasks.join, ["alone"]) == "alone"
    with pytest.raises(InputError, match="at least one value"):
        engine.reduce(tasks.join, [])


def test_broadcast_values_are_uploaded_once_and_read_once_per_process(engine: Engine) -> None:
    before = set(files(engine, "objects"))
    table = engine.bcast({"a": "x", "b": "y"})
    assert table == engine.bcast({"a": "x", "b": "y"})
    (made,) = set(files(engine, "objects")) - before
    assert table.name == f"objects/{made}"
    written = Path(engine.store.path(table.name)).stat().st_mtime_ns
    futures = list(engine.map(tasks.look_up, list("ab") * 4 + ["a" + ""], table=table))
    assert {future.parameters: future.result()[0] for future in futures} == {"a": "x", "b": "y"}
    futures = [*engine.map(tasks.look_up, ["a", "b", "asked"], table=table)]
    assert max(future.result()[1] for future in futures) > 1  # the same object was asked twice
    assert Path(engine.store.path(table.name)).stat().st_mtime_ns == written


def test_changed_code_is_done_again(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "changing_module.py"
    module.write_text("def answer(number):\n    return number + 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    import changing_module  # type: ignore[import-not-found]

    with Engine(tmp_path / "journal", workers=1) as own:  # whose process finds the module's folder
        assert [future.result() for future in own.map(changing_module.answer, [1])] == [2]
        module.write_text("def answer(number):\n    return number + 1000\n")
        assert [future.result() for future in own.map(changing_module.answer, [1])] == [1001]
        (future,) = own.map(changing_module.answer, [1])
        assert (future.result(), len(own.store.names("done"))) == (1001, 2)


@pytest.mark.parametrize("how", ["lambda", "closure", "script"])
def test_functions_that_workers_cannot_import_are_refused(how: str, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def inside(number: int) -> int:
        return number

    if how == "script":
        monkeypatch.setattr(tasks.square, "__module__", "__main__")
    function = {"lambda": lambda number: number, "closure": inside, "script": tasks.square}[how]
    with pytest.raises(InputError) as told:
        engine.map(function, [1])
    assert "\n" not in str(told.value)
    assert ("module of its own" if how == "script" else "top level of a module") in str(told.value)


def test_limits_end_a_hang_in_c_and_a_growing_task(engine: Engine) -> None:
    begun = time.monotonic()
    (hung,) = engine.map(tasks.hang, [30.0], limits=Limits(seconds=0.4, retries=1))
    with pytest.raises(LimitExceeded, match=r"over its limit of 0\.4 seconds"):
        hung.result()
    limits = Limits(memory_bytes=400 * 2**20, retries=1)
    grown, fine = sorted(engine.map(tasks.hold_memory, [600, 50], limits=limits), key=lambda future: future.index)
    with pytest.raises(LimitExceeded, match="bytes of memory"):
        grown.result()
    assert fine.result() == 50 * 2**20
    assert time.monotonic() - begun < 15  # far below the 30 and 20 seconds that the tasks would take


def test_an_answer_that_crosses_a_kill_counts_and_the_next_task_has_a_new_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Engine(tmp_path, workers=0) as engine:
        engine.map(tasks.pause, [0.5])
        (plan,) = (read_plan(engine.store, name.removesuffix(".json")) for name in engine.store.names("plans"))
    one = process.WorkerProcess(str(tmp_path))
    try:
        one.start()
        with monkeypatch.context() as patched:
            patched.setattr(process, "kill_tree", lambda pid: None)  # the signal is on its way
            answer = one.run(plan.order(0), seconds=0.05, memory_bytes=None, stop=threading.Event())
            assert (answer["kind"], one.pid) == ("done", 0)
        assert one.run(plan.order(0), seconds=60, memory_bytes=None, stop=threading.Event())["kind"] == "done"
    finally:
        one.close()


def test_a_process_that_holds_too_much_is_replaced(tmp_path: Path) -> None:
    with Engine(tmp_path, workers=1, memory_growth_bytes=2**40) as engine:
        same = {future.result() for future in engine.map(tasks.process_id, range(3))}
        assert engine._crew is not None
    with Engine(tmp_path, workers=1, memory_growth_bytes=0) as engine:
        other = {future.result() for future in engine.map(tasks.process_id, range(3, 5))}
    assert (len(same), len(other)) == (1, 2)


def test_failures_are_tried_again_then_dead_and_the_others_go_on(engine: Engine, tmp_path: Path) -> None:
    (late,) = engine.map(tasks.fail_until, [(str(tmp_path / "late"), 2)], limits=QUICK)
    assert (late.result(), late.attempts) == (2, 2)
    kinds = ["OSError", "unpicklable", "exit", "die", "untold", "huge", "fine"]
    found = {future.parameters: future for future in engine.map(tasks.fail, kinds, limits=QUICK)}
    assert found["fine"].result() == "fine"
    with pytest.raises(ConnectionResetError, match="mine, not the store's") as told:
        found["OSError"].result()
    assert told.value.errno == 104
    assert "sample_tasks.py" in told.value.__notes__[0]
    with pytest.raises(TaskError, match="cannot come back"):
        found["unpicklable"].result()
    with pytest.raises(SystemExit):
        found["exit"].result()
    with pytest.raises(WorkerLost, match="SIGKILL"):
        found["die"].result()
    assert found["untold"].record["text"] == "Untold: it cannot be shown as text"
    with pytest.raises(TaskError, match="ValueError"):
        found["huge"].result()
    assert (found["huge"].record.get("error"), len(str(found["huge"].record)) < 20_000) == (None, True)
    assert [found[kind].attempts for kind in kinds[:6]] == [2] * 6
    letters = {letter.parameters: letter for letter in engine.dead_letters() if letter.parameters in kinds}
    assert set(letters) == set(kinds[:6])
    assert letters["OSError"].error == "ConnectionResetError: [Errno 104] mine, not the store's"


def test_a_revived_task_has_all_its_tries_again(engine: Engine, tmp_path: Path) -> None:
    parameter = (str(tmp_path / "calls"), 4)
    (dead,) = engine.map(tasks.fail_until, [parameter], limits=QUICK)
    assert dead.dead
    (dead,) = engine.map(tasks.fail_until, [parameter], limits=QUICK)
    assert (dead.dead, dead.attempts) == (True, 2)  # planning it again changes nothing
    assert engine.revive([dead.task_id]) == 1
    (alive,) = engine.map(tasks.fail_until, [parameter], limits=QUICK)
    assert (alive.result(), alive.attempts) == (4, 4)


def test_the_budget_stops_the_run_and_is_raised(tmp_path: Path) -> None:
    parameters = [(str(tmp_path), number, 0.25) for number in range(8)]
    with Engine(tmp_path / "journal", workers=1, budget=Budget(money=0.5, price_per_core_hour=3600)) as engine:
        with pytest.raises(InputError, match=r"the budget is spent: .* of 0\.5 in money") as told:
            list(engine.map(tasks.slow_line, parameters))
        assert "\n" not in str(told.value)
        with pytest.raises(InputError, match="the budget is spent"):
            engine.map(tasks.slow_line, parameters)
        spent = engine.costs()
        assert 1 <= spent.tasks < 8
        assert spent.money == pytest.approx(spent.core_seconds)
        engine.budget = Budget(core_hours=1, price_per_core_hour=3600)
        assert sorted(future.result() for future in engine.map(tasks.slow_line, parameters)) == [n * n for n in range(8)]
        assert (engine.costs().tasks, engine.costs().lost) == (8, 0)
    with Engine(tmp_path / "journal", workers=1, budget=Budget(core_hours=1e-9)) as engine:  # a rerun costs nothing
        assert sorted(future.result() for future in engine.map(tasks.slow_line, parameters)) == [n * n for n in range(8)]
    calls = (tmp_path / "calls").read_text().split()
    assert sorted(set(calls)) == sorted(calls)  # what was done, or under way, before the budget ended was kept


def test_what_is_under_way_when_the_budget_ends_is_kept(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match="the budget is spent"),
        Engine(tmp_path, workers=2, budget=Budget(core_hours=0.2 / 3600)) as engine,
    ):
        list(engine.map(tasks.pause, [0.3, 4.0], limits=QUICK))
    with Engine(tmp_path, workers=0) as engine:
        assert sorted(future.result() for future in engine.map(tasks.pause, [0.3, 4.0], limits=QUICK)) == [0.3, 4.0]
        waiting = engine.map(tasks.pause, [0.4, 4.1, 4.2], limits=QUICK)
        told: dict[str, object] = {}
        crew = threading.Thread(target=lambda: told.update(stand(str(tmp_path), workers=2, signals=False)))
        crew.start()
        while len(engine.book.view().claims) < 4:
            time.sleep(0.05)
        engine.store.write("paused.json", b"{}")  # as the driver does, wherever it is
        crew.join()
        assert told["ended"] == "budget"
        assert engine.book.view().tries == {}
        waiting.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Budget(money=1), "price_per_core_hour"),
        (lambda: Limits(seconds=0), "Limits: seconds"),
        (lambda: Limits(memory=5), "Limits: memory"),
        (lambda: Engine("/proc/none/here", workers=1), "a journal cannot be written there"),
        (lambda: Engine("/tmp", workers=-1), "workers is a number"),
    ],
)
def test_bad_settings_are_one_line(make: object, said: str) -> None:
    with pytest.raises(InputError, match=said) as told:
        make()  # type: ignore[operator]
    assert "\n" not in str(told.value)


def test_a_journal_by_a_relative_path_is_one_for_workers_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Engine("runs/tasks", workers=1) as engine:
        assert engine.bcast({"a": "x"}).url == str(tmp_path / "runs/tasks")
        found = engine.map(tasks.leave, [str(tmp_path / name) for name in "abc"], limits=QUICK)
        assert len({future.result() for future in found}) == 3


def test_futures_are_waited_for_as_long_as_somebody_works(tmp_path: Path) -> None:
    pauses = [0.3, 0.31, 0.32, 0.33]
    with Engine(tmp_path, workers=1) as engine:
        coming = engine.map(tasks.pause, pauses)
        assert next(coming).result() in pauses
        coming = engine.map(tasks.pause, pauses)  # the first iterator ends only now, and must not take the plan with it
        assert {future.result() for future in coming} == set(pauses)
        late = engine.map(tasks.pause, [600.0])
    with pytest.raises(InputError, match="the engine is closed"):
        next(late)


def test_identity_is_of_values_not_of_pickles() -> None:
    one = "a word" + str(len("x"))
    shared, apart = [one, one], ["a word1", "a word" + str(1)]
    assert digest(shared) == digest(apart)
    assert digest({"a": 1, "b": {2, 3}}) == digest({"b": {3, 2}, "a": 1})
    different = [1, 1.0, True, "1", b"1", (1,), [1], {1}, {1: 1}, None, Path("1"), [[1], 2], [[1, 2]], Budget(core_hours=1)]
    assert len({digest(value) for value in different}) == len(different)
    assert digest(10**5000) != digest(10**5000 + 1)
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(InputError, match="holds itself"):
        digest(loop)
