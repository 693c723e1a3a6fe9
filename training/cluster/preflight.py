"""Before a start, on every machine: `python -m training.cluster.preflight REQUEST.json NODE` prints what it finds as one JSON line."""

import json
import platform
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from data_pipeline.errors import InputError
from data_pipeline.storage import read_json
from data_pipeline.tokens.shards import TokenShards
from training.cluster.verify import verify_shards

PACKAGES = ("torch", "deepspeed", "transformers", "numpy")
BANDWIDTH_BYTES = 32 * 2**20
CLOCK_SECONDS = 5.0
REACH_SECONDS = 60.0  # until the next machine must have begun too
MARK = "PREFLIGHT "


def look(request: dict[str, Any], node: int, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """This machine's facts, and in `faults` one line for each thing that a run would fail on; `say` hears how far long work is."""
    faults: list[str] = []
    facts: dict[str, Any] = {"node": node, "host": socket.gethostname(), "python": platform.python_version(), "time": time.time()}
    facts["packages"] = {name: version_of(name) for name in PACKAGES}
    out = Path(request["out"])
    token = out / request["token"]
    if not token.exists():
        faults.append(f"{out}: not the folder that the launching machine sees; the run's folder must be on shared storage")
    if len(request["addresses"]) > 1:  # first, while the machines are level: what comes after takes some longer than others
        facts["bandwidth_bytes_per_s"], fault = measure_bandwidth(request["addresses"], request["port"], node)
        faults += [fault] if fault else []
    facts["free_bytes"] = shutil.disk_usage(standing(out)).free
    faults += look_at_disks(request["needed_bytes"])
    facts["gpus"], gpu_faults = look_at_gpus(request["slots"][node])
    faults += gpu_faults
    tokens, sources = Path(request["tokens"]), request["sources"]
    faults += verify_shards(tokens, sources, say) if request["verify"] else open_shards(tokens, sources)
    return facts | {"faults": faults}


def open_shards(tokens: Path, sources: Iterable[str]) -> list[str]:
    """One line for each source whose shards are not there or not whole by their sizes."""
    faults = []
    for source in sources:
        try:
            TokenShards.open(tokens / source)
        except (InputError, OSError) as error:
            faults.append(" ".join(str(error).split()))
    return faults


def standing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(path for path in (folder, *folder.absolute().parents) if path.is_dir())


def look_at_disks(needed: dict[str, int]) -> list[str]:
    """One line for each disk without the bytes that its folders need together."""
    disks: dict[int, list[str]] = {}
    for folder in needed:
        disks.setdefault(standing(Path(folder)).stat().st_dev, []).append(folder)
    faults = []
    for folders in disks.values():
        free, asked = shutil.disk_usage(standing(Path(folders[0]))).free, sum(needed[folder] for folder in folders)
        if free < asked:
            faults.append(f"{' and '.join(folders)}: {free / 1e9:.1f} GB free, what is still to be written takes {asked / 1e9:.1f} GB")
    return faults


def version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def look_at_gpus(slots: int) -> tuple[list[str], list[str]]:
    """The devices by name, and what is wrong with them; a machine without any trains on its processors."""
    import torch

    if not torch.cuda.is_available():
        return [], []
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    faults = [] if len(names) >= slots else [f"{slots} slots and {len(names)} GPUs"]
    for index in range(len(names)):
        try:
            product = torch.ones(256, 256, device=f"cuda:{index}") @ torch.ones(256, 256, device=f"cuda:{index}")
            if float(product.sum()) != 256.0**3:
                faults.append(f"GPU {index} computes wrong products")
        except RuntimeError as error:
            faults.append(f"GPU {index}: {str(error).splitlines()[0]}")
    query = ["nvidia-smi", "--query-gpu=index,ecc.errors.uncorrected.volatile.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return names, faults
    for line in told.splitlines():
        index, _, errors = line.partition(",")
        if errors.strip().isdigit() and int(errors) > 0:
            faults.append(f"GPU {index.strip()} has {errors.strip()} uncorrected memory errors")
    return names, faults


def measure_bandwidth(addresses: list[str], port: int, node: int) -> tuple[float | None, str | None]:
    """Bytes per second from this machine to the next one of the ring, and the fault where it cannot be reached."""
    server = socket.create_server(("", port + node), backlog=4)
    server.settimeout(REACH_SECONDS + 30)

    def swallow() -> None:
        try:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(30)
                left = BANDWIDTH_BYTES
                while left > 0 and (got := connection.recv(2**20)):
                    left -= len(got)
                connection.sendall(b".")
        except OSError:
            pass

    thread = threading.Thread(target=swallow, daemon=True)
    thread.start()
    other = (node + 1) % len(addresses)
    limit = time.monotonic() + REACH_SECONDS
    while True:
        try:
            with socket.create_connection((addresses[other], port + other), timeout=5) as link:
                link.settimeout(30)
                began = time.perf_counter()
                link.sendall(bytes(BANDWIDTH_BYTES))
                link.recv(1)
                rate = BANDWIDTH_BYTES / (time.perf_counter() - began)
            thread.join(30)
            return rate, None
        except OSError as error:
            if isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME:
                server.close()
                told = "no such name here; machines reach each other by the names of the hosts file, not by ssh's aliases"
                return None, f"{addresses[other]}: {told}"
            if time.monotonic() > limit:
                return None, f"node {other} ({addresses[other]}) cannot be reached: {error.strerror or error}"
            time.sleep(0.3)
        finally:
            if time.monotonic() > limit:
                server.close()


def compare(reports: list[dict[str, Any]], asked_at: float, answered_at: float) -> list[str]:
    """What is wrong between the machines: versions that differ, clocks apart. A machine tells its time when it begins, which is soon after
    it was asked however late it answers."""
    answered_at = min(answered_at, asked_at + REACH_SECONDS)
    faults = []
    first = reports[0]
    for one in reports[1:]:
        for name in PACKAGES:
            if one["packages"][name] != first["packages"][name]:
                faults.append(f"{one['host']}: {name} {one['packages'][name]}, and {first['packages'][name]} on {first['host']}")
        if one["python"] != first["python"]:
            faults.append(f"{one['host']}: Python {one['python']}, and {first['python']} on {first['host']}")
    for one in reports:
        early, late = asked_at - CLOCK_SECONDS, answered_at + CLOCK_SECONDS
        if not early <= one["time"] <= late:
            off = one["time"] - (asked_at + answered_at) / 2
            faults.append(f"{one['host']}: its clock is {off:+.0f} s off; set it by NTP")
    return faults


if __name__ == "__main__":
    sys.stdout.write(MARK + json.dumps(look(read_json(sys.argv[1]), int(sys.argv[2]), lambda line: print(line, flush=True))) + "\n")  # noqa: T201
