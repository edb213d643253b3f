"""An object store as a pyarrow file system: for reading Parquet, and for nothing else."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn

import obstore
import pyarrow as pa
import pyarrow.fs as pafs
from obstore.exceptions import BaseError
from obstore.store import ObjectStore

from raysweep.store.files import FileStamp

_WHOLE = 2**20
"""Objects up to this size are read in one request: most result parts are far smaller."""


class ObjectHandler(pafs.FileSystemHandler):  # type: ignore[misc]
    """Lists and reads objects by their paths below the store's root."""

    def __init__(self, objects: ObjectStore, uri: str, stamps: Callable[[str], Mapping[str, FileStamp]]) -> None:
        self._objects = objects
        self._uri = uri
        self._stamps = stamps

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectHandler) and self._uri == other._uri

    def __hash__(self) -> int:
        return hash(self._uri)

    def get_type_name(self) -> str:
        """Return the name of the file system."""
        return "raysweep-objects"

    def normalize_path(self, path: str) -> str:
        """Return the path as it is."""
        return path

    def get_file_info(self, paths: list[str]) -> list[pafs.FileInfo]:
        """Return what is known of each path."""
        found = []
        for path in paths:
            try:
                facts = obstore.head(self._objects, path)
            except FileNotFoundError:
                found.append(pafs.FileInfo(path, pafs.FileType.NotFound))
            else:
                found.append(pafs.FileInfo(path, pafs.FileType.File, size=facts["size"], mtime=facts["last_modified"]))
        return found

    def get_file_info_selector(self, selector: pafs.FileSelector) -> list[pafs.FileInfo]:
        """Return all objects below a prefix."""
        return [
            pafs.FileInfo(
                path,
                pafs.FileType.File,
                size=stamp.size_bytes,
                mtime=datetime.fromtimestamp(stamp.mtime_ns / 1e9, UTC),
            )
            for path, stamp in self._stamps(selector.base_dir).items()
        ]

    def open_input_file(self, path: str) -> pa.NativeFile:
        """Open an object at any position."""
        try:
            first = obstore.get(self._objects, path, options={"range": (0, _WHOLE)})
            size, tag, data = first.meta["size"], first.meta["e_tag"], bytes(first.bytes())
        except BaseError as error:
            raise OSError(str(error).partition("\n\nDebug source")[0]) from None
        if size <= _WHOLE:
            return pa.BufferReader(data)
        return pa.PythonFile(_Ranges(self._objects, path, size, tag), mode="r")

    def open_input_stream(self, path: str) -> pa.NativeFile:
        """Open an object from its beginning."""
        return self.open_input_file(path)

    def _refuse(self, *_: Any) -> NoReturn:
        raise NotImplementedError("the store's files are written by the store")

    create_dir = delete_dir = delete_dir_contents = delete_root_dir_contents = delete_file = _refuse
    move = copy_file = open_output_stream = open_append_stream = _refuse


class _Ranges(io.RawIOBase):
    """A large object, read range by range."""

    def __init__(self, objects: ObjectStore, path: str, size: int, tag: str | None) -> None:
        self._objects = objects
        self._path = path
        self._size = size
        self._tag = tag
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self._position)
        length = left if size is None or size < 0 else min(size, left)
        if not length:
            return b""
        try:
            end = self._position + length
            found = obstore.get(
                self._objects, self._path, options={"range": (self._position, end), "if_match": self._tag}
            )
            data = bytes(found.bytes())
        except BaseError as error:
            raise OSError(str(error).partition("\n\nDebug source")[0]) from None
        self._position += length
        return data
