"""What ranks say of themselves, and what is made of it."""

import io
import tempfile
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from data_pipeline.errors import InputError
from training.cluster import watchdog
from training.cluster.watchdog import Watchdog, clear_heartbeats, describe_hang, read_heartbeats
from training.world import World


def beat(step: int, said: float, moved: float, **more) -> dict:
    return {"step": step, "time": said, "moved": moved, "host": "here", "pid": 7, **more}


def test_a_stopped_rank_and_those_that_wait_for_it_are_told_apart() -> None:
    beats = {0: beat(31, 100.0, 80.0, collective="all_reduce", since=81.0), 1: beat(30, 82.0, 79.0)}
    assert describe_hang(beats, 2, 101.0, 15.0) == (
        "rank 1 (here, pid 7) has said nothing for 19 s, last after step 30; rank 0 is in all_reduce for 20 s, after step 31"
    )


def test_ranks_that_move_or_are_only_slow_do_not_hang() -> None:
    assert describe_hang({0: beat(3, 100.0, 99.0), 1: beat(3, 100.5, 99.0)}, 2, 101.0, 15.0) is None
    assert describe_hang({0: beat(3, 100.0, 50.0), 1: beat(4, 100.0, 99.0)}, 2, 101.0, 15.0) is None, "one of them moves"
    assert describe_hang({0: beat(-1, 100.0, 50.0)}, 2, 101.0, 15.0) is None, "the other has not begun"
    assert describe_hang({0: beat(-1, 100.0, 50.0), 1: beat(-1, 100.0, 50.0)}, 2, 101.0, 15.0, 60.0) is None, "they still begin"
    shows = {0: beat(3, 100.0, 84.0), 1: beat(3, 100.0, 84.0)}
    assert describe_hang(shows, 2, 101.0, 15.0) is None, "17 s: both write their stacks, and are not ended before those are there"
    told = describe_hang({0: beat(3, 100.0, 50.0), 1: beat(3, 100.0, 50.0)}, 2, 101.0, 15.0)
    assert told is not None
    assert "in no collective" in told


def test_heartbeats_are_written_and_removed(tmp_path: Path) -> None:
    dog = Watchdog(tmp_path, 3).start()
    dog.progress(12)
    dog.write()
    (found,) = read_heartbeats(tmp_path).items()
    assert found[0] == 3
    assert found[1]["step"] == 12
    assert abs(found[1]["time"] - time.time()) < 5
    dog.end()
    assert read_heartbeats(tmp_path) == {}
    Watchdog(tmp_path, 1).start().done.set()
    clear_heartbeats(tmp_path)
    assert read_heartbeats(tmp_path) == {}


def test_stacks_are_shown_once_for_every_stand_still(tmp_path: Path) -> None:
    with open(tmp_path / "log", "w+") as log:
        dog = Watchdog(tmp_path, 0, hang_seconds=0.01, stream=log)
        dog.collective = ("broadcast", time.time() - 9)
        time.sleep(0.05)
        dog.show_stacks()
        log.seek(0)
        text = log.read()
    assert "rank 0: no step for" in text
    assert "in broadcast for 9 s" in text
    assert "test_stacks_are_shown_once" in text
    assert dog.shown
    dog.progress(1)
    assert not dog.shown


def attended() -> tuple[list[float], str, str]:
    """What ranks see while the first one works alone: beats while it comes further, its result, its failure."""
    world = World(dist.get_rank(), dist.get_world_size())
    beats: list[float] = []
    began = time.monotonic()

    def work(advance) -> str:
        for _ in range(3):
            time.sleep(1.2)
            advance()
        time.sleep(3.0)  # stands still, and nobody says otherwise
        return "made"

    def fail(advance) -> str:
        raise InputError("no room")

    made = world.attend(work, lambda: beats.append(time.monotonic() - began))
    try:
        world.attend(fail, lambda: None)
    except InputError as error:
        return beats, made, str(error)
    raise AssertionError("nothing was raised")


def test_ranks_attend_the_first_ones_long_work(ranks) -> None:
    for beats, made, error in ranks(2, attended):
        assert 2 <= len(beats) <= 3
        assert beats[-1] < 5.5, "no beat while the work stands still"
        assert (made, error) == ("made", "no room")


def test_an_unwatched_rank_may_take_longer_for_its_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It shows its stacks after the hang time, and ends itself only where a start cannot be what it is busy with."""
    ended: list[int] = []
    monkeypatch.setattr(watchdog.os, "_exit", ended.append)
    monkeypatch.setattr(watchdog, "BEAT_SECONDS", 0.01)
    monkeypatch.setenv("PHIAL_HANG_EXIT", "1")

    def stand_still(step: int, seconds: float) -> tuple[str, list[int]]:
        ended.clear()
        with open(tmp_path / "log", "w+") as log:
            dog = Watchdog(tmp_path, 0, hang_seconds=5.0, stream=log)
            dog.step, dog.moved = step, time.time() - seconds
            dog.start()
            limit = time.monotonic() + 10
            while not dog.shown and time.monotonic() < limit:
                time.sleep(0.01)
            dog.end()
            log.seek(0)
            return log.read(), ended

    text, exits = stand_still(-1, 300.0)
    assert "no step for 300 s" in text
    assert exits == []
    assert stand_still(-1, 601.0)[1]
    assert stand_still(3, 300.0)[1]


def inside_collectives() -> list[str]:
    """The names that the watchdog sees while collectives run, and what is left afterwards."""
    dog = Watchdog(Path(tempfile.mkdtemp()), dist.get_rank(), stream=io.StringIO())
    dog.watch_collectives()
    seen: list[str] = []
    inner = dog.watched

    def note(name: str) -> None:
        assert dog.collective is not None
        seen.append(dog.collective[0])

    probe = inner("probe", note)
    probe("probe")
    dist.all_reduce(torch.ones(3))
    work = dist.all_reduce(torch.ones(3), async_op=True)
    assert work is not None
    work.wait()
    dist.barrier()
    assert dog.collective is None
    assert hasattr(dist.all_reduce, "watched")
    assert hasattr(dist.broadcast, "watched")
    return seen


def test_collectives_are_watched_and_still_work(ranks) -> None:
    assert ranks(2, inside_collectives) == [["probe"], ["probe"]]
