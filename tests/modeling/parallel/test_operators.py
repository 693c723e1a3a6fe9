"""Operators and their adjoints on 1, 2, 3 and 4 ranks: matrices, inner products, and faults that the proofs must notice.

The matrix proof says which entry is wrong on tiny shapes; the inner products say whether anything is wrong at larger ones.
"""

import pytest
import torch

from tests.modeling.parallel.mutations import MUTATIONS
from tests.modeling.parallel.operator_cases import CASES, group_of
from tests.modeling.parallel.proofs import prove_dot, prove_matrix
from tests.ranks import Ranks

RANKS = (1, 2, 3, 4)
SCALE = 11  # the inner products' sizes, times those of the matrices
TRANSFORM_BOUND = 1e-14
DOT_BOUNDS = {
    torch.float64: (1e-13, 1e-12),
    torch.complex128: (1e-13, 1e-12),
    torch.float32: (1e-5, 1e-5),
    torch.complex64: (1e-5, 1e-5),
    torch.bfloat16: (2e-2, 2e-2),
}


def matrix_of(name: str, count: int) -> None:
    case = CASES[name](count, 1)
    prove_matrix(group_of(count), case.operator, case.shape, case.dtype, case.kinds, TRANSFORM_BOUND if case.transform else 0.0)


def dot_of(name: str, count: int, dtype: torch.dtype) -> None:
    case = CASES[name](count, SCALE)
    exact, chained = DOT_BOUNDS[dtype]
    prove_dot(group_of(count), case.operator, case.shape, dtype, exact if case.moves_only else chained, case.kinds)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("count", RANKS)
def test_the_adjoint_is_the_transposed_matrix(ranks: Ranks, name: str, count: int) -> None:
    ranks(count, matrix_of, name, count)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("count", RANKS)
def test_inner_products_agree(ranks: Ranks, name: str, count: int) -> None:
    complex_only = name.endswith("complex") or "dft" in name or "inverse rfft" in name
    real_only = ("rfft" in name and "inverse" not in name) or name == "truncated fft"
    for dtype in DOT_BOUNDS:
        if (dtype.is_complex and real_only) or (not dtype.is_complex and complex_only):
            continue
        if dtype is torch.bfloat16 and "fft" in name:
            continue  # torch has no transforms of it
        ranks(count, dot_of, name, count, dtype)


def noticed(name: str, count: int) -> None:
    """Both proofs fail on every rank."""
    case = MUTATIONS[name](count)
    group = group_of(count)
    with pytest.raises(AssertionError, match=r"differ|there"):
        prove_matrix(group, case.operator, case.shape, case.dtype, case.kinds, TRANSFORM_BOUND)
    if name != "inverse without length":  # the inner product of tensors of two lengths cannot be taken
        with pytest.raises(AssertionError, match="differ"):
            prove_dot(group, case.operator, case.shape, case.dtype, 1e-12, case.kinds)


@pytest.mark.parametrize("name", MUTATIONS)
def test_faults_are_noticed(ranks: Ranks, name: str) -> None:
    ranks(4, noticed, name, 4)
