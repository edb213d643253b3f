"""Packs on nodes: one copy of a remote pack per node, on its own disk, shared by all stages that run there.

The cache is ``$RAYSWEEP_CACHE``, by default a folder of the user's in the system's temporary folder. It takes up to
``$RAYSWEEP_CACHE_GB``, by default what the disk has. Processes of a node agree through file locks alone: one copies a
pack while the others wait; whoever reads a pack holds it, and packs that nobody holds make room for new ones, the one
used longest ago first. The kernel lets go of what a killed process held.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import shutil
import tempfile
import threading
import uuid
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from raysweep.data.held_files import delete_unless_held, hold, locked
from raysweep.data.pack import Pack, open_pack
from raysweep.errors import PackError
from raysweep.identity import content_id
from raysweep.logs import STAGE
from raysweep.store import FileStamp
from raysweep.store import uri as uris

_GIGABYTE = 10**9
_PARTIAL = ".partial-"
_CHUNK = 16 * 2**20
_opened: weakref.WeakValueDictionary[Path, Pack] = weakref.WeakValueDictionary()
_latest: list[Pack] = []
_lock = threading.Lock()


def open_located(location: str, digest: str | None = None) -> Pack:
    """Open a pack by its path, or, if that is a URI (s3, gs, az, or file for a slow shared folder), this node's copy.

    Args:
        location: path or URI.
        digest: what the pack's digest must be, where that is known.

    Raises:
        PackError: if there is no such pack, it is corrupt or another one than expected, or the node has no room for it.
        StoreError: if its store cannot be read.
    """
    if "://" not in location:
        return open_pack(location)
    pack = PackCache().open(location, digest)
    pack.location = location  # stages of other nodes open it by this
    return pack


when_copied: list[Callable[[int], None]] = []
"""Called with the bytes of every pack that this process has copied to its node's disk."""


def _tell(shown: str, size_bytes: int) -> None:
    logging.getLogger(STAGE).info("copied a pack to this node", extra={"facts": {"pack": shown, "bytes": size_bytes}})
    for call in when_copied:
        call(size_bytes)


class Source(Protocol):
    """A file to be copied."""

    def stamp(self) -> FileStamp | None:
        """Return what tells this version of it from others, or None if there is none."""

    def copy(self, write: Callable[[bytes], object]) -> None:
        """Write all of it."""


class PackCache:
    """The packs on one node's disk."""

    def __init__(self, folder: Path | None = None, limit_bytes: int | None = None) -> None:
        self.folder = folder or cache_folder()
        self.limit_bytes = limit_bytes if limit_bytes is not None else _limit()

    def open(self, uri: str, digest: str | None = None) -> Pack:
        """Open this node's copy of a pack, copying it first if there is none of its present version."""
        source = _source(uri)
        shown = uris.masked(uri)
        stamp = source.stamp()
        if stamp is None:
            raise PackError(
                f"{shown} does not exist. Write it with `raysweep pack` and copy it there, or correct the URI."
            )
        name = content_id([shown.partition("?")[0], *stamp])[:24]
        target = self.folder / f"{name}.h5"
        with _lock:
            pack = _opened.get(target)
            if pack is None:
                pack = self._open_copy(target, source, stamp, shown, digest)
        if digest is not None and pack.digest != digest:
            raise PackError(
                f"{shown} has the digest {pack.digest}; the study was planned with {digest}. Launch it again."
            )
        return pack

    def _open_copy(self, target: Path, source: Source, stamp: FileStamp, shown: str, digest: str | None) -> Pack:
        while (held := hold(target)) is None:
            with locked(target.with_suffix(".lock")):
                if not target.exists():
                    self._copy(source, target, stamp.size_bytes, shown, digest)
        try:
            pack = Pack.open(target)
            os.utime(target)  # used now
        except BaseException:
            os.close(held)
            raise
        weakref.finalize(pack, os.close, held)
        _opened[target] = pack
        _latest[:] = [pack]  # the next stage is likely to read it too
        return pack

    def _copy(self, source: Source, target: Path, size_bytes: int, shown: str, digest: str | None) -> None:
        partial = self.folder / f"{_PARTIAL}{uuid.uuid4().hex}.h5"
        try:
            with self._reserved(partial, size_bytes, shown) as stream:
                source.copy(stream.write)
                stream.truncate()
                stream.flush()
                os.fsync(stream.fileno())
            _check_copy(partial, shown, digest)
            partial.replace(target)
            _tell(shown, size_bytes)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise PackError(f"{shown} cannot be copied to {self.folder}: {error}") from error
            raise self._full(shown, size_bytes, shutil.disk_usage(self.folder).free) from error
        finally:
            partial.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _reserved(self, partial: Path, size_bytes: int, shown: str) -> Iterator[BinaryIO]:
        """Create a file of a size on the disk, once there is room for it, and hold it while it is filled."""
        with locked(self.folder / "room.lock"):
            self._make_room(size_bytes, shown)
            stream = partial.open("x+b")
            try:
                fcntl.flock(stream, fcntl.LOCK_SH)
                if size_bytes:
                    _allocate(stream.fileno(), size_bytes)
            except BaseException:
                stream.close()
                raise
        with stream:
            yield stream

    def _make_room(self, size_bytes: int, shown: str) -> None:
        """Delete what killed processes left half-copied, then packs that nobody reads, until a size fits."""
        for path in self.folder.glob(f"{_PARTIAL}*"):
            delete_unless_held(path)
        packs = sorted(self.folder.glob("[!.]*.h5"), key=lambda path: path.stat().st_mtime)
        for path in packs:
            if self._room() >= size_bytes:
                return
            delete_unless_held(path)
        if self._room() < size_bytes:
            raise self._full(shown, size_bytes, self._room())

    def _room(self) -> int:
        """Bytes that may still be taken."""
        free = shutil.disk_usage(self.folder).free
        if self.limit_bytes is None:
            return free
        taken = sum(path.stat().st_size for path in self.folder.glob("*.h5"))
        return min(free, self.limit_bytes - taken)

    def _full(self, shown: str, size_bytes: int, room: int) -> PackError:
        limit = "" if self.limit_bytes is None else f", RAYSWEEP_CACHE_GB being {self.limit_bytes / _GIGABYTE:g}"
        return PackError(
            f"no room on this node for {shown}: it takes {size_bytes / _GIGABYTE:.3g} GB, and {self.folder} has "
            f"{max(0, room) / _GIGABYTE:.3g} GB left{limit}, packs that stages are reading not counted. Set "
            "RAYSWEEP_CACHE to a folder on a larger disk of the node, or raise RAYSWEEP_CACHE_GB."
        )


def cache_folder() -> Path:
    """Return the folder of this node's copies, created for this user alone.

    Raises:
        PackError: if it cannot be created, or belongs to somebody else.
    """
    chosen = os.environ.get("RAYSWEEP_CACHE")
    folder = Path(chosen).expanduser() if chosen else Path(tempfile.gettempdir()) / f"raysweep-cache-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.stat().st_uid
    except OSError as error:
        raise PackError(
            f"the cache of packs {folder} cannot be used: {error}. Set RAYSWEEP_CACHE to another."
        ) from error
    if not chosen and owner != os.getuid():
        raise PackError(
            f"the cache of packs {folder} belongs to user {owner}. Set RAYSWEEP_CACHE to a folder of yours."
        )
    return folder


def _limit() -> int | None:
    text = os.environ.get("RAYSWEEP_CACHE_GB")
    if not text:
        return None
    try:
        limit = float(text)
    except ValueError:
        limit = 0.0
    if limit <= 0:
        raise PackError(f"RAYSWEEP_CACHE_GB is {text!r}; it must be a number of gigabytes above 0")
    return int(limit * _GIGABYTE)


class _RemoteFile:
    def __init__(self, uri: str) -> None:
        from raysweep.store.objects import ObjectFiles  # local packs do without its library

        bare, mark, options = uri.partition("?")
        folder, _, self._name = bare.rpartition("/")
        self._files = ObjectFiles(f"{folder}{mark}{options}")

    def stamp(self) -> FileStamp | None:
        return self._files.stamp(self._name)

    def copy(self, write: Callable[[bytes], object]) -> None:
        self._files.download(self._name, write)


class _SharedFile:
    def __init__(self, path: Path) -> None:
        self._path = path

    def stamp(self) -> FileStamp | None:
        try:
            facts = self._path.stat()
        except FileNotFoundError:
            return None
        return FileStamp(facts.st_size, facts.st_mtime_ns)

    def copy(self, write: Callable[[bytes], object]) -> None:
        with self._path.open("rb") as stream:
            while data := stream.read(_CHUNK):
                write(data)


def _source(uri: str) -> Source:
    return _RemoteFile(uri) if uris.is_remote(uri) else _SharedFile(uris.local_root(uri))


def _check_copy(partial: Path, shown: str, digest: str | None) -> None:
    try:
        pack = Pack.open(partial)
        pack.verify()
    except PackError as error:
        raise PackError(str(error).replace(str(partial), shown).replace(str(partial.resolve()), shown)) from None
    if digest is not None and pack.digest != digest:
        raise PackError(f"{shown} has the digest {pack.digest}; the study was planned with {digest}. Launch it again.")


def _allocate(descriptor: int, size_bytes: int) -> None:
    try:
        os.posix_fallocate(descriptor, 0, size_bytes)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
