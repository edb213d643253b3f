"""Files in a folder: publishing by renaming, locks by the kernel."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.fs as pafs

from raysweep.errors import StoreError
from raysweep.store.files import Files, FileStamp

_TEMPORARY = ".tmp-"


class LocalFiles(Files):
    """Files below a folder, on a local or shared file system."""

    def __init__(self, uri: str, root: Path) -> None:
        self.uri = uri
        self.root = root
        self.absolute_uri = str(root)
        self.filesystem = pafs.LocalFileSystem()

    def read(self, path: str) -> bytes | None:
        """Return a file's bytes, or None if there is no such file."""
        try:
            return (self.root / path).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, path: str, data: bytes) -> None:
        """Publish a file atomically, replacing any older version."""
        with self.writer(path) as temporary:
            temporary.write_bytes(data)

    @contextmanager
    def writer(self, path: str) -> Iterator[Path]:
        """Yield a temporary file that is renamed to ``path`` when the block ends without an error."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}-{target.name}")
        try:
            yield temporary
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def upload(self, path: str, file: Path) -> None:
        """Publish a copy of a file atomically."""
        with self.writer(path) as temporary:
            shutil.copyfile(file, temporary)

    def delete(self, path: str) -> None:
        """Delete a file if it is there."""
        (self.root / path).unlink(missing_ok=True)

    def exists(self, path: str) -> bool:
        """Whether a file is there."""
        return (self.root / path).is_file()

    def stamps(self, folder: str) -> dict[str, FileStamp]:
        """Return the published files of a folder and its subfolders with their stamps, sorted by path."""
        selector = pafs.FileSelector(self.full_path(folder), recursive=True, allow_not_found=True)
        prefix = len(self.full_path(""))
        stamps = {
            info.path[prefix:]: FileStamp(info.size, info.mtime_ns)
            for info in self.filesystem.get_file_info(selector)
            if info.type == pafs.FileType.File and not info.base_name.startswith(_TEMPORARY)
        }
        return dict(sorted(stamps.items()))

    def full_path(self, path: str) -> str:
        """Return a path as ``filesystem`` takes it."""
        return f"{str(self.root).rstrip('/')}/{path}"

    @contextmanager
    def locked(self, path: str, busy: str) -> Iterator[None]:
        """Hold a lock on a file, which the kernel lets go of however the process ends."""
        lock = self.root / path
        lock.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("a+") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                stream.seek(0)
                raise StoreError(busy.format(holder=stream.read().strip() or "unknown")) from error
            stream.truncate(0)
            stream.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            stream.flush()
            yield

    def clear_leftovers(self) -> None:
        """Delete temporary files of writers that were killed half-way."""
        for path in self.root.rglob(f"{_TEMPORARY}*"):
            path.unlink(missing_ok=True)
