"""Compaction: merging the parts of finished stages into few files, with no moment at which a row counts twice or not.

The steps, each safe to die after:

1. Merge into files that no manifest names: no reader looks at them.
2. Publish the manifest, one atomic write: from now on the merged files count and the parts they were made of do not.
3. Delete those parts, and merged files of earlier generations. Whatever is left over is deleted by the next compaction.

Files are grouped by the sources of studies whose cells need a stage, so that a study, and a source of it, read their
own files only; a stage that several share lies in a file of such stages. Stages that failed, or run again, stay loose.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysweep.errors import StoreError
from raysweep.results.live import MANIFEST, MERGED, Manifest, MergedFile, Owner, is_part, read_manifest, stage_of
from raysweep.results.read import conform, read_cells, read_file
from raysweep.results.schemas import TABLES
from raysweep.store import FileStamp, Store

MERGED_TABLES = ("stages", "epochs", "cases", "snapshots")
"""``cells`` has one file per study already, and every launch writes it anew."""
_ROWS_PER_GROUP = 131_072
_PARTS = b"raysweep_parts"
_PARTIAL = ".partial"


@dataclass(frozen=True)
class Compaction:
    """What a compaction did; files are Parquet files of all tables but ``cells``."""

    generation: int
    num_files_before: int
    num_files_after: int
    num_rows_merged: int


@dataclass(frozen=True)
class _Sources:
    """Where the rows of a table are now: loose parts by stage, and merged files."""

    loose: Mapping[str, tuple[str, FileStamp]]
    merged: tuple[MergedFile, ...]


def compact(store: Store) -> Compaction:
    """Merge the parts of all stages that are done, and delete what was merged.

    Runs may go on meanwhile: what they write stays loose.

    Raises:
        StoreError: if another compaction is running, or a part cannot be read.
    """
    with store.compaction_lock():
        before = _recovered_manifest(store)
        _sweep(store, before)
        num_before = _count_files(store)
        owners = _owners(store)
        done = {stage for stage, record in store.ledger().items() if record.status == "done"}
        files, written, num_rows = {}, [], 0
        for table in MERGED_TABLES:
            sources = _sources(store, table, before, done)
            files[table], fresh, rows = _merge_table(store, table, sources, owners, before.generation + 1)
            written += fresh
            num_rows += rows
        if not written:
            return Compaction(before.generation, num_before, num_before, 0)
        _reveal(store, written)
        after = Manifest(before.generation + 1, files)
        store.write_bytes(MANIFEST, after.to_bytes())
        _sweep(store, after)
        return Compaction(after.generation, num_before, _count_files(store), num_rows)


def _sources(store: Store, table: str, manifest: Manifest, done: set[str]) -> _Sources:
    """Return a table's files: the parts of stages that are done, or newer than what was merged of their stage."""
    merged = tuple(file for file in manifest.of(table) if store.exists(file.path))
    parts = {stage_of(p): (p, stamp) for p, stamp in store.stamps(f"results/{table}").items() if is_part(p)}
    return _Sources({stage: part for stage, part in parts.items() if stage in done}, merged)


def _merge_table(
    store: Store, table: str, sources: _Sources, owners: Mapping[str, frozenset[Owner]], generation: int
) -> tuple[tuple[MergedFile, ...], list[str], int]:
    """Write the files of a table that have changed; return all its files, the paths written, and the rows in them."""
    loose = sources.loose
    wanted: dict[tuple[Owner, ...], dict[str, FileStamp]] = {}
    stamps = {stage: stamp for file in sources.merged for stage, stamp in file.parts.items()}
    for stage, stamp in {**stamps, **{stage: stamp for stage, (_, stamp) in loose.items()}}.items():
        wanted.setdefault(tuple(sorted(owners.get(stage, ()))), {})[stage] = stamp
    unchanged = {file.owners: file for file in sources.merged}
    files, written, num_rows = [], [], 0
    for group, parts in sorted(wanted.items()):
        old = unchanged.get(group)
        if old is not None and old.parts == parts:
            files.append(old)
            continue
        path = _merged_path(table, group, generation)
        file = MergedFile(path, group, dict(sorted(parts.items())))
        num_rows += _write_merged(store, table, file, _batches(store, table, sources, set(parts)))
        files.append(file)
        written.append(path)
    return tuple(files), written, num_rows


def _batches(store: Store, table: str, sources: _Sources, stages: set[str]) -> Iterator[pa.Table]:
    """Yield the present rows of some stages, merged ones row group by row group."""
    for stage in sorted(stages & sources.loose.keys()):
        yield read_file(store, table, sources.loose[stage][0])
    for file in sources.merged:
        kept = stages & file.parts.keys() - sources.loose.keys()
        if not kept:
            continue
        names = pa.array(sorted(kept), pa.string())
        with store.filesystem.open_input_file(store.full_path(file.path)) as stream:
            source = pq.ParquetFile(stream)
            for number in range(source.num_row_groups):
                rows = conform(table, source.read_row_group(number))
                yield rows.filter(pc.is_in(rows["stage"], value_set=names))


def _write_merged(store: Store, table: str, file: MergedFile, batches: Iterable[pa.Table]) -> int:
    """Write a merged file under a name that no glob matches, and return its number of rows."""
    footer = json.dumps(file.to_json()).encode()
    schema = TABLES[table].schema()
    schema = schema.with_metadata({**schema.metadata, _PARTS: footer})
    num_rows = 0
    with _sink(store, file.path) as stream, pq.ParquetWriter(stream, schema, compression="zstd") as writer:
        held: list[pa.Table] = []
        for batch in batches:
            held.append(batch)
            num_rows += batch.num_rows
            if sum(part.num_rows for part in held) >= _ROWS_PER_GROUP:
                writer.write_table(_joined(held, schema), row_group_size=_ROWS_PER_GROUP)
                held = []
        if held:
            writer.write_table(_joined(held, schema), row_group_size=_ROWS_PER_GROUP)
    return num_rows


def _joined(parts: list[pa.Table], schema: pa.Schema) -> pa.Table:
    return pa.concat_tables(parts).unify_dictionaries().replace_schema_metadata(schema.metadata)


@contextmanager
def _sink(store: Store, path: str) -> Iterator[Any]:
    """Open a merged file for writing; an object store shows it when it is complete."""
    if not store.is_local:
        with store.writer(path) as temporary, temporary.open("wb") as stream:
            yield stream
        return
    partial = store.local_path(path + _PARTIAL)
    partial.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("wb") as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())


def _reveal(store: Store, paths: Iterable[str]) -> None:
    """Give merged files their names, all at once: until the parts are deleted, plain globs see rows twice."""
    if store.is_local:
        for path in paths:
            store.local_path(path + _PARTIAL).replace(store.local_path(path))


def _sweep(store: Store, manifest: Manifest) -> None:
    """Delete merged files that the manifest does not name, and parts that are still those it names."""
    for table in MERGED_TABLES:
        named = {file.path for file in manifest.of(table)}
        there = store.stamps(f"results/{table}")
        merged = {
            stage: stamp for file in manifest.of(table) if file.path in there for stage, stamp in file.parts.items()
        }
        for path, stamp in there.items():
            if is_part(path):
                if merged.get(stage_of(path)) == stamp:
                    store.delete(path)
            elif path not in named and path.startswith(f"results/{table}/{MERGED}/"):
                store.delete(path)


def _recovered_manifest(store: Store) -> Manifest:
    """Return the manifest; if it is gone, write one that names, for every stage, the newest merged file that holds it.

    A store that was never compacted gets an empty one before its first merged file, so that a store with merged files
    and no manifest is one that has lost it.
    """
    manifest = read_manifest(store)
    if manifest.generation:
        return manifest
    found: dict[str, tuple[MergedFile, ...]] = {}
    newest = 1
    for table in MERGED_TABLES:
        paths = [p for p in store.list(f"results/{table}/{MERGED}") if p.endswith(".parquet")]
        entries = sorted(((_generation(path), _footer(store, path)) for path in paths), key=lambda e: -e[0])
        seen: set[str] = set()
        kept = []
        for generation, file in entries:
            newest = max(newest, generation)
            if not seen & file.parts.keys():
                kept.append(file)
                seen |= file.parts.keys()
        found[table] = tuple(kept)
    manifest = Manifest(newest, found)
    store.write_bytes(MANIFEST, manifest.to_bytes())
    return manifest


def _footer(store: Store, path: str) -> MergedFile:
    try:
        metadata = pq.read_schema(store.full_path(path), filesystem=store.filesystem).metadata
        return MergedFile.from_json(json.loads(metadata[_PARTS]))
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        raise StoreError(f"{store.uri}/{path} cannot be read: {error}. Delete it; its stages run again.") from error


def _owners(store: Store) -> dict[str, frozenset[Owner]]:
    """Return, by stage, the sources of studies whose cells need it."""
    owners: dict[str, set[Owner]] = {}
    for cell in read_cells(store).select(["study", "source", "stage", "lineage"]).to_pylist():
        for stage in (cell["stage"], *(cell["lineage"] or ())):
            owners.setdefault(stage, set()).add((cell["study"], cell["source"]))
    return {stage: frozenset(found) for stage, found in owners.items()}


def _merged_path(table: str, owners: tuple[Owner, ...], generation: int) -> str:
    """Return ``results/<table>/merged/<study>.<source>-<hash>-<generation>.parquet``."""
    studies, sources = (sorted({owner[i] for owner in owners}) for i in (0, 1))
    words = [names[0] if len(names) == 1 else f"{len(names)}-{kind}" for names, kind in
             ((studies, "studies"), (sources, "sources"))] if owners else ["no", "study"]  # fmt: skip
    name = ".".join(re.sub(r"[^A-Za-z0-9-]+", "-", word)[:40] for word in words)
    digest = hashlib.sha256(json.dumps(owners).encode()).hexdigest()[:8]
    return f"results/{table}/{MERGED}/{name}-{digest}-{generation:06d}.parquet"


def _generation(path: str) -> int:
    match = re.search(r"-(\d{6,})\.parquet$", path)
    return int(match[1]) if match else 0


def _count_files(store: Store) -> int:
    return sum(path.endswith(".parquet") for table in MERGED_TABLES for path in store.list(f"results/{table}"))
