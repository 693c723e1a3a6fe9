"""An S3 server and a Ray cluster of several nodes on this machine, for as long as a part of the benchmark needs them."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_pipeline.engine.ray_workers import end_processes, local_settings

NODE_STORE_BYTES = 200_000_000


@contextmanager
def s3_server(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """moto's server in its own process: the journal's address, and the environment that leads there."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": secrets.token_hex(8), "AWS_DEFAULT_REGION": "us-east-1"}
    environment["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port}"
    with (folder / "moto.log").open("wb") as log:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            code = "import s3fs; s3fs.S3FileSystem().mkdir('bucket')"
            limit = time.monotonic() + 120
            while subprocess.run([sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True).returncode:
                if time.monotonic() > limit:
                    raise RuntimeError("the S3 server did not come up")
                time.sleep(0.5)
            yield "s3://bucket/journal", environment
        finally:
            server.kill()
            server.wait()


@contextmanager
def ray_cluster(cores: list[int]) -> Iterator[Any]:
    """A Ray cluster with one node for each number of cores; the first is its head."""
    local_settings()
    os.environ["RAY_AUTH_MODE"] = "token"
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="phial-ray-", dir="/tmp")
    Path(folder, "ray").mkdir()
    before = os.environ.get("RAY_TMPDIR")
    os.environ["RAY_TMPDIR"] = folder  # also for the file that names the current cluster
    cluster = None
    try:
        head = {"num_cpus": cores[0], "include_dashboard": False, "object_store_memory": NODE_STORE_BYTES}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        for number in cores[1:]:
            cluster.add_node(num_cpus=number, object_store_memory=NODE_STORE_BYTES)
        yield cluster
    finally:
        if cluster is not None:
            cluster.shutdown()
        end_processes(folder)
        shutil.rmtree(folder, ignore_errors=True)
        os.environ.pop("RAY_TMPDIR") if before is None else os.environ.update(RAY_TMPDIR=before)
