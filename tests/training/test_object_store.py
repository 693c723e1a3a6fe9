"""Checkpoints in an S3 store, over HTTP: moto's server, in its own process, and runs that are killed and go on."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomli_w

from data_pipeline.storage import read_json
from training.cluster.rehearsal import RECIPE, losses_of, write_corpus

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
pytest.importorskip("s3fs")
pytest.importorskip("moto.server")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment by which s3fs reaches a bucket of this server's."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = (tmp_path_factory.mktemp("moto") / "log").open("wb")
    server = subprocess.Popen([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log)
    keys = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_DEFAULT_REGION": "us-east-1"}
    environment = {**os.environ, **keys, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    limit = time.monotonic() + 60
    code = "import s3fs; s3fs.S3FileSystem().mkdir('bucket')"
    while subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False).returncode:
        assert time.monotonic() < limit
        time.sleep(0.5)
    yield environment
    server.kill()
    server.wait()
    log.close()


def names(environment: dict[str, str], place: str) -> list[str]:
    """The checkpoints that stand there, by a program of its own."""
    code = f"import s3fs; print(*(p.rsplit('/', 1)[-1] for p in s3fs.S3FileSystem().ls('{place}')))"
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout.split()


def start(folder: Path, ranks: int, checkpoints: str, environment: dict[str, str]) -> "subprocess.Popen[str]":
    if not (folder / "mine.toml").exists():
        write_corpus(folder)
        tables = {"run": {"folder": str(folder), "seed": 5}, "model": {"preset": "tiny"}, "pretrain": RECIPE.model_dump(mode="json")}
        (folder / "mine.toml").write_text(tomli_w.dumps(tables))
    line = ["pretrain", str(folder / "mine.toml"), "--ranks", str(ranks), "--set", f"pretrain.checkpoints={checkpoints}"]
    command = [sys.executable, "-m", "phial", *line]
    return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_killed_run_goes_on_from_a_bucket(ranks: int, store: dict[str, str], tmp_path: Path) -> None:
    """The losses are those of a run that was never killed and kept its checkpoints on disk; older checkpoints are gone from the bucket."""
    place = f"bucket/run-{ranks}"
    local = start(tmp_path / "local", ranks, "", store)
    _, told = local.communicate(timeout=280)
    assert local.returncode == 0, told
    first = start(tmp_path / "far", ranks, f"s3://{place}", store)
    metrics = tmp_path / "far" / "pretrain" / "metrics.jsonl"
    limit = time.monotonic() + 280
    while not (metrics.exists() and len(metrics.read_text().splitlines()) >= 27):
        assert first.poll() is None, first.communicate()[1]
        assert time.monotonic() < limit
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=30)
    second = start(tmp_path / "far", ranks, f"s3://{place}", store)
    _, told = second.communicate(timeout=280)
    assert second.returncode == 0, told
    result = read_json(tmp_path / "far" / "pretrain" / "result.json")
    assert result["resumed_from"] in (10, 20, 30), told
    assert losses_of(tmp_path / "far" / "pretrain") == losses_of(tmp_path / "local" / "pretrain")
    assert names(store, place) == ["step-00000040", "step-00000050", "step-00000060"]
