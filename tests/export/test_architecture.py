"""What a package cannot hold is refused at the door."""

from pathlib import Path

import pytest

from data_pipeline.errors import InputError
from export.architecture import read_architecture
from modeling import save_decoder
from modeling.decoder import Decoder
from modeling.presets import TINY_SMALL


def test_phi3_small_gets_one_line(tmp_path: Path) -> None:
    save_decoder(Decoder(TINY_SMALL), tmp_path / "model")
    with pytest.raises(InputError, match=r"config\.json: the 4-bit package has no phi-3-small yet .*; a phi3 folder is needed$"):
        read_architecture(tmp_path / "model")
