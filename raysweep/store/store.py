"""The store's root: its files by name, its lock, and its ledger."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow.fs as pafs

from raysweep.errors import StoreError
from raysweep.ledger import FailureRecord, LedgerRecord
from raysweep.store import uri as uris
from raysweep.store.files import Files, FileStamp
from raysweep.store.local import LocalFiles

FORMAT_VERSION = 1
_SNAPSHOT_NAME = re.compile(r"(\d{6,})\.safetensors")
_READERS = 16


class Store:
    """One root for packs, snapshots, results and the ledger, shared by all studies.

    Every write is atomic: a reader sees the whole file or none. On a file system that is a rename; an object store
    shows an object when its upload is complete.
    """

    def __init__(self, uri: str | Path) -> None:
        self._files = _files(str(uri))
        self.uri = self._files.uri

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return (Store, (self.absolute_uri,))

    def __repr__(self) -> str:
        return f"Store({self.uri!r})"

    @property
    def absolute_uri(self) -> str:
        """The URI as other processes can open it: an absolute path for a local store."""
        return self._files.absolute_uri

    @property
    def is_local(self) -> bool:
        """Whether the root is a folder."""
        return isinstance(self._files, LocalFiles)

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
        if not isinstance(self._files, LocalFiles):
            raise StoreError(f"store {self.uri} is remote: {path} has no local file")
        return self._files.root / path

    @staticmethod
    def snapshot_path(stage: str, epoch: int) -> str:
        """Path of the encoder of a pretrain stage at one epoch."""
        return f"snapshots/{stage}/{epoch:06d}.safetensors"

    @staticmethod
    def model_path(stage: str) -> str:
        """Path of the network that a finetune stage tested."""
        return f"models/{stage}.safetensors"

    @staticmethod
    def log_path(stage: str, begin_s: float, attempt: int) -> str:
        """Path of what an attempt said that began at a time, in seconds since 1970; later ones sort behind it."""
        begin = datetime.fromtimestamp(begin_s, UTC)
        return f"logs/{stage}/{begin:%Y%m%dT%H%M%S.%f}-{attempt:02d}.jsonl"

    @staticmethod
    def resume_path(stage: str) -> str:
        """Path of the training state of a stage that has not ended."""
        return f"resume/{stage}.pt"

    @staticmethod
    def examples_path(stage: str) -> str:
        """Path of a finetune stage's example predictions."""
        return f"examples/{stage}.npz"

    @staticmethod
    def probe_path(key: str) -> str:
        """Path of the probes of an encoder, by what decides them."""
        return f"probes/{key}.json"

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
        return self._files.read(path)

    def write_bytes(self, path: str, data: bytes) -> None:
        """Publish a file atomically, replacing any older version."""
        self._files.write(path, data)

    def writer(self, path: str) -> AbstractContextManager[Path]:
        """Yield a temporary local file that is published under ``path`` when the block ends without an error."""
        return self._files.writer(path)

    def upload(self, path: str, file: Path) -> None:
        """Publish a copy of a local file atomically."""
        self._files.upload(path, file)

    def delete(self, path: str) -> None:
        """Delete a file if it is there."""
        self._files.delete(path)

    def exists(self, path: str) -> bool:
        """Whether a file is there."""
        return self._files.exists(path)

    def list(self, folder: str) -> list[str]:
        """Return the published files of a folder and its subfolders, below the root, sorted."""
        return [*self.stamps(folder)]

    def stamps(self, folder: str) -> dict[str, FileStamp]:
        """Return the published files of a folder and its subfolders with size and time of change, sorted by path."""
        return self._files.stamps(folder)

    def full_path(self, path: str) -> str:
        """Return the path as ``filesystem`` takes it."""
        return self._files.full_path(path)

    def path_uri(self, path: str) -> str:
        """Return the path as other processes can open it: a URI, or an absolute path for a local store."""
        if self.is_local:
            return self.full_path(path)
        bare, mark, options = self.absolute_uri.partition("?")
        return f"{bare.rstrip('/')}/{path}{mark}{options}"

    @property
    def filesystem(self) -> pafs.FileSystem:
        """A pyarrow file system to read the store's files with."""
        return self._files.filesystem

    def snapshot_epochs(self, stage: str) -> tuple[int, ...]:
        """Return the epochs of a pretrain stage whose snapshots are published, ascending."""
        names = [path.rsplit("/", 1)[-1] for path in self.list(f"snapshots/{stage}")]
        return tuple(int(match[1]) for name in names if (match := _SNAPSHOT_NAME.fullmatch(name)))

    @contextmanager
    def driver_lock(self) -> Iterator[None]:
        """Hold the store for one driver; it is free again however the driver ends.

        Raises:
            StoreError: if another driver is running on the store.
        """
        busy = f"store {self.uri} is in use by another `raysweep run` ({{holder}}). Wait, or use another store."
        with self._files.locked("driver.lock", busy):
            self._files.clear_leftovers()
            yield

    def compaction_lock(self) -> AbstractContextManager[None]:
        """Hold the store for one compaction.

        Raises:
            StoreError: if another compaction is running.
        """
        busy = f"store {self.uri} is being compacted already; wait for that to end"
        return self._files.locked("results/compaction.lock", busy)

    # ---- ledger ------------------------------------------------------------------------------------------------

    def record(self, record: LedgerRecord) -> None:
        """Publish how a stage ended."""
        self.write_bytes(f"ledger/{record.stage}.json", json.dumps(record.to_json(), sort_keys=True).encode())

    def ledger(self) -> dict[str, LedgerRecord]:
        """Return how every ended stage ended, by stage id."""
        paths = [path for path in self.list("ledger") if path.endswith(".json")]
        found = [self._parsed_record(path, data) for path, data in self._read_all(paths) if data is not None]
        return {record.stage: record for record in found}

    def ledger_record(self, stage: str) -> LedgerRecord | None:
        """Return how one stage ended, or None if it has not."""
        path = f"ledger/{stage}.json"
        data = self.read_bytes(path)
        return None if data is None else self._parsed_record(path, data)

    def _parsed_record(self, path: str, data: bytes) -> LedgerRecord:
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
        paths = [path for path in self.list("failures") if stages is None or PurePosixPath(path).parent.name in stages]
        found = []
        for _, data in self._read_all(paths):
            with suppress(ValueError, TypeError):  # a record that cannot be read is no reason to stop
                found.append(FailureRecord.from_json(_parse(data or b"")))
        return found

    def _read_all(self, paths: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
        """Yield paths with their files' bytes, in order; from an object store, several at a time."""
        if self.is_local:
            yield from ((path, self.read_bytes(path)) for path in paths)
            return
        wanted = [*paths]
        with ThreadPoolExecutor(_READERS) as pool:
            yield from zip(wanted, pool.map(self.read_bytes, wanted), strict=True)


def _files(uri: str) -> Files:
    if not uris.is_remote(uri):
        return LocalFiles(uri, uris.local_root(uri))
    from raysweep.store.objects import ObjectFiles  # a local store does without its library

    return ObjectFiles(uri)


def _parse(data: bytes) -> dict[str, Any]:
    """Return the JSON object in ``data``, or raise ValueError."""
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__}, not a JSON object")
    return value
