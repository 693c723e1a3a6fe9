"""Every test runs with its own home and caches, without the network, with fixed seeds and one thread."""

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.ranks import Ranks

# Before any test module imports the libraries that read these once.
os.environ.update(
    HF_HUB_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    MPLBACKEND="Agg",
    NO_COLOR="1",
    TERM="dumb",
)


@pytest.fixture(scope="session", autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty home folder and empty caches; child processes inherit them."""
    home = tmp_path_factory.mktemp("home")
    for name, inside in {
        "HOME": "",
        "USERPROFILE": "",
        "XDG_CACHE_HOME": ".cache",
        "XDG_CONFIG_HOME": ".config",
        "XDG_DATA_HOME": ".local/share",
        "HF_HOME": ".cache/huggingface",
        "TRITON_CACHE_DIR": ".triton",
        "MPLCONFIGDIR": ".config/matplotlib",
    }.items():
        os.environ[name] = str(home / inside)
    return home


@pytest.fixture(autouse=True)
def seeds() -> None:
    """The same random numbers for every test, whatever ran before it; torch only where a test has imported it."""
    random.seed(0)
    np.random.seed(0)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)
        torch.set_num_threads(1)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    """Functions on several gloo ranks, which live as long as the file's tests."""
    with Ranks(tmp_path_factory.mktemp("ranks")) as found:
        yield found
