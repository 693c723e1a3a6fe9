"""Codes against a plain reference written block by block, and against onnxruntime's kernels."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from export.quantize import pack, quantize, unpack


def plain(row_K: np.ndarray, block: int, bits: int, symmetric: bool) -> np.ndarray:
    """Round-to-nearest of one row, one number at a time."""
    top, out = 2**bits - 1, []
    for start in range(0, len(row_K), block):
        values = [float(value) for value in row_K[start : start + block]]
        padded = values + [0.0] * (block - len(values))
        if symmetric:
            scale, zero = max(padded, key=abs) / -(2 ** (bits - 1)), 2 ** (bits - 1)
        else:
            scale = (max(max(padded), 0) - min(min(padded), 0)) / top
            zero = min(max(round(-min(min(padded), 0) / scale), 0), top)
        out += [(min(max(round(value / scale) + zero, 0), top) - zero) * scale for value in values]
    return np.array(out, np.float32)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("columns", "block"), [(64, 32), (48, 32), (160, 128)])
def test_codes_equal_the_plain_reference(bits: int, symmetric: bool, columns: int, block: int) -> None:
    weights_NK = np.random.default_rng(1).normal(size=(5, columns)).astype(np.float32)
    found = quantize(weights_NK, bits=bits, block=block, symmetric=symmetric, search=False).dequantize()
    reference = np.stack([plain(row, block, bits, symmetric) for row in weights_NK])
    # float32 and float64 may round a value on the edge between two codes apart; nothing else may differ.
    close = np.isclose(found, reference, atol=1e-5)
    assert close.mean() > 0.995
    assert np.abs(found - reference).max() < np.abs(weights_NK).max() / 2 ** (bits - 2)


@pytest.mark.parametrize("symmetric", [True, False])
def test_searched_scales_lower_the_squared_error_of_every_block(symmetric: bool) -> None:
    weights_NK = np.random.default_rng(2).standard_t(3, size=(64, 128)).astype(np.float32)
    errors = []
    for search in (False, True):
        difference = quantize(weights_NK, symmetric=symmetric, search=search).dequantize() - weights_NK
        errors.append((difference.reshape(64, 4, 32) ** 2).sum(-1))
    assert (errors[1] <= errors[0] * (1 + 1e-5) + 1e-9).all()
    assert errors[1].sum() < 0.96 * errors[0].sum()


def run(op: str, inputs: dict[str, np.ndarray], constants: list[np.ndarray], constants_first: bool, **attributes: int) -> np.ndarray:
    """One contrib node in onnxruntime."""
    feeds = [
        ir.Value(name=name, type=ir.TensorType(ir.DataType.from_numpy(array.dtype)), shape=ir.Shape(array.shape))
        for name, array in inputs.items()
    ]
    values = [ir.Value(name=f"c{number}", const_value=ir.tensor(array, name=f"c{number}")) for number, array in enumerate(constants)]
    ordered = [values[0], *feeds, *values[1:]] if constants_first else [*feeds, *values]
    out = ir.Value(name="out", type=ir.TensorType(ir.DataType.FLOAT))
    node = ir.Node("com.microsoft", op, ordered, attributes=ir.convenience.convert_attributes(attributes), outputs=[out])
    graph = ir.Graph(feeds, [out], nodes=[node], initializers=values, opset_imports={"": 21, "com.microsoft": 1}, name="one")
    data = ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString()
    return ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, inputs)[0]  # type: ignore[return-value]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("columns", [64, 80])
def test_onnxruntime_reads_the_codes_as_we_do(bits: int, symmetric: bool, columns: int) -> None:
    random = np.random.default_rng(3)
    packed = quantize(random.normal(size=(24, columns)).astype(np.float32), bits=bits, symmetric=symmetric)
    rest = [packed.scales] if packed.zero_points is None else [packed.scales, packed.zero_points]
    x = random.normal(size=(3, columns)).astype(np.float32)
    product = run("MatMulNBits", {"x": x}, [packed.codes, *rest], False, K=columns, N=24, bits=bits, block_size=32, accuracy_level=0)
    np.testing.assert_allclose(product, x @ packed.dequantize().T, atol=2e-5)
    ids = np.array([[0, 23, 5]], np.int64)
    codes = [packed.gather_codes(), *rest]
    rows = run("GatherBlockQuantized", {"ids": ids}, codes, True, gather_axis=0, quantize_axis=1, block_size=32, bits=bits)
    np.testing.assert_allclose(rows, packed.dequantize()[ids], atol=1e-6)
    # The comparison can fail: nibbles or neighbours in the wrong order.
    wrong = np.ascontiguousarray(packed.codes[..., ::-1])
    other = run("MatMulNBits", {"x": x}, [wrong, *rest], False, K=columns, N=24, bits=bits, block_size=32, accuracy_level=0)
    assert np.abs(other - product).max() > 0.1


def test_a_block_of_zeros_stays_zero_and_packing_is_undone() -> None:
    assert not quantize(np.zeros((2, 40), np.float32)).dequantize().any()
    codes = np.random.default_rng(4).integers(0, 16, (3, 7)).astype(np.uint8)
    np.testing.assert_array_equal(unpack(pack(codes, 4), 4, 7), codes)
