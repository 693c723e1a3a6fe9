"""A launch rehearsed on one machine: two "nodes" that are network namespaces, a tiny run through the real launcher, and what can go wrong.

Each scenario ends in a resumed run whose losses equal the undisturbed run's, or in the one line that it must end in. Where namespaces are
not allowed the nodes are plain processes of this machine, and a link cannot be cut.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from data_pipeline.errors import InputError
from data_pipeline.storage import read_json, write_json
from data_pipeline.tokens.recipe import TokenizerRecipe, TokensRecipe
from data_pipeline.tokens.shards import tokenize
from data_pipeline.tokens.tokenizer import train_tokenizer
from training.cluster.nodes import ROOT, NamespaceNode, Node, python
from training.cluster.supervisor import Settings, Stopped, Supervisor
from training.cluster.watchdog import read_heartbeats
from training.events import read_events
from training.job import Job, make_plan
from training.metrics import read_metrics
from training.recipe import LayoutRecipe, ModelRecipe, PretrainRecipe

PREFIX = "phial"
NETWORK = "10.111.7"
WORDS = [
    "stone",
    "river",
    "light",
    "sand",
    "cloud",
    "seven",
    "three",
    "copper",
    "water",
    "north",
    "wind",
    "slow",
    "bright",
    "under",
    "over",
]
# What the large models' recipes have switched on, at the size of a test.
RECIPE = PretrainRecipe(
    phases=({"name": "one", "steps": 60, "weights": {"web": 1.0}, "max_epochs": 1000},),  # type: ignore[arg-type]
    context=48,
    rows_per_step=8,
    micro_rows=2,
    learning_rate=3e-3,
    warmup_steps=5,
    schedule="wsd",
    z_loss=1e-5,
    spike_sigmas=12.0,
    spike_window=32,
    precision="float32",
    checkpoint_every=10,
    keep_last=3,
    log_every=1,
    threads=1,
)
# Quick enough for a rehearsal, patient enough for a busy machine.
SETTINGS = Settings(restarts=5, hang_seconds=15.0, backoff_seconds=0.5, verify=True, start_seconds=180.0)
LOSS_BOUND = 5e-6


@dataclass(frozen=True)
class Result:
    """How a scenario ended: `told` is what the launcher said where it stopped, `difference` the largest distance of losses."""

    name: str
    passed: bool | None  # None: not tried here, and `told` says why
    told: str
    seconds: float
    difference: float | None = None
    restarts: int = 0


class Stage:
    """The machines, the tokens and the undisturbed run that all scenarios share."""

    def __init__(self, folder: Path, nodes: list[Node], stream: TextIO | None) -> None:
        self.folder, self.nodes, self.stream = folder, nodes, stream
        self.namespaces = all(isinstance(node, NamespaceNode) for node in nodes)
        write_corpus(folder)
        self.losses: list[float] = []

    def job(self, name: str, **settings: Any) -> Job:
        recipe = RECIPE.model_copy(update=settings)
        where = {"tokens": self.folder / "tokens", "tokenizer": self.folder / "tokenizer", "out": self.folder / name}
        return Job(recipe=recipe, model=ModelRecipe(preset="tiny"), layout=LayoutRecipe(zero_stage=1), seed=5, **where)  # type: ignore[arg-type]

    def supervise(self, job: Job, settings: Settings = SETTINGS) -> dict[str, Any]:
        ranks = sum(node.slots for node in self.nodes)
        return Supervisor(job, make_plan(job, ranks), self.nodes, settings, self.stream).run()

    def undisturbed(self) -> list[float]:
        """The losses that every other run must end with."""
        if not self.losses:
            self.supervise(self.job("undisturbed"))
            self.losses = losses_of(self.folder / "undisturbed")
        return self.losses


def write_corpus(folder: Path) -> None:
    """A tokenizer and token shards of made-up sentences."""
    if (folder / "tokens" / "web" / "manifest.json").exists():
        return
    chance = random.Random(0)
    texts = [" ".join(chance.choices(WORDS, k=chance.randint(4, 60))) + "." for _ in range(400)]
    train_tokenizer(TokenizerRecipe(vocab_size=320), texts, folder / "tokenizer")
    tokenize(TokensRecipe(), folder / "tokenizer", "web", texts, folder / "tokens" / "web")


def losses_of(out: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(out / "metrics.jsonl")]


@contextmanager
def two_nodes(slots: int = 1) -> Iterator[list[Node]]:
    """Two namespaces joined by a bridge, or two names for this machine where namespaces are not allowed."""
    names = [f"{PREFIX}-a", f"{PREFIX}-b"]
    try:
        build_network(names)
    except (OSError, subprocess.CalledProcessError):
        remove_network(names)
        yield [Node(name, "127.0.0.1", slots, "lo") for name in ("here-a", "here-b")]
        return
    try:
        yield [NamespaceNode(name, f"{NETWORK}.{number}", slots, "eth0") for number, name in enumerate(names, 1)]
    finally:
        remove_network(names)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def build_network(names: list[str]) -> None:
    """One interface eth0 in each namespace: gloo is told one name for all."""
    remove_network(names)
    ip("link", "add", f"{PREFIX}br", "type", "bridge")
    ip("link", "set", f"{PREFIX}br", "up")
    for number, name in enumerate(names, 1):
        ip("netns", "add", name)
        ip("link", "add", link(name), "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("link", "set", link(name), "master", f"{PREFIX}br", "up")
        ip("-n", name, "addr", "add", f"{NETWORK}.{number}/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", name, "link", "set", "lo", "up")


def remove_network(names: list[str]) -> None:
    for name in names:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", link(name)], capture_output=True, check=False)
    subprocess.run(["ip", "link", "del", f"{PREFIX}br"], capture_output=True, check=False)


def link(name: str) -> str:
    """This machine's end of a namespace's cable."""
    return f"v{name}"[:15]


def when_at(out: Path, step: int, act: Callable[[dict[int, dict[str, Any]]], None]) -> threading.Thread:
    """Does something once the ranks are past a step, with their last heartbeats."""

    def wait() -> None:
        limit = time.monotonic() + 300
        while time.monotonic() < limit:
            beats = read_heartbeats(out)
            rows = read_metrics(out / "metrics.jsonl") if (out / "metrics.jsonl").exists() else []
            if rows and rows[-1]["step"] >= step and len(beats) >= 2:
                act(beats)
                return
            time.sleep(0.05)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def resumed(stage: Stage, name: str, act: Callable[[dict[int, dict[str, Any]]], None], after: float = 0.0, undo: Any = None) -> Result:
    """A run that something happens to at step 25, which must end with the undisturbed run's losses after at least one restart."""
    expected = stage.undisturbed()
    job = stage.job(name)
    began = time.monotonic()

    def disturb(beats: dict[int, dict[str, Any]]) -> None:
        act(beats)
        if undo is not None:
            time.sleep(after)
            undo()

    when_at(job.out, 25, disturb)
    try:
        stage.supervise(job)
    except InputError as error:
        return Result(name, False, str(error), time.monotonic() - began)
    found = losses_of(job.out)
    difference = max(abs(a - b) for a, b in zip(found, expected, strict=True))
    events = [event for event in read_events(job.out) if event["kind"] == "restarted"]
    told = "; ".join(event["reason"] for event in events)
    passed = bool(events) and difference < LOSS_BOUND
    return Result(name, passed, told, time.monotonic() - began, difference, len(events))


def stopped(stage: Stage, name: str, job: Job, words: str) -> Result:
    """A run that must end in one line that has these words."""
    began = time.monotonic()
    try:
        stage.supervise(job)
        line = "it went on as if nothing had been"
    except (Stopped, InputError) as error:
        line = str(error)
    return Result(name, words in line and "\n" not in line, line, time.monotonic() - began)


def kill_rank(stage: Stage) -> Result:
    return resumed(stage, "kill-a-rank", lambda beats: os.kill(beats[1]["pid"], signal.SIGKILL))


def stop_rank(stage: Stage) -> Result:
    return resumed(stage, "stop-a-rank", lambda beats: os.kill(beats[1]["pid"], signal.SIGSTOP))


def cut_link(stage: Stage) -> Result:
    if not stage.namespaces:
        return Result("cut-the-link", None, "network namespaces are not allowed here, and a link is cut between two of them", 0.0)
    cable = link(stage.nodes[1].name)
    return resumed(stage, "cut-the-link", lambda beats: ip("link", "set", cable, "down"), 20.0, lambda: ip("link", "set", cable, "up"))


def corrupt_checkpoint(stage: Stage) -> Result:
    """The newest checkpoint is damaged, then a rank dies: the one before is used."""

    def damage(beats: dict[int, dict[str, Any]]) -> None:
        out = stage.folder / "corrupt-a-checkpoint"
        newest = sorted(out.glob("checkpoints/step-*/manifest.json"))[-1].parent
        part = next(newest.glob("part-*.safetensors"))
        content = bytearray(part.read_bytes())
        content[-1] ^= 1
        part.write_bytes(content)
        os.kill(beats[1]["pid"], signal.SIGKILL)

    return resumed(stage, "corrupt-a-checkpoint", damage)


def corrupt_shard(stage: Stage) -> Result:
    """A token shard is damaged: the checks before the start name the file."""
    job = stage.job("corrupt-a-shard")
    tokens = stage.folder / "damaged-tokens"
    shutil.copytree(stage.folder / "tokens", tokens, dirs_exist_ok=True)
    shard = next((tokens / "web").glob("tokens-*.bin"))
    content = bytearray(shard.read_bytes())
    content[10] ^= 1
    shard.write_bytes(content)
    return stopped(stage, "corrupt-a-shard", replace(job, tokens=tokens), f"{shard}: SHA-256")


def fill_disk(stage: Stage) -> Result:
    """Somebody else fills the disk of the checkpoints while the run trains: a line that names it, and what was complete stays."""
    small = stage.folder / "small-disk"
    small.mkdir(exist_ok=True)
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "phial", str(small)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return Result("fill-the-disk", None, "no small disk can be mounted here", 0.0)
    try:
        job = stage.job("fill-the-disk", checkpoints=str(small / "checkpoints"), keep_last=5)
        job.out.mkdir(parents=True, exist_ok=True)
        when_at(job.out, 12, lambda beats: fill(small))
        return stopped(stage, "fill-the-disk", job, "No space left on device; what was complete before is kept")
    finally:
        subprocess.run(["umount", "-l", str(small)], check=False, capture_output=True)


def fill(folder: Path) -> None:
    """Writes until the disk takes no byte more."""
    with suppress(OSError), open(folder / "somebody-elses", "wb", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))


def kill_supervisor(stage: Stage) -> Result:
    """The launcher itself is killed; started again it takes over, once its ranks are gone."""
    expected = stage.undisturbed()
    job = stage.job("kill-the-supervisor")
    job.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    write_json(
        job.out / "rehearse.json", {"job": job.to_json(), "nodes": [vars(node) | {"kind": type(node).__name__} for node in stage.nodes]}
    )
    command = python("training.cluster.rehearsal", str(job.out / "rehearse.json"))
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    when_at(job.out, 25, lambda beats: first.kill()).join()
    first.wait()
    result = stage.supervise(job)
    difference = max(abs(a - b) for a, b in zip(losses_of(job.out), expected, strict=True))
    told = f"killed after step 25; the next one went on from step {result['resumed_from']}"
    return Result(
        "kill-the-supervisor", difference < LOSS_BOUND and bool(result["resumed_from"]), told, time.monotonic() - began, difference
    )


SCENARIOS: dict[str, Callable[[Stage], Result]] = {
    "kill-a-rank": kill_rank,
    "stop-a-rank": stop_rank,
    "cut-the-link": cut_link,
    "corrupt-a-checkpoint": corrupt_checkpoint,
    "corrupt-a-shard": corrupt_shard,
    "fill-the-disk": fill_disk,
    "kill-the-supervisor": kill_supervisor,
}


def rehearse(folder: Path, names: list[str], stream: TextIO | None, show: TextIO | None = None) -> list[Result]:
    """The scenarios of those names, or all, one after another."""
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown:
        raise InputError(f"--rehearse {unknown[0]}: no such scenario; there is {', '.join(SCENARIOS)}, all")
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    with two_nodes() as nodes:
        stage = Stage(folder, nodes, stream)
        if show is not None and not stage.namespaces:
            print("rehearsal: network namespaces are not allowed here; the nodes are processes of this machine", file=show, flush=True)
        for name in names or list(SCENARIOS):
            result = SCENARIOS[name](stage)
            found.append(result)
            if show is not None:
                verdict = "skipped" if result.passed is None else "passed" if result.passed else "FAILED"
                print(f"rehearsal: {name}: {verdict} in {result.seconds:.0f} s: {result.told}", file=show, flush=True)
    return found


def supervise_file(path: Path) -> None:
    """A supervisor of its own process, to be killed."""
    told = read_json(path)
    kinds = {"Node": Node, "NamespaceNode": NamespaceNode}
    nodes = [kinds[one.pop("kind")](**one) for one in told["nodes"]]
    job = Job.from_json(told["job"])
    Supervisor(job, make_plan(job, sum(node.slots for node in nodes)), nodes, SETTINGS, None).run()


if __name__ == "__main__":
    supervise_file(Path(sys.argv[1]))
