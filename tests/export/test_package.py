"""The package folder: whole, checked, and refused in one line when it is not."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import export.graph
from data_pipeline.errors import InputError
from export.build import export_package
from export.package import FILES, open_package
from export.quantize import quantize
from export.recipe import ExportRecipe
from export.weights import WeightFolder
from tests.export.conftest import LOOSE, TEXT


@pytest.fixture
def copy(package_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(package_folder, tmp_path / "copy"))


def refused(folder: Path, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        open_package(folder)
    assert "\n" not in str(caught.value)


def test_the_manifest_says_what_is_there(package_folder: Path) -> None:
    manifest = open_package(package_folder)
    assert set(manifest["files"]) == set(FILES) == {path.name for path in package_folder.iterdir()} - {"manifest.json"}
    assert manifest["limits"]["kv_bytes_per_token"] == 2 * 2 * 2 * 16 * 4
    assert {"kl", "top1", "bits_per_byte", "bits_per_byte_float32"} <= manifest["check"].keys()
    # Both layers and the head: 4 bits, a float32 scale and half a byte of zero point per 32 weights; 3 blocks round up to 2 bytes.
    vocab = manifest["architecture"]["vocab_size"]
    rows_of_64, rows_of_96 = 2 * (8 * 16 + 64 + 192) + vocab, 2 * 64
    assert manifest["limits"]["weight_bytes_per_token"] == rows_of_64 * (32 + 8 + 1) + rows_of_96 * (48 + 12 + 2)


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_is_refused_by_name(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(bytes(data))
    refused(copy, f"{name}: wrong checksum")


def test_damage_and_absence_have_their_lines(copy: Path, tmp_path: Path) -> None:
    refused(tmp_path / "nothing", "no such folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "not a package")
    with open(copy / "model.onnx.data", "r+b") as stream:
        stream.truncate(1000)
    refused(copy, "has 1000 bytes")
    (copy / "model.onnx.data").unlink()
    refused(copy, "missing")
    manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    for change, words in (
        ({"format": 2}, "package format 2"),
        ({"files": {}}, "does not list"),
        ({"format": "1"}, "not a package's manifest"),
        ({"files": {**manifest["files"], "model.onnx": {}}}, "bytes and sha256 are needed"),
        ({"limits": None}, "limits lacks context"),
        ({"limits": {**manifest["limits"], "kv_shape": "x"}}, "kv_shape must be"),
        ({"limits": {**manifest["limits"], "context": -4}}, "context must be"),
        ({"architecture": {}}, "architecture lacks vocab_size"),
    ):
        (copy / "manifest.json").write_text(json.dumps({**manifest, **change}), encoding="utf-8")
        refused(copy, words)
    (copy / "manifest.json").write_text("{", encoding="utf-8")
    refused(copy, "not valid JSON")


def wrong_zero_points(weights_NK: np.ndarray, **settings: Any) -> Any:
    packed = quantize(weights_NK, **settings)
    assert packed.zero_points is not None
    return replace(packed, zero_points=packed.zero_points ^ 0x33)


def gate_and_up_swapped(self: WeightFolder, name: str, shape: tuple[int, ...]) -> np.ndarray:
    found = TENSOR(self, name, shape)
    return np.roll(found, shape[0] // 2, axis=0) if "gate_up" in name else found


TENSOR = WeightFolder.tensor


@pytest.mark.parametrize("fault", ["none", "zero points", "gate and up"])
def test_the_gate_lets_a_sound_file_pass_and_refuses_a_faulty_one(
    fault: str, model: Path, package_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = open_package(package_folder)["check"]
    budget = ExportRecipe(kl_budget=2 * sound["kl"], top1_budget=0.8 * sound["top1"], check_tokens=64)
    if fault == "zero points":
        monkeypatch.setattr(export.graph, "quantize", wrong_zero_points)
    if fault == "gate and up":
        monkeypatch.setattr(WeightFolder, "tensor", gate_and_up_swapped)
    out = tmp_path / "package"
    if fault == "none":
        export_package(budget, model, out, [TEXT])
        assert (out / "manifest.json").exists()
        return
    with pytest.raises(InputError, match=r"over budget, nothing was written: KL \d+\.\d+ nats .* top-1 agreement") as caught:
        export_package(budget, model, out, [TEXT])
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_export_is_a_function_of_its_inputs(model: Path, package_folder: Path, tmp_path: Path) -> None:
    again = export_package(LOOSE, model, tmp_path / "package", [TEXT])
    assert again == open_package(package_folder)


def test_without_a_text_the_models_own_samples_are_used_aloud(model: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    manifest = export_package(LOOSE, model, tmp_path / "package", [], lines.append)
    assert manifest["check"]["text"] == "the model's own samples"
    assert any("no check text given" in line for line in lines)


def test_bad_models_and_places_are_refused(make_model: Callable[..., Path], model: Path, tmp_path: Path) -> None:
    def export(model: Path, words: str, out: Path = tmp_path / "out", recipe: ExportRecipe = LOOSE) -> None:
        with pytest.raises(ValueError, match=words) as caught:
            export_package(recipe, model, out, [TEXT])
        assert getattr(caught.value, "exit_code", None) == 2
        assert "\n" not in str(caught.value)

    export(tmp_path / "nothing", "no such folder")
    export(model, "would replace the model", model)
    export(model, "serves at most 96", recipe=LOOSE.model_copy(update={"context": 97}))
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.txt").write_text("precious")
    export(model, "is no package", taken)
    assert (taken / "thesis.txt").read_text() == "precious"
    export(make_model(num_heads=8, num_kv_heads=8), "multiple of 16")
    broken = Path(shutil.copytree(model, tmp_path / "broken"))
    (broken / "tokenizer.json").unlink()
    export(broken, "no tokenizer.json")
    shutil.copyfile(model / "tokenizer.json", broken / "tokenizer.json")
    (broken / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    export(broken, "chat template is not phi-3's")
    (broken / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:-100])
    (broken / "chat_template.jinja").unlink()
    export(broken, "cut short")
    assert not (tmp_path / "out").exists()
