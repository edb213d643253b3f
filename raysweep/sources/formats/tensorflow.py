"""TensorFlow checkpoints without TensorFlow: an index (a LevelDB table of protocol buffers) beside raw data files.

Source: tensorflow/core/protobuf/tensor_bundle.proto and the LevelDB table format. Snappy-compressed tables are refused:
TensorFlow writes the index of a checkpoint uncompressed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from raysweep.sources.formats.crc32c import crc32c, unmasked

_MAGIC = 0xDB4775248B80FB57
_FOOTER_BYTES = 48
_TRAILER_BYTES = 5
_DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 5: "<i2", 6: "i1", 9: "<i8", 10: "?", 19: "<f2"}
"""Numbers of tensorflow/core/framework/types.proto; others, such as strings, hold no weights and are left out."""

Fields = dict[int, list[int | bytes]]


@dataclass(frozen=True)
class _Entry:
    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int | None
    is_sliced: bool


def index_of(path: Path) -> Path | None:
    """Return the index file of a checkpoint named by its index, its prefix, a data file, or its folder; else None."""
    if path.is_dir():
        found = sorted(path.glob("*.index")) or sorted(path.glob("variables/*.index"))
        return found[0] if len(found) == 1 else None
    if path.name.endswith(".index"):
        return path
    prefix, separator, _ = path.name.partition(".data-")
    beside = path.with_name(f"{prefix if separator else path.name}.index")
    return beside if beside.exists() else None


def read_tensorflow(index: Path) -> dict[str, Tensor]:
    """Read every numeric variable of a checkpoint, each checked against its checksum.

    Raises:
        ValueError: if the index or a data file is damaged.
        OSError: if a data file is missing.
    """
    rows = dict(_table_rows(index.read_bytes()))
    header = _fields(rows.pop(b"", b""))
    num_shards = _int(header, 1, 1)
    if _int(header, 2, 0) != 0:
        raise ValueError("it was written on a big-endian machine, which is not supported")
    shards = [index.with_name(f"{index.name.removesuffix('.index')}{_shard(i, num_shards)}") for i in range(num_shards)]
    tensors = {}
    for key, value in rows.items():
        entry, name = _entry(value), key.decode()
        if entry.dtype in _DTYPES:
            if entry.is_sliced or not 0 <= entry.shard < num_shards:
                raise ValueError(f"variable {name} is partitioned or points outside the checkpoint")
            tensors[name] = _tensor(name, entry, shards[entry.shard])
    return tensors


def _shard(number: int, count: int) -> str:
    return f".data-{number:05d}-of-{count:05d}"


def _tensor(name: str, entry: _Entry, shard: Path) -> Tensor:
    dtype = np.dtype(_DTYPES[entry.dtype])
    with shard.open("rb") as stream:
        stream.seek(entry.offset)
        data = stream.read(entry.size)
    expected = int(np.prod(entry.shape, dtype=np.int64)) * dtype.itemsize
    if len(data) != entry.size or entry.size != expected:
        raise ValueError(f"variable {name} has {len(data)} bytes in {shard.name}; its shape asks for {expected}")
    if entry.crc is not None and crc32c(data) != unmasked(entry.crc):
        raise ValueError(f"variable {name} does not match its checksum: {shard.name} is damaged")
    return torch.from_numpy(np.frombuffer(data, dtype=dtype).reshape(entry.shape).copy())


def _table_rows(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield keys and values of a LevelDB table: its footer names the index block, whose rows name the data blocks."""
    if len(data) < _FOOTER_BYTES or struct.unpack("<Q", data[-8:])[0] != _MAGIC:
        raise ValueError("it is no TensorFlow checkpoint index (its last 8 bytes are not the table's)")
    footer = data[-_FOOTER_BYTES:]
    _block(data, footer, 0)  # the meta index holds nothing for checkpoints, but must be whole
    _, position = _varint(footer, 0)
    _, position = _varint(footer, position)
    for _, handle in _block_rows(_block(data, footer, position)):
        yield from _block_rows(_block(data, handle, 0))


def _block(data: bytes, handle: bytes, position: int) -> bytes:
    offset, position = _varint(handle, position)
    size, _ = _varint(handle, position)
    end = offset + size
    if end + _TRAILER_BYTES > len(data):
        raise ValueError("the index is cut off")
    kind, masked = struct.unpack("<BI", data[end : end + _TRAILER_BYTES])
    if crc32c(data[offset : end + 1]) != unmasked(masked):
        raise ValueError("a block of the index does not match its checksum")
    if kind != 0:
        raise ValueError("its index is compressed, which TensorFlow does not do for checkpoints")
    return data[offset:end]


def _block_rows(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the rows of a block: each key shares a prefix with the one before it."""
    num_restarts = struct.unpack("<I", block[-4:])[0]
    end = len(block) - 4 - 4 * num_restarts
    position, key = 0, b""
    while position < end:
        shared, position = _varint(block, position)
        rest, position = _varint(block, position)
        length, position = _varint(block, position)
        key = key[:shared] + block[position : position + rest]
        position += rest
        yield key, block[position : position + length]
        position += length


def _entry(message: bytes) -> _Entry:
    fields = _fields(message)
    shape = _bytes(fields, 2)
    sizes = [_int(_fields(size), 1, 0) for size in _fields(shape).get(2, []) if isinstance(size, bytes)]
    crc = fields.get(6)
    return _Entry(
        dtype=_int(fields, 1, 0),
        shape=tuple(sizes),
        shard=_int(fields, 3, 0),
        offset=_int(fields, 4, 0),
        size=_int(fields, 5, 0),
        crc=crc[-1] if crc and isinstance(crc[-1], int) else None,
        is_sliced=7 in fields,
    )


def _fields(message: bytes) -> Fields:
    """Return the fields of a protocol buffer by number: integers, or bytes for whatever has a length."""
    fields: Fields = {}
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        value: int | bytes
        match tag & 7:
            case 0:
                value, position = _varint(message, position)
            case 1:
                value, position = struct.unpack_from("<Q", message, position)[0], position + 8
            case 2:
                length, position = _varint(message, position)
                value, position = message[position : position + length], position + length
            case 5:
                value, position = struct.unpack_from("<I", message, position)[0], position + 4
            case kind:
                raise ValueError(f"a protocol buffer has a field of wire type {kind}")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _int(fields: Fields, number: int, default: int) -> int:
    value = fields.get(number, [default])[-1]
    if not isinstance(value, int):
        raise ValueError("a protocol buffer holds bytes where a number belongs")
    return value


def _bytes(fields: Fields, number: int) -> bytes:
    value = fields.get(number, [b""])[-1]
    if not isinstance(value, bytes):
        raise ValueError("a protocol buffer holds a number where bytes belong")
    return value


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise ValueError("a number runs past its end")
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
