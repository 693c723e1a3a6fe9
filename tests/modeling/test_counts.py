"""Attended keys are counted exactly, and training operations are those of the published table."""

import dataclasses
from typing import Any

import pytest
import torch

from modeling.blocksparse_counts import needed_pairs
from modeling.config import BlockSparse, DecoderConfig
from modeling.counts import flops_per_token, layer_matrix_parameters, mean_keys, window_pairs
from modeling.errors import ModelError
from modeling.presets import PHI3_MEDIUM_4K, PHI3_MINI_4K, PHI3_SMALL_8K, TINY, TINY_SMALL
from modeling.visible import Visible, dense_mask

CPU = torch.device("cpu")


@pytest.mark.parametrize("length", [1, 20, 21, 22, 64])
@pytest.mark.parametrize("window", [None, 1, 21])
def test_window_pairs_are_the_masks(length: int, window: int | None) -> None:
    mask = dense_mask(Visible(num_queries=length, num_keys=length, window_keys=window), CPU)
    assert window_pairs(length, window) == int(mask.sum())


@pytest.mark.parametrize("length", [1, 3, 4, 5, 31, 64])
@pytest.mark.parametrize(
    "sparse",
    [BlockSparse(block=4, local_blocks=2, vertical_stride=4), BlockSparse(block=3, local_blocks=1, vertical_stride=8, same_heads=True)],
)
def test_blocksparse_pairs_are_the_masks(length: int, sparse: BlockSparse) -> None:
    mask = dense_mask(Visible(num_queries=length, num_keys=length), CPU, sparse, num_heads=4)
    assert needed_pairs(length, sparse, 4) == int(mask.sum())
    if length == 64:
        shifted = dataclasses.replace(sparse, local_blocks=sparse.local_blocks + 1)
        assert needed_pairs(length, shifted, 4) != int(mask.sum())


def test_mean_keys_of_documents_and_layers() -> None:
    lengths = [7, 40, 1]
    dense = [int(dense_mask(Visible(num_queries=one, num_keys=one), CPU).sum()) for one in lengths]
    sparse = [int(dense_mask(Visible(num_queries=one, num_keys=one), CPU, TINY_SMALL.blocksparse, 4).sum()) / 4 for one in lengths]
    assert mean_keys(TINY_SMALL, lengths) == pytest.approx((sum(dense) + sum(sparse)) / 2 / 48)
    assert mean_keys(PHI3_MINI_4K, [4096]) == (2047 * 2048 / 2 + 2049 * 2047) / 4096


def test_smalls_published_means() -> None:
    sparse_only = dataclasses.replace(PHI3_SMALL_8K, blocksparse=BlockSparse(dense_every=33))
    assert round(mean_keys(sparse_only, [8192])) == 1328
    assert round(mean_keys(sparse_only, [131_072])) == 9057


WHOLE: dict[str, Any] = {"window_keys": None, "blocksparse": None}
# GFLOP per token with every earlier key seen, and with the member's window or blocks: Phi-3's sizes, rounded as published.
TABLE = [
    (PHI3_MINI_4K, 4096, 24.75, 24.15, 2),
    (PHI3_MINI_4K, 32_768, 41.7, 24.7, 1),
    (PHI3_MINI_4K, 131_072, 99.6, 24.7, 1),
    (PHI3_SMALL_8K, 8192, 50.79, 48.61, 2),
    (PHI3_SMALL_8K, 32_768, 70.1, 59.5, 1),
    (PHI3_SMALL_8K, 131_072, 147.4, 103.0, 1),
    (PHI3_MEDIUM_4K, 4096, 87.81, 86.55, 2),
    (PHI3_MEDIUM_4K, 32_768, 123.0, 87.6, 1),
    (PHI3_MEDIUM_4K, 131_072, 243.8, 87.8, 1),
]


@pytest.mark.parametrize(("config", "context", "whole", "own", "digits"), TABLE)
def test_flops_of_the_table(config: DecoderConfig, context: int, whole: float, own: float, digits: int) -> None:
    assert round(flops_per_token(dataclasses.replace(config, **WHOLE), context) / 1e9, digits) == whole
    assert round(flops_per_token(config, context) / 1e9, digits) == own


def test_the_full_convention_counts_every_key() -> None:
    causal, full = flops_per_token(PHI3_MINI_4K, 2047), flops_per_token(PHI3_MINI_4K, 2047, "full")
    assert full - causal == pytest.approx(12 * 32 * 3072 * (2047 - 1024))
    packed = flops_per_token(TINY, [10, 30], "full")
    assert packed == pytest.approx(6 * (2 * layer_matrix_parameters(TINY) + 128 * 32) + 12 * 2 * 32 * (100 + 900) / 40)
    assert flops_per_token(TINY, [10, 30]) < flops_per_token(TINY, [40])


def test_nonsense_is_refused() -> None:
    with pytest.raises(ModelError, match="convention must be 'causal' or 'full', got 'half'"):
        flops_per_token(TINY, 8, "half")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="document lengths must be at least one number of at least 1"):
        mean_keys(TINY, [])
