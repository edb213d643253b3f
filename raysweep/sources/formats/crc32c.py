"""CRC-32C (Castagnoli) over large arrays: many lanes at once in numpy, joined by matrices over GF(2).

Source: RFC 3720, appendix B.4 (polynomial and test vectors); the joining follows from the linearity of a CRC.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

_POLYNOMIAL = 0x82F63B78  # reflected
_MASK_DELTA = 0xA282EAD8

Matrix = tuple[int, ...]
"""A 32 x 32 matrix over GF(2): image of each bit, lowest first."""


def crc32c(data: bytes) -> int:
    """Return the CRC-32C of bytes, 0 to 2^32 - 1."""
    # The register starts with ones; by linearity that is the CRC from zero plus the ones moved along the whole data.
    moved = _times(_moved_by(len(data)), 0xFFFFFFFF)
    return _raw(data) ^ moved ^ 0xFFFFFFFF


def unmasked(masked: int) -> int:
    """Return the CRC behind one that TensorFlow and LevelDB store rotated and shifted by a constant."""
    rotated = (masked - _MASK_DELTA) & 0xFFFFFFFF
    return ((rotated >> 17) | (rotated << 15)) & 0xFFFFFFFF


def _raw(data: bytes) -> int:
    """Return the CRC that starts from zero and is not inverted; leading zeros do not change it."""
    if not data:
        return 0
    num_lanes = math.isqrt(len(data))  # as many steps along the lanes as lanes to join
    length = -(-len(data) // num_lanes)
    padded = np.zeros(length * num_lanes, dtype=np.uint8)
    padded[padded.size - len(data) :] = np.frombuffer(data, dtype=np.uint8)
    lanes = padded.reshape(num_lanes, length)
    table = _table()
    registers = np.zeros(num_lanes, dtype=np.uint32)
    for column in range(length):
        registers = table[(registers ^ lanes[:, column]) & 0xFF] ^ (registers >> np.uint32(8))
    along = _moved_by(length)
    total = 0
    for register in registers.tolist():
        total = _times(along, total) ^ register
    return total


@cache
def _table() -> NDArray[np.uint32]:
    values = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
        values.append(value)
    return np.array(values, dtype=np.uint32)


@cache
def _moved_by(num_bytes: int) -> Matrix:
    """Return the matrix that moves a register over that many zero bytes."""
    one_bit: Matrix = (_POLYNOMIAL, *(1 << bit for bit in range(31)))
    result: Matrix = tuple(1 << bit for bit in range(32))
    square, remaining = one_bit, num_bytes * 8
    while remaining:
        if remaining & 1:
            result = _product(square, result)
        square, remaining = _product(square, square), remaining >> 1
    return result


def _times(matrix: Matrix, vector: int) -> int:
    result, bit = 0, 0
    while vector:
        if vector & 1:
            result ^= matrix[bit]
        vector, bit = vector >> 1, bit + 1
    return result


def _product(left: Matrix, right: Matrix) -> Matrix:
    return tuple(_times(left, column) for column in right)
