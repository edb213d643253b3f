"""A pack while it is being written: what is stored already survives a kill, and the same packing continues there.

Beside ``cardiac.h5`` lie ``.cardiac.h5.partial``, the pack, and ``.cardiac.h5.partial.facts``, what is known of the
slices stored so far: a header (key of the packing, state), then one record a slice. A record is written after the
pixels it vouches for have reached the disk.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from raysweep.data.pack_layout import PackLayout
from raysweep.errors import PackError

Array = npt.NDArray[Any]

_KEY_BYTES = 64
_STORING, _COMPLETING, _COMPLETE = b"S", b"C", b"D"
_HEADER_BYTES = _KEY_BYTES + 64
_SECONDS_BETWEEN_COMMITS = 2.0
_COPY_BYTES = 16 << 20


class PartialPack:
    """The two files of an unfinished pack, locked against a second writer; published by :meth:`publish`.

    Left by an ordinary error, both files vanish; left by a kill or an interrupt, they stay for the next attempt.
    """

    def __init__(self, out: Path, layout: PackLayout, key: str, record: np.dtype[Any], num_slices: int) -> None:
        self.path = out.with_name(f".{out.name}.partial")
        self._facts_path = out.with_name(f".{out.name}.partial.facts")
        self._old = out.with_name(f".{out.name}.partial.old")
        self._out, self._layout = out, layout
        self._key = key.encode().ljust(_KEY_BYTES)[:_KEY_BYTES]
        self._record, self._num_slices = record, num_slices
        self._waiting: list[tuple[int, Array]] = []
        self._committed = time.monotonic()

    def __enter__(self) -> PartialPack:
        self._out.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self._facts_path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            raise PackError(f"another process is writing {self._out}: wait for it, or pack elsewhere") from error
        state = self._state()
        self.was_completed = state == _COMPLETE and self.path.exists()
        if state == _COMPLETING and (self.path.exists() or self._old.exists()):
            self._rebuild()
        elif state in (_STORING, _COMPLETE) and self.path.exists():
            self._layout.locate(self.path)
        else:
            self._start_anew()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and issubclass(kind, Exception):
            self._remove()
        elif kind is not None:
            self._commit()
        os.close(self._descriptor)

    def facts(self) -> Array:
        """Return the records of all slices; ``is_stored`` is 0 for those still to be read."""
        self._commit()
        return np.memmap(self._facts_path, self._record, "r", _HEADER_BYTES, self._num_slices)

    def add(self, row: int, facts: Array) -> None:
        """Note that the slices from ``row`` on are stored; they are on disk at the latest a few seconds later."""
        self._waiting.append((row, facts))
        if time.monotonic() - self._committed > _SECONDS_BETWEEN_COMMITS:
            self._commit()

    def begin_completing(self) -> None:
        """Say that HDF5 is about to change the file: a kill from here on leaves pixels, but no readable file."""
        self._commit()
        self._set_state(_COMPLETING)

    def end_completing(self) -> None:
        """Say that HDF5 has closed the file."""
        _synchronise(self.path)
        self._set_state(_COMPLETE)

    def publish(self) -> None:
        """Give the pack its name."""
        _synchronise(self.path)
        self.path.replace(self._out)
        _synchronise(self._out.parent)
        self._facts_path.unlink()

    def _state(self) -> bytes:
        header = os.pread(self._descriptor, _HEADER_BYTES, 0)
        is_same = len(header) == _HEADER_BYTES and header[:_KEY_BYTES] == self._key
        return header[_KEY_BYTES : _KEY_BYTES + 1] if is_same else b""

    def _set_state(self, state: bytes) -> None:
        os.pwrite(self._descriptor, self._key + state.ljust(_HEADER_BYTES - _KEY_BYTES), 0)
        os.fsync(self._descriptor)

    def _start_anew(self) -> None:
        os.ftruncate(self._descriptor, 0)
        self._old.unlink(missing_ok=True)
        self._layout.allocate(self.path)
        _synchronise(self.path)
        os.ftruncate(self._descriptor, _HEADER_BYTES + self._record.itemsize * self._num_slices)
        self._set_state(_STORING)

    def _rebuild(self) -> None:
        """Copy the pixels of a file whose structure may be broken into a new one."""
        if not self._old.exists():
            self.path.replace(self._old)
        self._layout.allocate(self.path)
        with self._old.open("rb") as source, self.path.open("r+b") as target:
            for offset, size in self._layout.extents():
                source.seek(offset)
                target.seek(offset)
                _copy(source, target, size)
        _synchronise(self.path)
        self._set_state(_STORING)
        self._old.unlink()

    def _commit(self) -> None:
        if self._waiting:
            _synchronise(self.path)
            for row, facts in self._waiting:
                os.pwrite(self._descriptor, facts.tobytes(), _HEADER_BYTES + row * self._record.itemsize)
            os.fsync(self._descriptor)
            self._waiting.clear()
        self._committed = time.monotonic()

    def _remove(self) -> None:
        for path in (self.path, self._old, self._facts_path):
            path.unlink(missing_ok=True)


def _copy(source: Any, target: Any, size: int) -> None:
    while size:
        piece = source.read(min(size, _COPY_BYTES))
        if not piece:
            raise PackError(f"{source.name} is shorter than it was: remove it and pack again")
        target.write(piece)
        size -= len(piece)


def _synchronise(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
