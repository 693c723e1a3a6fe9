"""A small tokenizer, decoders with weights wide enough to have opinions, and a data folder of every benchmark."""

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from data_pipeline.tokens.recipe import TokenizerRecipe
from data_pipeline.tokens.tokenizer import load_tokenizer, train_tokenizer
from modeling import save_decoder
from modeling.config import DecoderConfig
from modeling.decoder import Decoder
from modeling.initialise import initialise

SENTENCES = [
    f"Which is the largest of {a}, {b} and 7? The answer is {max(a, b, 7)}.\nAnswer: A river café." for a in range(9) for b in range(9)
]


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    train_tokenizer(TokenizerRecipe(vocab_size=384), SENTENCES, folder)
    return folder


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Callable[..., Path]:
    """make_model(seed=..., **settings of the decoder) -> a Hugging Face folder with its tokenizer."""

    def make(seed: int = 0, **settings: Any) -> Path:
        sizes = {"hidden_size": 64, "intermediate_size": 64, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "max_positions": 256}
        vocab_size = load_tokenizer(tokenizer_folder).get_vocab_size()
        config = DecoderConfig(vocab_size=vocab_size, eos_ids=(0,), **{**sizes, **settings})  # type: ignore[arg-type]
        decoder = initialise(Decoder(config), torch.Generator().manual_seed(seed))
        with torch.no_grad():
            for parameter in decoder.parameters():
                if parameter.ndim == 2:
                    parameter.mul_(8)
        folder = tmp_path_factory.mktemp("model") / "model"
        save_decoder(decoder, folder, tokenizer=tokenizer_folder)
        return folder

    return make


@pytest.fixture(scope="session")
def model_folder(make_model: Callable[..., Path]) -> Path:
    return make_model()


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve four-way items in two families with five shots each, nine exercises, nine pairs, four documents."""
    folder = tmp_path_factory.mktemp("data")
    draw = random.Random(1)
    for split, number in (("test", 6), ("dev", 5)):
        (folder / "mmlu" / split).mkdir(parents=True)
        for family in ("largest", "smallest_number"):
            with open(folder / "mmlu" / split / f"{family}_{split}.csv", "w", encoding="utf-8", newline="") as stream:
                for _ in range(number):
                    options = [str(one) for one in draw.sample(range(10, 999), 4)]
                    csv.writer(stream).writerow([f"Which is the {family}?", *options, draw.choice("ABCD")])
    numbers = range(9)
    write(
        folder / "exercises.jsonl",
        ({"id": f"e{n}", "family": "sums", "question": f"What is {n} plus 7?", "answer": str(n + 7)} for n in numbers),
    )
    write(
        folder / "preferences.jsonl",
        (
            {
                "id": f"p{n}",
                "prompt": [{"role": "user", "content": f"What is {n} plus 7?"}],
                "chosen": [{"role": "assistant", "content": f"The answer is {n + 7}."}],
                "rejected": [{"role": "assistant", "content": str(n)}],
                "family": "sums",
                "kind": "style",
            }
            for n in numbers
        ),
    )
    write(folder / "documents.jsonl", ({"id": f"d{n}", "text": " ".join(SENTENCES[n : n + 6])} for n in range(4)))
    return folder


def write(path: Path, rows: Any) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
