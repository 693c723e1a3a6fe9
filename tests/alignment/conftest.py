"""A tokenizer, an untrained decoder of two layers and rows to train on, made once."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.tokens.recipe import TokenizerRecipe
from data_pipeline.tokens.tokenizer import train_tokenizer

WORDS = ("apple", "river", "stone", "cloud", "garden", "paper", "silver", "window")


def question(number: int) -> tuple[str, str, str]:
    """A question, its answer and a wrong one."""
    word, other = WORDS[number % 8], WORDS[(number + 3) % 8]
    return f"Say {word} {number % 5 + 1} times.", " ".join([word] * (number % 5 + 1)), " ".join(["never", other])


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder in Hugging Face's layout with a tokenizer of our own."""
    import torch
    from transformers import Phi3Config, Phi3ForCausalLM

    folder = tmp_path_factory.mktemp("base")
    texts = [" ".join(question(number)) for number in range(40)]
    made = train_tokenizer(TokenizerRecipe(vocab_size=320), texts, folder / "tokenizer")
    torch.manual_seed(0)
    config = Phi3Config(
        vocab_size=made["vocab_size"],
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=0,
    )
    Phi3ForCausalLM(config).save_pretrained(folder / "model")
    for file in (folder / "tokenizer").iterdir():
        shutil.copy(file, folder / "model")
    return folder / "model"


@pytest.fixture(scope="session")
def sft_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    asked = [question(number) for number in range(40)]
    rows = [{"messages": [turn("user", ask), turn("assistant", answer)], "family": "say"} for ask, answer, _ in asked]
    return write_rows(tmp_path_factory.mktemp("rows") / "sft.jsonl", rows)


@pytest.fixture(scope="session")
def dpo_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [
        {"prompt": [turn("user", ask)], "chosen": [turn("assistant", right)], "rejected": [turn("assistant", wrong)], "family": "say"}
        for ask, right, wrong in map(question, range(40))
    ]
    return write_rows(tmp_path_factory.mktemp("rows") / "dpo.jsonl", rows)
