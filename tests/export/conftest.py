"""Small models and one package of them, made once per run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from data_pipeline.tokens.recipe import TokenizerRecipe
from data_pipeline.tokens.tokenizer import load_tokenizer, train_tokenizer
from export.build import export_package
from export.recipe import ExportRecipe
from modeling.config import DecoderConfig
from modeling.decoder import Decoder
from modeling.hf_weights import save_decoder
from modeling.initialise import initialise

TEXT = "The pear is green. The café in 東京 is open 🙂 at nine; Größe and naïve words are spelled out. " * 12
LOOSE = ExportRecipe(kl_budget=5.0, top1_budget=0.0, check_tokens=64)


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    train_tokenizer(TokenizerRecipe(vocab_size=320), [TEXT], folder)
    return folder


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Callable[..., Path]:
    """A model folder of a two-layer decoder whose weights are large enough that every part of it shows in the logits."""

    def make(**settings: Any) -> Path:
        sizes = {"hidden_size": 64, "intermediate_size": 96, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "max_positions": 96}
        vocab_size = load_tokenizer(tokenizer_folder).get_vocab_size()
        config = DecoderConfig(vocab_size=vocab_size, eos_ids=(0,), **{**sizes, **settings})  # type: ignore[arg-type]
        random = torch.Generator().manual_seed(7)
        decoder = initialise(Decoder(config), random)
        with torch.no_grad():
            for name, parameter in decoder.named_parameters():
                if "norm" in name:
                    parameter.add_(0.2 * torch.randn(parameter.shape, generator=random))
                else:
                    parameter.mul_(6)
        folder = tmp_path_factory.mktemp("model") / "model"
        save_decoder(decoder, folder, tokenizer=tokenizer_folder)
        return folder

    return make


@pytest.fixture(scope="session")
def model(make_model: Callable[..., Path]) -> Path:
    return make_model()


@pytest.fixture(scope="session")
def package_folder(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package") / "package"
    export_package(LOOSE, model, folder, [TEXT])
    return folder
