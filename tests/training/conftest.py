"""A small corpus: a tokenizer and token shards, made once. The programs of this folder's tests can be imported by name."""

import random
import sys
from pathlib import Path

import pytest
import torch

from data_pipeline.tokens.recipe import TokenizerRecipe, TokensRecipe
from data_pipeline.tokens.shards import tokenize
from data_pipeline.tokens.tokenizer import train_tokenizer

sys.path.insert(0, str(Path(__file__).parent))

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


def sentences(seed: int, count: int) -> list[str]:
    chance = random.Random(seed)
    return [" ".join(chance.choices(WORDS, k=chance.randint(4, 60))) + "." for _ in range(count)]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tokenizer/, tokens/web and tokens/synthetic."""
    root = tmp_path_factory.mktemp("corpus")
    train_tokenizer(TokenizerRecipe(vocab_size=320), sentences(0, 200), root / "tokenizer")
    for number, source in enumerate(("web", "synthetic"), 1):
        tokenize(TokensRecipe(), root / "tokenizer", source, sentences(number, 300), root / "tokens" / source)
    return root


@pytest.fixture(autouse=True)
def one_thread():
    """Small sizes are fastest so, and other tests may have changed it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
