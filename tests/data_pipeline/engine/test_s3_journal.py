"""The journal in an S3 store, over HTTP: moto's server in its own process, workers that are killed, races for a claim."""

import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from data_pipeline.engine import Engine, Limits
from data_pipeline.engine.book import Book
from data_pipeline.engine.leases import Leases
from data_pipeline.engine.store import Store
from tests.data_pipeline.engine import sample_tasks as tasks

s3fs = pytest.importorskip("s3fs")
pytest.importorskip("moto.server")
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A bucket of a server's that lives as long as the file's tests."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = (tmp_path_factory.mktemp("moto") / "log").open("wb")
    server = subprocess.Popen([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log)
    keys = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_DEFAULT_REGION": "us-east-1"}
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {**keys, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}.items():
            environment.setenv(name, value)
        limit = time.monotonic() + 60
        while True:
            with socket.socket() as knock:
                if knock.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < limit
            time.sleep(0.1)
        s3fs.S3FileSystem().mkdir("bucket")
        yield "s3://bucket"
        s3fs.S3FileSystem.clear_instance_cache()
    server.kill()
    server.wait()
    log.close()


def test_a_run_through_a_bucket_survives_a_kill_and_a_second_driver_finds_all_done(bucket: str, tmp_path: Path) -> None:
    parameters = [(str(tmp_path), number, 0.3) for number in range(6)]
    limits = Limits(backoff_seconds=0.01)
    with Engine(f"{bucket}/run", workers=2) as engine:
        table = engine.bcast({"a": "x"})
        assert engine.bcast({"a": "x"}) == table
        coming = engine.map(tasks.slow_line, parameters, limits=limits)
        first = next(coming)
        (pid, *_) = [number for number in map(pid_of, tmp_path.glob("pid-*")) if psutil.pid_exists(number)]
        psutil.Process(pid).kill()
        futures = [first, *coming]
        assert sorted(future.result() for future in futures) == [0, 1, 4, 9, 16, 25]
        assert engine.reduce(tasks.join, sorted(futures, key=lambda future: future.index)[:3]) == "((01)4)"
        costs = engine.costs()
        names = {folder: engine.store.names(folder) for folder in ("done", "values", "plans", "objects")}
    assert (costs.tasks, costs.dead) == (6 + 2, 0)
    assert costs.lost <= 1
    assert len(names["done"]) == len(names["values"]) == 8
    calls = Counter((tmp_path / "calls").read_text().split())
    assert len(calls) == 6
    assert sum(calls.values()) <= 6 + costs.lost  # less where the process died before or after the call
    with Engine(f"{bucket}/run", workers=0) as engine:  # nobody works, so all must be there
        assert [future.result() for future in engine.map(tasks.slow_line, parameters, limits=limits)] == [0, 1, 4, 9, 16, 25]


def pid_of(path: Path) -> int:
    return int(path.name.removeprefix("pid-"))


def test_one_of_several_wins_a_claim_and_a_result(bucket: str) -> None:
    racers, rounds = 3, 6
    barrier = threading.Barrier(racers)
    won: list[tuple[str, int]] = []

    def race() -> None:
        store = Store(f"{bucket}/race")
        leases, book = Leases(store), Book(store)
        for number in range(rounds):
            barrier.wait()
            if leases.take(f"task{number}", 1) is not None:
                won.append(("claim", number))
            if book.commit(f"task{number}", {"worker": threading.get_ident()}):
                won.append(("result", number))
        leases.close()

    threads = [threading.Thread(target=race) for _ in range(racers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(won) == Counter({(what, number): 1 for what in ("claim", "result") for number in range(rounds)})
