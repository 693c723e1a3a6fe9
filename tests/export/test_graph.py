"""The graph without quantization must give the decoder's logits, so that no fault can hide behind 4 bits; its cache must change nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export.build import export_package
from export.session import load_package
from modeling import load_decoder
from modeling.config import LongRope
from tests.export.conftest import LOOSE, TEXT

FLOAT = LOOSE.model_copy(update={"bits": 32})
VARIANTS: dict[str, dict[str, Any]] = {
    "mha": {"num_kv_heads": 4},
    "gqa": {},
    "window": {"window_keys": 9},
    "tied": {"tied": True},
    "partial rotary": {"num_heads": 2, "num_kv_heads": 1, "rotary_fraction": 0.5},
    "longrope": {
        "max_positions": 192,
        "original_max_positions": 96,
        "rope_scaling": LongRope(short_factors=(1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7), long_factors=(2.0,) * 8),
    },
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_float_logits_equal_torch_with_and_without_the_cache(variant: str, make_model: Callable[..., Path], tmp_path: Path) -> None:
    model = make_model(**VARIANTS[variant])
    export_package(FLOAT, model, tmp_path / "package", [TEXT])
    package = load_package(tmp_path / "package", 1)
    assert package.context == 96
    ids = np.random.default_rng(5).integers(11, 300, (2, 40))
    with torch.inference_mode():
        reference_BTV = load_decoder(model)(torch.tensor(ids)).numpy()
    assert np.ptp(reference_BTV, -1).min() > 1  # logits that say something
    np.testing.assert_allclose(package.logits(ids), reference_BTV, atol=1e-4)
    # Fed in pieces of uneven length and token by token, over the buffer's growth too.
    row = ids[0].tolist()
    for pieces in ([16, 1, 7, 1, 15], [1] * 40):
        package.runner.forget()
        start = 0
        for length in pieces:
            last_V = package.runner.feed(row[start : start + length])
            start += length
            np.testing.assert_allclose(last_V, reference_BTV[0, start - 1], atol=1e-4)


def test_the_cache_is_reused_for_a_shared_beginning_and_dropped_where_it_differs(package_folder: Path) -> None:
    package = load_package(package_folder, 1)
    random = np.random.default_rng(6)
    first = random.integers(11, 300, 30).tolist()
    second = first[:20] + random.integers(11, 300, 9).tolist()
    package.runner.prefill(first)
    fed: list[int] = []
    feed = package.runner.feed
    package.runner.feed = lambda ids: (fed.append(len(ids)), feed(ids))[1]  # type: ignore[method-assign]
    continued = package.runner.prefill(second)
    assert fed == [9]
    np.testing.assert_allclose(continued, package.logits(second)[-1], atol=1e-4)
    again = package.runner.prefill(second)  # the same prompt: only its last token runs
    assert fed == [9, 1]
    np.testing.assert_allclose(again, continued, atol=1e-4)


def test_rows_of_different_lengths_score_as_alone(package_folder: Path) -> None:
    package = load_package(package_folder, 1)
    rows = [np.random.default_rng(length).integers(11, 300, length).tolist() for length in (7, 1, 33, 20)]
    for row, logits_TV in zip(rows, package.batch_logits(rows), strict=True):
        assert logits_TV.shape[0] == len(row)
        np.testing.assert_allclose(logits_TV, package.logits(row), atol=1e-4)


def test_equal_bytes_are_stored_once_and_tensors_begin_at_pages(make_model: Callable[..., Path], tmp_path: Path) -> None:
    import onnx_ir as ir

    sizes = {}
    for tied in (False, True):
        folder = tmp_path / str(tied)
        export_package(LOOSE, make_model(tied=tied), folder, [TEXT])
        sizes[tied] = (folder / "model.onnx.data").stat().st_size
        tensors = [value.const_value for value in ir.load(folder / "model.onnx").graph.initializers.values()]
        offsets = {one.name: one.offset for one in tensors if isinstance(one, ir.ExternalTensor)}
        assert all(offset % 4096 == 0 for offset in offsets.values())
        assert (offsets["embedding.codes"] == offsets["head.codes"]) is tied
    assert sizes[True] < sizes[False]
