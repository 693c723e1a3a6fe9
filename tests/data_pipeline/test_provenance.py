"""Figures say what they were measured on, and a process's peak memory is its own."""

import subprocess
import sys

import numpy as np

from data_pipeline.provenance import peak_rss_bytes, provenance

SHOW = "from data_pipeline.provenance import peak_rss_bytes; print(peak_rss_bytes())"


def test_what_results_carry() -> None:
    found = provenance("numpy", "no-such-package")
    assert found["machine"]["packages"] == {"numpy": np.__version__, "no-such-package": "not installed"}
    assert found["machine"]["cores"] >= 1
    assert found["date"].endswith("Z")
    assert isinstance(found["commit"], str)


def test_peak_memory_is_the_processes_own() -> None:
    held = np.ones(50_000_000)  # 400 MB in this process
    own = peak_rss_bytes()
    assert own > held.nbytes
    child = int(subprocess.run([sys.executable, "-c", SHOW], capture_output=True, text=True, check=True).stdout)
    assert child < held.nbytes  # a small process started by a large one


def test_children_count_where_asked() -> None:
    assert peak_rss_bytes(children=True) >= peak_rss_bytes()
