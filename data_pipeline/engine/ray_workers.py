"""Workers as Ray tasks: Ray finds them machines and brings lost ones back; what they do, and who does it, is in the journal."""

import os
import secrets
import shutil
import tempfile
from contextlib import suppress
from typing import Any

import psutil

from data_pipeline.engine.plans import Plan
from data_pipeline.engine.standing import stand
from data_pipeline.errors import InputError, missing_extra

NODE_START_SECONDS = "120"  # on a busy machine 30 s are too few; Ray's Python side has that limit fixed, hence the new starts
STARTS = 3
INSTALL = "pip install 'phial[ray]'"


def serve(url: str, plan: str, lease_seconds: float, memory_growth_bytes: int) -> int:
    """What a Ray task runs: one worker, until the plan is done. Returns how many tasks it did."""
    found = stand(url, plans=[plan], lease_seconds=lease_seconds, memory_growth_bytes=memory_growth_bytes, signals=False)
    return found["tasks"]


class Cluster:
    """The Ray cluster of one engine: the one the program is connected to, that of RAY_ADDRESS or `options["address"]`, or a local one.

    A local one that was started here ends with the engine, and its files with it.
    """

    def __init__(self, url: str, options: dict[str, Any], workers: int | None, lease_seconds: float, memory_growth_bytes: int) -> None:
        try:
            import ray
        except ImportError as error:
            raise missing_extra("ray", INSTALL, 'workers="ray"') from error
        if workers is not None and workers < 1:
            raise InputError(f"Engine: ray_workers is at least 1, got {workers}")
        self.ray: Any = ray
        self.url = url
        self.workers = workers
        self.lease_seconds = lease_seconds
        self.memory_growth_bytes = memory_growth_bytes
        self._refs: list[Any] = []
        self._folder: str | None = None
        self._started = not ray.is_initialized()
        if self._started:
            self._connect(options)

    def _connect(self, options: dict[str, Any]) -> None:
        chosen: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", **options}
        local = not chosen.get("address") and not os.environ.get("RAY_ADDRESS")
        if local:
            chosen = {"include_dashboard": False, **chosen, "address": "local"}
            local_settings()
        for left in reversed(range(STARTS if local else 1)):
            if local and "_temp_dir" not in options:
                self._folder = chosen["_temp_dir"] = tempfile.mkdtemp(prefix="phial-ray-", dir="/tmp")  # Ray's sockets need a short path
            try:
                self.ray.init(**chosen)
                return
            except Exception as error:  # Ray raises a bare Exception where a node did not come up in time
                self.close()
                self._started = True
                if not left:
                    raise InputError(f"Ray cannot be reached or started: {type(error).__name__}: {error}") from error

    def open(self, plan: Plan) -> None:
        """Gives Ray as many workers as the cluster has cores, or as were asked for; those it has no room for yet make it grow."""
        wanted = self.workers or max(1, int(self.ray.cluster_resources().get("CPU", 1)))
        remote = self.ray.remote(num_cpus=1, max_retries=-1)(serve)
        for _ in range(min(wanted, len(plan.tasks))):
            self._refs.append(remote.remote(self.url, plan.id, self.lease_seconds, self.memory_growth_bytes))

    def check(self) -> None:
        """Raises what a worker raised."""
        if not self._refs:
            return
        ended, self._refs = self.ray.wait(self._refs, num_returns=len(self._refs), timeout=0)
        for ref in ended:
            try:
                self.ray.get(ref)
            except self.ray.exceptions.RayTaskError as error:
                raise (error.cause if isinstance(error.cause, BaseException) else error) from None

    def close(self, paused: bool = False) -> None:
        """Ends the workers; a cluster that was started here ends with its processes and files.

        Of a run that is `paused` the workers end by themselves, when what they are at is done.
        """
        if paused and self._refs:
            self.ray.wait(self._refs, num_returns=len(self._refs))
        for ref in self._refs:
            self.ray.cancel(ref, force=True)
        self._refs = []
        if self._started:
            self.ray.shutdown()
            self._started = False
        if self._folder is not None:
            end_processes(self._folder)
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def local_settings() -> None:
    """Settings of a local cluster, unless the user has made them: time to start, no report of its use, no file with a token."""
    os.environ.setdefault("RAY_raylet_start_wait_time_s", NODE_START_SECONDS)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if "RAY_AUTH_MODE" not in os.environ and "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def end_processes(folder: str) -> None:
    """Ends what a start of Ray that failed has left: children of ours that were told this folder, which no other cluster has."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if any(folder in word for word in process.cmdline()):
                process.kill()
                process.wait(5)
