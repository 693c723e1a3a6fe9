"""Labelling against a local server that fails in every way: labels come out whole, and nothing is paid for twice."""

import json
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import phial
from data_pipeline.errors import InputError
from data_pipeline.quality.answer_cache import AnswerCache
from data_pipeline.quality.endpoint import Endpoint, EndpointFailure, TokenBucket, address_of
from data_pipeline.quality.labelling import LabellingSettings, label
from data_pipeline.records import Document, write_documents


class Teacher(BaseHTTPRequestHandler):
    """Reads score and trouble from the page itself: `true 3` is the score, `trouble 429` what goes wrong at the first request."""

    server: "Server"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        prompt = json.loads(body)["messages"][0]["content"]
        with self.server.lock:
            self.server.seen[body] += 1
            first = self.server.seen[body] == 1
            self.server.keys.add(self.headers.get("Authorization", ""))
            gone = self.server.answers_left == 0
        trouble = re.search(r"trouble (\w+)", prompt)
        name = trouble[1] if trouble and (first or trouble[1] in ("always", "refused", "filtered")) else ""
        if name == "always" or gone:
            self.answer(503, {"error": {"message": "overloaded"}})
        elif name == "refused":
            self.answer(401, {"error": {"message": "wrong\nkey"}})
        elif name == "filtered":
            self.answer(400, {"error": {"message": "against our rules"}})
        elif name == "limit":
            self.answer(429, {"error": "slow down"}, {"Retry-After": "0.01"})
        elif name == "broken":
            self.answer(500, {})
        elif name == "slow":
            time.sleep(0.6)
            self.say('{"score": 0}')
        elif name == "half":
            self.send_response(200)
            self.send_header("Content-Length", "500")
            self.end_headers()
            self.wfile.write(b'{"choices"')
        elif name == "page":
            self.answer(200, {"html": "<p>a portal page</p>"})
        elif name == "garbage" and json.loads(body)["seed"] % 1000 == 0:
            self.say("I cannot judge this page.")
        else:
            score = float(re.search(r"true (\d)", prompt)[1])  # type: ignore[index]
            swapped = prompt.startswith("The page stands")
            self.say(json.dumps({"reason": "because", "score": min(5, score + swapped * (score == 4)), "kind": "concept"}))

    def say(self, content: str) -> None:
        with self.server.lock:
            self.server.answers_left -= 1
            self.server.paid += 1
        self.answer(200, {"choices": [{"message": {"content": content}}], "usage": {"total_tokens": 100, "detail": {}}})

    def answer(self, code: int, value: Any, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(value).encode()
        try:
            self.send_response(code)
            for name, one in {"Content-Length": str(len(content)), **(headers or {})}.items():
                self.send_header(name, one)
            self.end_headers()
            self.wfile.write(content)
        except OSError:  # the client has hung up
            pass

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Teacher)
        self.lock = threading.Lock()
        self.seen: Counter[bytes] = Counter()
        self.keys: set[str] = set()
        self.answers_left = -1  # below zero: no end
        self.paid = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


TROUBLES = ("none", "limit", "broken", "slow", "half", "page", "garbage", "none")


def pages(path: Path, count: int = 24, troubles: tuple[str, ...] = TROUBLES) -> str:
    write_documents(
        path,
        [
            Document(
                id=f"d{one}",
                text=f"page {one}: true {one % 6} trouble {troubles[one % len(troubles)]}",
                source="web",
                url=f"s{one}.example",
            )
            for one in range(count)
        ],
    )
    return str(path)


def endpoint(server: Server, **given: Any) -> Endpoint:
    return Endpoint(server.url, **{"timeout": 0.3, "tries": 4, "first_wait": 0.01, **given})


def settings(**given: Any) -> LabellingSettings:
    return LabellingSettings(**{"model": "teacher", "twice": 0.5, "parallel": 4, **given})


def rows(path: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in map(json.loads, path.read_text().splitlines())}


def test_every_trouble_is_overcome_and_a_rerun_costs_nothing(server: Server, tmp_path: Path) -> None:
    documents, out, cache = pages(tmp_path / "d.parquet"), tmp_path / "l.jsonl", str(tmp_path / "answers.jsonl")
    report = label(documents, settings(), endpoint(server, key="secret"), str(out), cache)
    found = rows(out)
    assert {identity: row["scores"][0] for identity, row in found.items()} == {f"d{one}": one % 6 for one in range(24)}
    assert report["labelled"] == 24
    assert report["answers_without_score"] >= 3
    twice = [row for row in found.values() if len(row["scores"]) == 2]
    assert len(twice) == report["agreement"]["documents"] > 3
    assert all(row["scores"][1] == row["scores"][0] + (row["scores"][0] == 4) for row in twice)  # the second verdict swaps page and rubric
    assert all(row["score"] == sum(row["scores"]) / len(row["scores"]) for row in found.values())
    assert report["agreement"]["equal_scores"] == pytest.approx(sum(row["scores"][0] != 4 for row in twice) / len(twice))
    assert report["tokens_paid_now"] == {"total_tokens": 100 * report["answers_paid_now"]}
    assert server.keys == {"Bearer secret"}
    assert "secret" not in "".join(path.read_text(errors="replace") for path in tmp_path.iterdir())
    before, content = server.seen.total(), out.read_bytes()
    again = label(documents, settings(), endpoint(server), str(out), cache)
    assert server.seen.total() == before
    assert out.read_bytes() == content
    assert again["answers_paid_now"] == 0
    label(documents, settings(temperature=0.5), endpoint(server), str(out), cache)  # other sampling is another question
    assert server.seen.total() > before


def test_a_run_that_was_killed_goes_on_and_pays_for_the_rest_only(server: Server, tmp_path: Path) -> None:
    documents, out, cache = pages(tmp_path / "d.parquet", 30, ("none",)), tmp_path / "l.jsonl", tmp_path / "answers.jsonl"
    server.answers_left = 12
    with pytest.raises(InputError, match=r"10 documents in a row without a verdict, the last: HTTP 503: .*go(es)? on from"):
        label(documents, settings(twice=0), endpoint(server, tries=1), str(out), str(cache))
    assert not out.exists()
    with open(cache, "ab") as stream:
        stream.write(b'{"key": "a line that a kill cut')
    server.answers_left = -1
    report = label(documents, settings(twice=0), endpoint(server), str(out), str(cache))
    assert report["answers_paid_now"] == 18
    assert server.paid == 30 == len(rows(out))


def test_a_document_that_always_fails_is_left_out_and_named(server: Server, tmp_path: Path) -> None:
    documents = pages(tmp_path / "d.parquet", 8, ("none", "filtered", "none", "always"))
    report = label(documents, settings(twice=0), endpoint(server, tries=2), str(tmp_path / "l.jsonl"), str(tmp_path / "a.jsonl"))
    assert set(rows(tmp_path / "l.jsonl")) == {"d0", "d2", "d4", "d6"}
    unanswered, refused = "HTTP 503: overloaded (2 tries)", "HTTP 400: against our rules"
    assert report["failures"] == {"d1": refused, "d3": unanswered, "d5": refused, "d7": unanswered}
    assert max(server.seen.values()) == 2


def test_a_wrong_key_ends_at_once(server: Server, tmp_path: Path) -> None:
    documents = pages(tmp_path / "d.parquet", 20, ("refused",))
    with pytest.raises(InputError, match="HTTP 401: wrong key"):
        label(documents, settings(parallel=1), endpoint(server), str(tmp_path / "l.jsonl"), str(tmp_path / "a.jsonl"))
    assert server.seen.total() <= 2


def test_a_slow_answer_without_a_second_try_fails(server: Server) -> None:
    body = {"model": "m", "seed": 0, "messages": [{"role": "user", "content": "true 1 trouble slow"}]}
    with pytest.raises(EndpointFailure, match="timed out"):
        endpoint(server, tries=1, timeout=0.1).ask(body)


def test_waits_grow_and_end_with_the_run() -> None:
    waits: list[float] = []
    with pytest.raises(EndpointFailure, match="4 tries"):
        Endpoint("http://127.0.0.1:9/v1", tries=4, sleep=waits.append).ask({})
    assert [1 <= wait / 2**number <= 1.5 for number, wait in enumerate(waits)] == [True] * 3
    stopped = Endpoint("http://127.0.0.1:9/v1")
    stopped.stopped.set()
    with pytest.raises(EndpointFailure, match="stopped"):
        stopped.ask({})


def test_the_bucket_lets_through_its_rate() -> None:
    now = [0.0]
    waits: list[float] = []
    bucket = TokenBucket(2.0, burst=3, clock=lambda: now[0], sleep=waits.append)
    for _ in range(5):
        bucket.take()
    assert waits == [0.5, 1.0]  # three at once, then one every half second
    now[0] = 10.0
    waits.clear()
    for _ in range(4):
        bucket.take()
    assert waits == [0.5]  # no more than the burst has gathered


def test_addresses() -> None:
    assert address_of("http://a.example/v1/") == address_of("http://a.example/v1/chat/completions")
    for wrong in ("a.example/v1", "ftp://a.example", "http://name:word@a.example"):
        with pytest.raises(InputError, match="--endpoint"):
            address_of(wrong)


def test_a_cache_is_one_process_at_a_time_and_no_other_file(tmp_path: Path) -> None:
    with AnswerCache(tmp_path / "a.jsonl") as cache:
        cache.put("k", {"content": "c", "usage": {}})
        with pytest.raises(InputError, match="another process"):
            AnswerCache(tmp_path / "a.jsonl")
    with AnswerCache(tmp_path / "a.jsonl") as cache:
        assert cache.get("k") == {"content": "c", "usage": {}}
    (tmp_path / "b.jsonl").write_text('{"id": 1}\n')
    with pytest.raises(InputError, match="line 1: not an answer"):
        AnswerCache(tmp_path / "b.jsonl")


def test_the_verb(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TEACHER_KEY", "secret")
    words = ["label", pages(tmp_path / "d.parquet", 6, ("none",)), "--endpoint", server.url, "--model", "teacher", "--twice", "1"]
    words += ["--out", str(tmp_path / "l.jsonl"), "--key-variable", "TEACHER_KEY"]
    monkeypatch.setattr(sys, "argv", ["phial", "data", "quality", *words])
    with pytest.raises(SystemExit) as caught:
        phial.main()
    assert caught.value.code in (0, None)
    assert "6 labels of 6 documents; 12 answers paid for now" in capsys.readouterr().out
    assert server.keys == {"Bearer secret"}
    assert len(rows(tmp_path / "l.jsonl")) == 6
