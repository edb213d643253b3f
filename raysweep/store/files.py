"""What a store needs of the place its files lie in: a folder or an object store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import pyarrow.fs as pafs


class FileStamp(NamedTuple):
    """What tells one version of a file from another."""

    size_bytes: int
    mtime_ns: int
    tag: str = ""
    """Entity tag, on an object store: its times are too coarse to tell versions apart."""

    def to_json(self) -> list[int | str]:
        """Return the stamp as JSON-like values; without a tag, as versions wrote it that knew none."""
        return [*self] if self.tag else [self.size_bytes, self.mtime_ns]


class Files(ABC):
    """Files below one root. Paths are relative to it, with forward slashes."""

    uri: str
    """The root as errors name it; it carries no credentials."""
    absolute_uri: str
    """The root as other processes can open it."""
    filesystem: pafs.FileSystem
    """A pyarrow file system to read from; ``full_path`` gives the paths that it takes."""

    @abstractmethod
    def read(self, path: str) -> bytes | None:
        """Return a file's bytes, or None if there is no such file."""

    @abstractmethod
    def write(self, path: str, data: bytes) -> None:
        """Publish a file atomically, replacing any older version."""

    @abstractmethod
    def writer(self, path: str) -> AbstractContextManager[Path]:
        """Yield a temporary local file that is published under ``path`` when the block ends without an error."""

    @abstractmethod
    def upload(self, path: str, file: Path) -> None:
        """Publish a copy of a local file atomically."""

    @abstractmethod
    def delete(self, path: str) -> None:
        """Delete a file if it is there."""

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Whether a file is there."""

    @abstractmethod
    def stamps(self, folder: str) -> dict[str, FileStamp]:
        """Return the published files of a folder and its subfolders with their stamps, sorted by path."""

    @abstractmethod
    def full_path(self, path: str) -> str:
        """Return a path as ``filesystem`` takes it."""

    @abstractmethod
    def locked(self, path: str, busy: str) -> AbstractContextManager[None]:
        """Hold a lock for as long as the block runs; it is free again however its holder ends.

        Raises:
            StoreError: if another process holds it: ``busy``, in which {holder} stands for what is known of it.
        """

    @abstractmethod
    def clear_leftovers(self) -> None:
        """Delete what writers left that were killed half-way; only the holder of the driver lock may."""
