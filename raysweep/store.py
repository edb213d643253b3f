"""The store: every path below one root, atomic publishing, and the ledger of what is done.

The root is a folder or any URI that pyarrow.fs opens (``s3://bucket/prefix``). No other module builds paths::

    store.json                          format version
    packs/<name>-<recipe>.h5            packs built from a study's recipe
    weights/<name>.safetensors          initial weights that stages read; beside it <name>.json, what is known of them
    models/<stage>.safetensors          tested networks of finetune stages, where the study keeps them
    ledger/<stage>.json                 how the stage ended: the one authority on what is done
    failures/<stage>/<number>.json      every attempt that failed, also of stages that were done later
    resume/<stage>.pt                   training state of a stage that has not ended
    snapshots/<stage>/<epoch>.safetensors
    examples/<stage>.npz                a few test slices with their predictions
    profiles/<stage>/               trace and breakdown of a stage that `run --profile` named
    results/<table>/<part>.parquet      one part per stage (per study for cells)
    results/<table>/merged/*.parquet    parts merged by compaction
    results/manifest.json               which merged files count, and the parts they stand for
    driver.lock                         held by the driver that is running
    reports/<study>/                    the page
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
import uuid
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, cast

import pyarrow.fs as pafs

from raysweep.errors import StoreError
from raysweep.ledger import FailureRecord, LedgerRecord

__all__ = ["FORMAT_VERSION", "FailureRecord", "FileStamp", "LedgerRecord", "Store"]

FORMAT_VERSION = 1
_TEMPORARY = ".tmp-"
_SNAPSHOT_NAME = re.compile(r"(\d{6,})\.safetensors")


class FileStamp(NamedTuple):
    """What tells one version of a file from another."""

    size_bytes: int
    mtime_ns: int


class Store:
    """One root for packs, snapshots, results and the ledger, shared by all studies.

    Every write is atomic: a reader sees the whole file or none. On a local file system that is a rename; an object
    store publishes an object when its upload completes.
    """

    def __init__(self, uri: str | Path) -> None:
        self.uri = str(uri)
        self._fs, self._root = _filesystem(self.uri)
        self._local = isinstance(self._fs, pafs.LocalFileSystem)

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return (Store, (self.absolute_uri,))

    def __repr__(self) -> str:
        return f"Store({self.uri!r})"

    @property
    def absolute_uri(self) -> str:
        """The URI as other processes can open it: an absolute path for a local store."""
        return self._root if self._local else self.uri

    @property
    def is_local(self) -> bool:
        """Whether the root is a folder."""
        return self._local

    def prepare(self) -> Store:
        """Create the root if it is new, check its format, and return the store.

        Raises:
            StoreError: if the root cannot be created or was written by a newer format.
        """
        try:
            found = self.read_bytes("store.json")
            if found is None:
                self.write_bytes("store.json", json.dumps({"format": FORMAT_VERSION}).encode())
                return self
        except OSError as error:
            raise StoreError(
                f"store {self.uri}: cannot be opened or created: {error}. "
                "Give a folder you may write to, or a URI such as s3://bucket/prefix."
            ) from error
        try:
            version = _parse(found).get("format")
        except ValueError as error:
            raise StoreError(
                f"{self.uri}/store.json is corrupt ({error}); if the folder is a store, write "
                f'{{"format": {FORMAT_VERSION}}} into it, otherwise give another folder'
            ) from error
        if version != FORMAT_VERSION:
            raise StoreError(
                f"store {self.uri} has format {version!r}; this raysweep reads format {FORMAT_VERSION}. "
                "Use the raysweep that wrote it, or another store."
            )
        return self

    # ---- paths -------------------------------------------------------------------------------------------------

    def local_path(self, path: str) -> Path:
        """Return the file of a path below the root.

        Raises:
            StoreError: if the store is not local.
        """
        if not self._local:
            raise StoreError(f"store {self.uri} is remote: {path} has no local file")
        return Path(self._root) / path

    @staticmethod
    def snapshot_path(stage: str, epoch: int) -> str:
        """Path of the encoder of a pretrain stage at one epoch."""
        return f"snapshots/{stage}/{epoch:06d}.safetensors"

    @staticmethod
    def model_path(stage: str) -> str:
        """Path of the network that a finetune stage tested."""
        return f"models/{stage}.safetensors"

    @staticmethod
    def resume_path(stage: str) -> str:
        """Path of the training state of a stage that has not ended."""
        return f"resume/{stage}.pt"

    @staticmethod
    def examples_path(stage: str) -> str:
        """Path of a finetune stage's example predictions."""
        return f"examples/{stage}.npz"

    @staticmethod
    def profile_path(stage: str, name: str) -> str:
        """Path of a file that the profile of a stage consists of."""
        return f"profiles/{stage}/{name}"

    @staticmethod
    def part_path(table: str, part: str) -> str:
        """Path of one Parquet part of a table."""
        return f"results/{table}/{part}.parquet"

    # ---- files -------------------------------------------------------------------------------------------------

    def read_bytes(self, path: str) -> bytes | None:
        """Return a file's bytes, or None if there is no such file."""
        try:
            with self._fs.open_input_stream(self._full(path)) as stream:
                return cast("bytes", stream.read())
        except FileNotFoundError:
            return None

    def write_bytes(self, path: str, data: bytes | memoryview) -> None:
        """Publish a file atomically, replacing any older version."""
        if not self._local:
            with self._fs.open_output_stream(self._full(path)) as stream:
                stream.write(data)
            return
        with self.local_writer(path) as temporary:
            temporary.write_bytes(data)

    @contextmanager
    def local_writer(self, path: str) -> Iterator[Path]:
        """Yield a temporary local file that is published under ``path`` when the block ends without an error."""
        target = self.local_path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}-{target.name}")
        try:
            yield temporary
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def delete(self, path: str) -> None:
        """Delete a file if it is there."""
        if self.exists(path):
            self._fs.delete_file(self._full(path))

    def exists(self, path: str) -> bool:
        """Whether a file is there."""
        info = self._fs.get_file_info(self._full(path))
        return bool(info.type == pafs.FileType.File)

    def list(self, folder: str) -> list[str]:
        """Return the published files of a folder and its subfolders, below the root, sorted."""
        return list(self.stamps(folder))

    def stamps(self, folder: str) -> dict[str, FileStamp]:
        """Return the published files of a folder and its subfolders with size and time of change, sorted by path."""
        selector = pafs.FileSelector(self._full(folder), recursive=True, allow_not_found=True)
        prefix = len(self._root.rstrip("/")) + 1
        infos = [
            info
            for info in self._fs.get_file_info(selector)
            if info.type == pafs.FileType.File and not info.base_name.startswith(_TEMPORARY)
        ]
        stamps = {info.path[prefix:]: FileStamp(info.size, info.mtime_ns) for info in infos}
        return dict(sorted(stamps.items()))

    def _sweep_temporaries(self) -> None:
        """Delete what writers left that were killed half-way; only the holder of the driver lock may."""
        for path in Path(self._root).rglob(f"{_TEMPORARY}*"):
            path.unlink(missing_ok=True)

    def full_path(self, path: str) -> str:
        """Return the path as ``filesystem`` takes it."""
        return self._full(path)

    @property
    def filesystem(self) -> pafs.FileSystem:
        """The pyarrow file system the store lives on."""
        return self._fs

    def snapshot_epochs(self, stage: str) -> tuple[int, ...]:
        """Return the epochs of a pretrain stage whose snapshots are published, ascending."""
        names = [path.rsplit("/", 1)[-1] for path in self.list(f"snapshots/{stage}")]
        return tuple(int(match[1]) for name in names if (match := _SNAPSHOT_NAME.fullmatch(name)))

    @contextmanager
    def driver_lock(self) -> Iterator[None]:
        """Hold the store for one driver; a local lock is released by the kernel however the driver ends.

        Raises:
            StoreError: if another driver on this machine is running on the store.
        """
        if not self._local:
            yield
            return
        lock = self.local_path("driver.lock")
        lock.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("a+") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                stream.seek(0)
                holder = stream.read().strip() or "unknown"
                raise StoreError(
                    f"store {self.uri} is in use by another `raysweep run` ({holder}). Wait, or use another store."
                ) from error
            self._sweep_temporaries()
            stream.truncate(0)
            stream.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            stream.flush()
            yield

    # ---- ledger ------------------------------------------------------------------------------------------------

    def record(self, record: LedgerRecord) -> None:
        """Publish how a stage ended."""
        self.write_bytes(f"ledger/{record.stage}.json", json.dumps(record.to_json(), sort_keys=True).encode())

    def ledger(self) -> dict[str, LedgerRecord]:
        """Return how every ended stage ended, by stage id."""
        records = {}
        for path in self.list("ledger"):
            record = self.ledger_record(Path(path).stem) if path.endswith(".json") else None
            if record is not None:
                records[record.stage] = record
        return records

    def ledger_record(self, stage: str) -> LedgerRecord | None:
        """Return how one stage ended, or None if it has not."""
        path = f"ledger/{stage}.json"
        data = self.read_bytes(path)
        if data is None:
            return None
        try:
            return LedgerRecord.from_json(_parse(data))
        except (ValueError, TypeError) as error:
            raise StoreError(
                f"{self.uri}/{path} is not a ledger record ({error}); delete it to have the stage run again"
            ) from error

    def forget(self, stage: str) -> None:
        """Take a stage out of the ledger, so that the next launch runs it again."""
        self.delete(f"ledger/{stage}.json")

    def record_failure(self, failure: FailureRecord) -> None:
        """Publish that an attempt of a stage has failed."""
        number = len(self.list(f"failures/{failure.stage}"))
        path = f"failures/{failure.stage}/{number:04d}-{uuid.uuid4().hex[:8]}.json"
        self.write_bytes(path, json.dumps(failure.to_json(), sort_keys=True).encode())

    def failures(self, stages: Container[str] | None = None) -> Sequence[FailureRecord]:
        """Return the failed attempts, of some stages or of all, in order of stage and time."""
        found = []
        for path in self.list("failures"):
            if stages is None or Path(path).parent.name in stages:
                with suppress(ValueError, TypeError):  # a record that cannot be read is no reason to stop
                    found.append(FailureRecord.from_json(_parse(self.read_bytes(path) or b"")))
        return found

    def _full(self, path: str) -> str:
        return f"{self._root.rstrip('/')}/{path}"


def _filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    if "://" not in uri:
        return pafs.LocalFileSystem(), str(Path(uri).expanduser().absolute())
    try:
        filesystem, root = pafs.FileSystem.from_uri(uri)
    except (ValueError, OSError) as error:
        raise StoreError(
            f"store {uri!r} cannot be opened: {error}. Allowed: a folder, or a URI with one of the schemes "
            "file, s3, gs, abfs, hdfs."
        ) from error
    return filesystem, root


def _parse(data: bytes) -> dict[str, Any]:
    """Return the JSON object in ``data``, or raise ValueError."""
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__}, not a JSON object")
    return value
