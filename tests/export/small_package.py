"""A small package for tests of the page: a tokenizer trained on counted sentences and a decoder with random weights."""

from pathlib import Path

import torch

from data_pipeline.storage import read_json, write_json
from data_pipeline.tokens.recipe import TokenizerRecipe
from data_pipeline.tokens.tokenizer import load_tokenizer, train_tokenizer, write_tokenizer_folder
from export.build import export_package
from export.recipe import ExportRecipe
from modeling import save_decoder
from modeling.config import DecoderConfig
from modeling.decoder import Decoder


def small_package(folder: Path) -> Path:
    """Writes model and package below `folder`; returns the package. Weights are wide enough apart that greedy steps are decided."""
    texts = [f"What is {a} plus {b}? It is {a + b}. The answer is a number, größer than {b}." for a in range(40) for b in range(10)]
    train_tokenizer(TokenizerRecipe(vocab_size=512), texts, folder / "tokenizer")
    tokenizer = load_tokenizer(folder / "tokenizer")
    config = DecoderConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        intermediate_size=128,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        max_positions=512,
        initializer_range=0.3,
    )
    torch.manual_seed(3)
    decoder = Decoder(config)
    for weight in decoder.parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.3)
    save_decoder(decoder, folder / "model")
    write_tokenizer_folder(tokenizer, folder / "model")
    loose = ExportRecipe(
        kl_budget=1e9, top1_budget=0.0, check_tokens=64
    )  # random weights do not survive 4 bits; that is not the point here
    export_package(loose, folder / "model", folder / "package", texts[:4])
    manifest = read_json(folder / "package" / "manifest.json")
    manifest["examples"] = ["What is 3 plus 4?", "What is 12 plus 9?"]
    write_json(folder / "package" / "manifest.json", manifest)
    return folder / "package"
