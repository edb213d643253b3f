"""The live files of a store: which Parquet files hold its rows at this moment, each row in one of them.

A stage writes one loose part a table. Compaction merges parts into few files and publishes a manifest that names them,
with the size and time of every part they were made of. A loose part that is still the merged one is not read; any other
part is newer than the merged rows of its stage and replaces them. A reader lists the loose parts first and reads the
manifest after that: a part that compaction has deleted meanwhile is then in the manifest, so no row is seen twice or
not at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from raysweep.errors import StoreError
from raysweep.store import FileStamp, Store

MANIFEST = "results/manifest.json"
MERGED = "merged"
"""Folder of merged files below that of their table."""
MANIFEST_VERSION = 1

Owner = tuple[str, str]
"""A study and one of its sources."""


@dataclass(frozen=True)
class MergedFile:
    """One merged file: the parts it was made of, and the sources of studies whose cells need them."""

    path: str
    owners: tuple[Owner, ...]
    parts: Mapping[str, FileStamp]
    """Stage of every part -> the part's stamp when it was merged."""

    def to_json(self) -> dict[str, Any]:
        """Return the entry as JSON-like values."""
        return {
            "path": self.path,
            "owners": [list(owner) for owner in self.owners],
            "parts": {stage: stamp.to_json() for stage, stamp in self.parts.items()},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> MergedFile:
        """Rebuild an entry."""
        parts = {stage: FileStamp(*stamp) for stage, stamp in value["parts"].items()}
        return cls(value["path"], tuple((study, source) for study, source in value["owners"]), parts)


@dataclass(frozen=True)
class Manifest:
    """The merged files of every table; ``generation`` rises with every compaction, 0 where there is no manifest."""

    generation: int = 0
    files: Mapping[str, tuple[MergedFile, ...]] = field(default_factory=dict)

    def of(self, table: str) -> tuple[MergedFile, ...]:
        """Return a table's merged files."""
        return self.files.get(table, ())

    def to_bytes(self) -> bytes:
        """Return the manifest as it is stored."""
        files = {table: [file.to_json() for file in entries] for table, entries in self.files.items()}
        return json.dumps({"version": MANIFEST_VERSION, "generation": self.generation, "files": files}).encode()


@dataclass(frozen=True)
class LiveFile:
    """A file to read: the stages (for ``cells``: the study) whose rows in it count, and those whose rows do not."""

    path: str
    stages: frozenset[str]
    replaced: frozenset[str] = frozenset()


def read_manifest(store: Store) -> Manifest:
    """Return the store's manifest; an empty one if it was never compacted.

    Raises:
        StoreError: if the manifest is corrupt or was written by a newer raysweep.
    """
    data = store.read_bytes(MANIFEST)
    if data is None:
        return Manifest()
    try:
        value = json.loads(data)
        version = value["version"]
        if version == MANIFEST_VERSION:
            files = {table: tuple(map(MergedFile.from_json, entries)) for table, entries in value["files"].items()}
            return Manifest(value["generation"], files)
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{store.uri}/{MANIFEST} is corrupt ({error}); delete it and run `raysweep compact`, which writes it anew "
            "from the merged files"
        ) from error
    raise StoreError(
        f"{store.uri}/{MANIFEST} has version {version!r}; this raysweep reads version {MANIFEST_VERSION}. "
        "Use the raysweep that wrote it."
    )


def live_files(store: Store, table: str) -> list[LiveFile]:
    """Return the files that hold a table's rows now, loose parts first; merged files that are lost are left out.

    Raises:
        StoreError: if merged files are there and the manifest that names them is not.
    """
    while True:
        there = store.stamps(f"results/{table}")
        manifest = read_manifest(store)
        lost = {file.path for file in manifest.of(table) if file.path not in there and not store.exists(file.path)}
        # A compaction between the listing and the manifest deletes merged files too: only a second look tells.
        if not lost or read_manifest(store).generation == manifest.generation:
            return _live(store, table, there, manifest, lost)


def live_stages(store: Store, table: str) -> set[str]:
    """Return the stages (for ``cells``: the studies) that have rows in a table now."""
    return {stage for file in live_files(store, table) for stage in file.stages}


def _live(
    store: Store, table: str, there: Mapping[str, FileStamp], manifest: Manifest, lost: Iterable[str]
) -> list[LiveFile]:
    parts = {path: stamp for path, stamp in there.items() if is_part(path)}
    if not manifest.generation:
        _require_no_merged(store, table, there)
    merged = [file for file in manifest.of(table) if file.path not in lost]
    known = {stage: stamp for file in merged for stage, stamp in file.parts.items()}
    loose = {stage_of(path): path for path, stamp in parts.items() if known.get(stage_of(path)) != stamp}
    files = [LiveFile(path, frozenset([stage])) for stage, path in sorted(loose.items())]
    for file in merged:
        replaced = loose.keys() & file.parts.keys()
        files.append(LiveFile(file.path, frozenset(file.parts.keys() - replaced), frozenset(replaced)))
    return [file for file in files if file.stages]


def _require_no_merged(store: Store, table: str, there: Iterable[str]) -> None:
    merged = [path for path in there if path.startswith(f"results/{table}/{MERGED}/") and path.endswith(".parquet")]
    if merged:
        raise StoreError(
            f"store {store.uri} has merged files ({merged[0]}, ...) and no {MANIFEST} that names them: "
            "`raysweep compact` writes it anew from the merged files"
        )


def is_part(path: str) -> bool:
    """Whether a path below the store's root is a loose part: ``results/<table>/<stage>.parquet``."""
    return path.count("/") == 2 and path.endswith(".parquet")


def stage_of(path: str) -> str:
    """Return the stage (for ``cells``: the study) of a loose part."""
    return PurePosixPath(path).stem
