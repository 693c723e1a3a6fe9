"""Runs a job on several machines and starts it again, as a whole, from its last complete checkpoint, as often as is worth while.

Every attempt has a new rendezvous: restarting ranks inside a live one is not dependable with gloo. An attempt ends when a machine's command
ends, when ranks stand still, or when everything is done. What a user has to mend (a line with exit code 2) is not tried again.
"""

import json
import os
import random
import re
import secrets
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from data_pipeline.errors import InputError
from data_pipeline.storage import is_local, read_json, write_json
from modeling.checkpoint import list_checkpoints
from modeling.counts import count_parameters
from training.checkpoint import step_of
from training.cluster.nodes import Node, python
from training.cluster.preflight import MARK, compare
from training.cluster.verify import COMPARED, sources_of
from training.cluster.watchdog import clear_heartbeats, describe_hang, read_heartbeats
from training.events import record
from training.job import Job, Plan
from training.run_lock import run_lock

POLL_SECONDS = 0.2
LEASE_SECONDS = 2.0  # between two bytes to every machine
PREFLIGHT_SECONDS = 300  # without a word
STATE_BYTES = 12  # of a parameter in a checkpoint: weight and two moments in float32
WEIGHT_BYTES = 4  # of a parameter in the model folder
BUDGET_EXIT = 2


class Stopped(InputError):
    """The run cannot go on without somebody's help; the line says why."""


@dataclass(frozen=True)
class Settings:
    """How often, how long, how patient."""

    restarts: int = 20
    fruitless: int = 3  # attempts in a row that complete no checkpoint, after which the run is given up
    hang_seconds: float = 600.0
    backoff_seconds: float = 5.0
    verify: bool = False  # compare every token shard with its SHA-256 before the start
    start_seconds: float = 600.0  # until the first step


@dataclass
class Outcome:
    """How an attempt ended: done, to be started again because `reason`, or `free` of charge because the run itself asked for it."""

    done: bool
    reason: str = ""
    free: bool = False


class Supervisor:
    """One run on its machines."""

    def __init__(self, job: Job, plan: Plan, nodes: Sequence[Node], settings: Settings, stream: TextIO | None) -> None:
        self.job, self.plan, self.nodes, self.settings, self.stream = job, plan, list(nodes), settings, stream
        self.ranks = sum(node.slots for node in self.nodes)
        self.folder = job.out / "launch"
        self.checkpoints = job.recipe.checkpoints or str(job.out / "checkpoints")
        self.attempts = 0

    def run(self) -> dict[str, Any]:
        """Until the run is done; returns its result."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with run_lock(self.job.out, self.say):
            self.wait_for_ghosts()
            write_json(self.folder / "job.json", self.job.to_json())
            self.preflight()
            fruitless, restarts = 0, 0
            while True:
                before = self.last_step()
                outcome = self.attempt()
                if outcome.done:
                    return read_json(self.job.out / "result.json")
                if outcome.free:
                    self.say(f"{outcome.reason}; starting again")
                    continue
                fruitless = 0 if self.last_step() > before else fruitless + 1
                self.check_budget(outcome.reason, restarts, fruitless)
                restarts += 1
                self.say(
                    f"{outcome.reason}; starting again from step {self.last_step()} ({self.settings.restarts - restarts} restarts left)"
                )
                record(self.job.out, "restarted", self.last_step(), attempt=self.attempts, reason=outcome.reason)
                time.sleep(self.settings.backoff_seconds * min(8, 2**fruitless))

    def check_budget(self, reason: str, restarts: int, fruitless: int) -> None:
        """Raises where another attempt is not worth while."""
        where = f"the last checkpoint, of step {self.last_step()}, is kept"
        if fruitless >= self.settings.fruitless:
            raise Stopped(f"launch: {fruitless} attempts in a row completed no checkpoint, the last because {reason}; given up, {where}")
        if restarts >= self.settings.restarts:
            raise Stopped(f"launch: {reason}; all {self.settings.restarts} restarts are used up (--restarts), {where}")

    def last_step(self) -> int:
        """The newest complete checkpoint's step, 0 where there is none."""
        return max((step_of(path) for path in list_checkpoints(self.checkpoints, report=lambda line: None)), default=0)

    def wait_for_ghosts(self) -> None:
        """Ranks of a supervisor that was killed end by themselves; a new attempt waits until the last of them has."""
        limit = time.monotonic() + 60
        told = False
        while beats := [beat for beat in read_heartbeats(self.job.out).values() if time.time() - beat["time"] < 4]:
            if not told:
                self.say(f"{len(beats)} ranks of an earlier supervisor still run; waiting for them to end")
                told = True
            if time.monotonic() > limit:
                raise Stopped(f"launch: ranks of an earlier run do not end: pids {sorted(beat['pid'] for beat in beats)}; end them by hand")
            time.sleep(0.5)
        clear_heartbeats(self.job.out)

    def preflight(self) -> None:
        """Looks at every machine at once; every fault is told, and one is enough to refuse the start."""
        request = self.preflight_request()
        write_json(self.folder / "preflight.json", request)
        (self.job.out / request["token"]).touch()
        asked = time.time()
        logs = [self.folder / f"preflight-{number}.log" for number in range(len(self.nodes))]
        with ExitStack() as stack:
            running = []
            for number, (node, log) in enumerate(zip(self.nodes, logs, strict=True)):
                command = python("training.cluster.preflight", str(self.folder / "preflight.json"), str(number))
                running.append(node.start(command, {}, stack.enter_context(open(log, "wb"))))
            self.wait_for_preflight(running, logs)
            end_all(running)
        (self.job.out / request["token"]).unlink(missing_ok=True)
        reports, faults = [], []
        for node, log in zip(self.nodes, logs, strict=True):
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            told = [line.removeprefix(MARK) for line in lines if line.startswith(MARK)]
            if not told:
                faults.append(f"{node.name}: no answer; its last words: {' | '.join(lines[-2:]) or 'none'}")
                continue
            reports.append(json.loads(told[-1]))
            faults += [f"{node.name}: {fault}" for fault in reports[-1]["faults"]]
        if reports:
            faults += compare(reports, asked, time.time())
            self.say_machines(reports)
        if faults:
            for fault in faults[:-1]:
                self.say(f"preflight: {fault}")
            raise Stopped(f"preflight: {faults[-1]}" + (f" (and {len(faults) - 1} faults above)" if len(faults) > 1 else ""))

    def wait_for_preflight(self, running: "list[subprocess.Popen[bytes]]", logs: list[Path]) -> None:
        """Until every machine has answered or says nothing for PREFLIGHT_SECONDS: comparing hashes takes as long as there are bytes, and
        whoever does it says how far it is."""
        sizes = [0] * len(logs)
        heard = [time.monotonic()] * len(logs)
        while any(process.poll() is None for process in running):
            for number, log in enumerate(logs):
                if (size := log.stat().st_size) > sizes[number]:
                    sizes[number], heard[number] = size, time.monotonic()
                    last = log.read_text(encoding="utf-8", errors="replace").rstrip("\n").rpartition("\n")[2]
                    if last.endswith(COMPARED):
                        self.say(f"preflight: {self.nodes[number].name}: {last}")
                elif running[number].poll() is None and time.monotonic() - heard[number] > PREFLIGHT_SECONDS:
                    running[number].kill()
            time.sleep(POLL_SECONDS)

    def preflight_request(self) -> dict[str, Any]:
        recipe = self.job.recipe
        parameters = count_parameters(self.plan.config)
        needed = {str(self.job.out.resolve()): parameters * WEIGHT_BYTES}
        if is_local(self.checkpoints):
            there = len(list_checkpoints(self.checkpoints, report=lambda line: None))
            folder = str(Path(self.checkpoints).resolve())
            needed[folder] = needed.get(folder, 0) + parameters * STATE_BYTES * max(1, recipe.keep_last + 1 - there)
        else:
            self.say(f"preflight: checkpoints go to {self.checkpoints}, whose room nobody here can tell")
        return {
            "out": str(self.job.out.resolve()),
            "token": f".preflight-{secrets.token_hex(4)}",
            "tokens": str(self.job.tokens.resolve()),
            "sources": sources_of(recipe),
            "verify": self.settings.verify,
            "needed_bytes": needed,
            "slots": [node.slots for node in self.nodes],
            "addresses": [node.address for node in self.nodes],
            "port": random.randint(20_000, 50_000),
        }

    def say_machines(self, reports: list[dict[str, Any]]) -> None:
        for one in reports:
            rate = one.get("bandwidth_bytes_per_s")
            linked = f", {rate / 1e9:.2f} GB/s to the next" if rate else ""
            gpus = f"{len(one['gpus'])} x {one['gpus'][0]}" if one["gpus"] else "no GPU"
            self.say(f"preflight: {one['host']}: torch {one['packages']['torch']}, {gpus}, {one['free_bytes'] / 1e9:.0f} GB free{linked}")

    def attempt(self) -> Outcome:
        """One try on all machines."""
        self.attempts += 1
        logs = self.job.out / "logs" / f"attempt-{self.attempts}"
        logs.mkdir(parents=True, exist_ok=True)
        error = self.folder / "error.json"
        error.unlink(missing_ok=True)
        (self.job.out / "result.json").unlink(missing_ok=True)
        clear_heartbeats(self.job.out)
        port, name = random.randint(20_000, 50_000), f"phial-{secrets.token_hex(4)}"
        self.say(f"attempt {self.attempts}: {self.ranks} ranks on {len(self.nodes)} machines, meeting at {self.nodes[0].address}:{port}")
        with ExitStack() as stack:
            running: list[subprocess.Popen[bytes]] = []
            try:
                for number, node in enumerate(self.nodes):
                    output = stack.enter_context(open(logs / f"node-{number}.log", "wb"))
                    running.append(node.start(self.command(number, port, name, logs), self.environment(node), output))
                return self.watch(running, logs, error)
            finally:
                end_all(running)

    def environment(self, node: Node) -> dict[str, str]:
        """What a machine's ranks are told beside the job file."""
        from training.hardware import threads_of

        threads = threads_of(self.job.recipe, node.slots)
        return {"PHIAL_HANG_SECONDS": str(self.settings.hang_seconds), "OMP_NUM_THREADS": str(threads)}

    def command(self, number: int, port: int, name: str, logs: Path) -> list[str]:
        """torchrun for one machine, inside the agent that ends it with us."""
        node = self.nodes[number]
        launcher = python(
            "torch.distributed.run",
            f"--nnodes={len(self.nodes)}",
            f"--node-rank={number}",
            f"--nproc-per-node={node.slots}",
            f"--master-addr={self.nodes[0].address}",
            f"--master-port={port}",
            f"--rdzv-id={name}",
            "--max-restarts=0",
            f"--log-dir={logs / f'node-{number}'}",
            "--redirects=2",
            "-m",
            "training.worker",
            str(self.folder / "job.json"),
        )
        return python("training.cluster.agent", *launcher)

    def watch(self, running: "list[subprocess.Popen[bytes]]", logs: Path, error: Path) -> Outcome:
        """Until all machines are done, or something ends the attempt."""
        leased, shown, began = 0.0, 0, time.time()
        while True:
            now = time.monotonic()
            if now - leased > LEASE_SECONDS:
                leased = now
                for process in running:
                    lease(process)
            shown = self.pass_on(logs / "node-0.log", shown)
            codes = [process.poll() for process in running]
            if all(code == 0 for code in codes):
                self.pass_on(logs / "node-0.log", shown)
                return Outcome(True)
            if any(codes):
                time.sleep(POLL_SECONDS)
                return self.why(codes, logs, error)
            beats = read_heartbeats(self.job.out)
            patience = (self.settings.hang_seconds, self.settings.start_seconds)
            hung = describe_hang(beats, self.ranks, time.time(), *patience) if self.settings.hang_seconds else None
            if hung:
                record(self.job.out, "hang", max((beat["step"] for beat in beats.values()), default=0), told=hung)
                return Outcome(False, hung)
            if not beats and time.time() - began > self.settings.start_seconds:
                return Outcome(False, f"no rank has begun after {self.settings.start_seconds:g} s")
            time.sleep(POLL_SECONDS)

    def pass_on(self, log: Path, shown: int) -> int:
        """Prints what the first rank has said since; returns how much has been shown."""
        if self.stream is None or not log.exists():
            return shown
        with open(log, "rb") as stream:
            stream.seek(shown)
            content = stream.read()
        whole = content[: content.rfind(b"\n") + 1]
        for line in whole.decode(errors="replace").splitlines():
            if line.startswith("pretrain:"):
                print(line, file=self.stream, flush=True)
        return shown + len(whole)

    def why(self, codes: list[int | None], logs: Path, error: Path) -> Outcome:
        """What ended the attempt: a line for the user, the run's own wish, or a rank that died."""
        limit = time.monotonic() + 2  # a rank that fails takes others along at once; the one with a line of its own is the cause
        while not error.exists() and time.monotonic() < limit:
            time.sleep(POLL_SECONDS)
        if error.exists():
            told = read_json(error)
            if told.get("rewound"):
                return Outcome(False, "the run went back to a checkpoint", free=True)
            raise Stopped(told["line"])
        for number, code in enumerate(codes):
            if code:
                text = (logs / f"node-{number}.log").read_text(encoding="utf-8", errors="replace")
                return Outcome(False, f"{self.nodes[number].name}: {describe_end(text, code)}")
        raise AssertionError("no machine has ended")

    def say(self, line: str) -> None:
        if self.stream is not None:
            print(f"launch: {line}", file=self.stream, flush=True)


def describe_end(text: str, code: int) -> str:
    """Which rank ended how, by torchrun's own account, or the last words of the machine."""
    ranks = re.findall(r"^\s*rank\s*:\s*(\d+)", text, re.MULTILINE)
    codes = re.findall(r"^\s*exitcode\s*:\s*(-?\d+)", text, re.MULTILINE)
    if ranks and codes:
        rank, ended = ranks[-1], int(codes[-1])
        return f"rank {rank} was killed by signal {-ended}" if ended < 0 else f"rank {rank} ended with exit code {ended}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"ended with exit code {code}: {lines[-1] if lines else 'nothing said'}"[:300]


def lease(process: "subprocess.Popen[bytes]") -> None:
    """A byte that says we are here."""
    try:
        assert process.stdin is not None
        process.stdin.write(b".")
        process.stdin.flush()
    except OSError:
        pass


def end_all(running: "list[subprocess.Popen[bytes]]") -> None:
    """Closing the pipes ends every machine's ranks; what does not follow is killed."""
    for process in running:
        try:
            if process.stdin is not None:
                process.stdin.close()
        except OSError:
            pass
    limit = time.monotonic() + 10
    for process in running:
        try:
            process.wait(max(0.1, limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
