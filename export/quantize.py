"""Blockwise round-to-nearest quantization, packed as MatMulNBits and GatherBlockQuantized read it.

A weight matrix W (N rows of K values) is cut into blocks of L along K. Within a block, w = (code - zero) * scale; codes have 4 or 8 bits.
Rounding is to nearest throughout; only the scale and the zero point may be searched (`search=True`): of a grid of shrunken ranges, each
followed by the least-squares scale for its codes, the one of least squared error wins. No activations are looked at.

Shape suffixes: N rows, K columns, C blocks per row (K / L rounded up), L block length.
"""

from dataclasses import dataclass

import numpy as np

# Shrink factors tried by the search; 1 is plain round-to-nearest, so a search is never worse.
SHRINK = (1.0, 0.96, 0.92, 0.88, 0.84, 0.8, 0.76, 0.72)
# Weights worked on at once, which bounds the memory of an export by a few float32 copies of this many values.
SLAB = 1 << 21


@dataclass(frozen=True)
class Quantized:
    """One matrix: packed codes, and what turns them back into numbers."""

    codes: np.ndarray  # uint8 (N, C, L * bits / 8), low nibble first
    scales: np.ndarray  # float32 (N, C)
    zero_points: np.ndarray | None  # uint8 (N, C * bits / 8 rounded up); None where every zero point is 2 ** (bits - 1)
    columns: int
    block: int
    bits: int

    @property
    def rows(self) -> int:
        return self.codes.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of codes, scales and zero points."""
        return self.codes.nbytes + self.scales.nbytes + (0 if self.zero_points is None else self.zero_points.nbytes)

    def gather_codes(self) -> np.ndarray:
        """The codes as GatherBlockQuantized wants them: uint8 (N, K * bits / 8), without the padding of the last block."""
        return np.ascontiguousarray(self.codes.reshape(self.rows, -1)[:, : -(-self.columns * self.bits // 8)])

    def dequantize(self) -> np.ndarray:
        """float32 (N, K)."""
        codes_NCL = unpack(self.codes, self.bits, self.block)
        if self.zero_points is None:
            zeros_NC = np.full(self.scales.shape, 2 ** (self.bits - 1), np.uint8)
        else:
            zeros_NC = unpack(self.zero_points, self.bits, self.scales.shape[1])
        weights_NCL = (codes_NCL.astype(np.float32) - zeros_NC[..., None]) * self.scales[..., None]
        return weights_NCL.reshape(self.rows, -1)[:, : self.columns]


def quantize(weights_NK: np.ndarray, *, bits: int = 4, block: int = 32, symmetric: bool = False, search: bool = True) -> Quantized:
    """Round-to-nearest codes of a float matrix (N, K); the last block of a row is padded with zeros where L does not divide K."""
    num_rows, columns = weights_NK.shape
    num_blocks = -(-columns // block)
    codes = np.empty((num_rows, num_blocks, block * bits // 8), np.uint8)
    scales = np.empty((num_rows, num_blocks), np.float32)
    zeros = np.empty((num_rows, num_blocks), np.uint8)
    step = max(1, SLAB // (num_blocks * block))
    for start in range(0, num_rows, step):
        rows = slice(start, min(start + step, num_rows))
        slab_NK = np.zeros((rows.stop - start, num_blocks * block), np.float32)
        slab_NK[:, :columns] = weights_NK[rows]
        slab_codes, scales[rows], zeros[rows] = quantize_blocks(slab_NK.reshape(-1, num_blocks, block), bits, symmetric, search)
        codes[rows] = pack(slab_codes, bits)
    return Quantized(codes, scales, None if symmetric else pack(zeros, bits), columns, block, bits)


def quantize_blocks(blocks_NCL: np.ndarray, bits: int, symmetric: bool, search: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes uint8 (N, C, L), scales float32 (N, C) and zero points uint8 (N, C) of float32 blocks."""
    best_codes, best_scales, best_zeros = round_blocks(blocks_NCL, bits, symmetric, 1.0)
    if not search:
        return best_codes, best_scales, best_zeros
    best_error = squared_error(blocks_NCL, best_codes, best_scales, best_zeros)
    for shrink in SHRINK:
        codes, scales, zeros = round_blocks(blocks_NCL, bits, symmetric, shrink)
        scales = least_squares_scale(blocks_NCL, codes, scales, zeros)
        error = squared_error(blocks_NCL, codes, scales, zeros)
        better = error < best_error
        best_codes[better], best_scales[better], best_zeros[better] = codes[better], scales[better], zeros[better]
        best_error = np.minimum(error, best_error)
    return best_codes, best_scales, best_zeros


def round_blocks(blocks_NCL: np.ndarray, bits: int, symmetric: bool, shrink: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Plain round-to-nearest with the block's range shrunk by a factor; what lies outside is clipped."""
    top = 2**bits - 1
    if symmetric:
        # The value of largest magnitude maps to code 0 whatever its sign, so that the one code more below the middle is used.
        index = np.abs(blocks_NCL).argmax(-1)[..., None]
        extreme = np.take_along_axis(blocks_NCL, index, -1)[..., 0]
        zeros = np.full(extreme.shape, 2 ** (bits - 1), np.uint8)
        scales = (extreme * np.float32(-shrink / 2 ** (bits - 1))).astype(np.float32)
    else:
        low = np.minimum(blocks_NCL.min(-1), 0) * np.float32(shrink)
        high = np.maximum(blocks_NCL.max(-1), 0) * np.float32(shrink)
        scales = ((high - low) / np.float32(top)).astype(np.float32)
        safe = np.where(scales == 0, np.float32(1), scales)
        zeros = np.clip(np.rint(-low / safe), 0, top).astype(np.uint8)
    scales = np.where(scales == 0, np.float32(1), scales)  # a block of zeros: any scale gives zero
    codes = np.clip(np.rint(blocks_NCL / scales[..., None]) + zeros[..., None], 0, top).astype(np.uint8)
    return codes, scales, zeros


def least_squares_scale(blocks_NCL: np.ndarray, codes_NCL: np.ndarray, scales_NC: np.ndarray, zeros_NC: np.ndarray) -> np.ndarray:
    """For fixed codes the scale of least squared error: <w, q> / <q, q> with q = code - zero."""
    steps_NCL = codes_NCL.astype(np.float32) - zeros_NC[..., None]
    norm = np.einsum("ncl,ncl->nc", steps_NCL, steps_NCL)
    scales = np.einsum("ncl,ncl->nc", blocks_NCL, steps_NCL) / np.where(norm == 0, np.float32(1), norm)
    return np.where((norm == 0) | (scales == 0), scales_NC, scales).astype(np.float32)


def squared_error(blocks_NCL: np.ndarray, codes_NCL: np.ndarray, scales_NC: np.ndarray, zeros_NC: np.ndarray) -> np.ndarray:
    """The sum of squared differences of each block, float32 (N, C)."""
    difference = (codes_NCL.astype(np.float32) - zeros_NC[..., None]) * scales_NC[..., None] - blocks_NCL
    return np.einsum("ncl,ncl->nc", difference, difference)


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes along the last dimension into bytes: two nibbles per byte, the first one low; 8-bit codes are bytes already."""
    if bits == 8:
        return codes
    if codes.shape[-1] % 2:
        codes = np.concatenate([codes, np.zeros((*codes.shape[:-1], 1), np.uint8)], axis=-1)
    return codes[..., 0::2] | (codes[..., 1::2] << 4)


def unpack(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """The inverse of `pack`: the first `count` codes along the last dimension."""
    if bits == 8:
        return packed[..., :count]
    codes = np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)
    return codes[..., :count]
