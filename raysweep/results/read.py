"""Reading results: Arrow tables by study, and of the whole store."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysweep.errors import StoreError
from raysweep.results.live import MERGED, LiveFile, live_files
from raysweep.results.schemas import TABLES, check_version
from raysweep.results.sql import query_tables
from raysweep.store import Store

_FACTS = ("stages", "epochs", "cases")
_THREADS = 8
_TRIES = 5
_Found = TypeVar("_Found")


@dataclass(frozen=True, eq=False)
class StudyTables:
    """The facts of one study: its cells, and the stages they need with their rows; equal only to itself."""

    study: str
    cells: pa.Table
    stages: pa.Table
    epochs: pa.Table
    cases: pa.Table

    def trials(self) -> pa.Table:
        """Return the ``trials`` view: one row per cell with the outcome of its finetune stage."""
        return self.query("SELECT * FROM trials ORDER BY cell")

    def curves(self) -> pa.Table:
        """Return the ``curves`` view: metrics by epoch of every cell."""
        return self.query("SELECT * FROM curves ORDER BY cell, epoch, split, metric")

    def query(self, sql: str) -> pa.Table:
        """Run SQL over the four tables and the views."""
        tables = {"cells": self.cells, "stages": self.stages, "epochs": self.epochs, "cases": self.cases}
        return query_tables(tables, sql)


def study_tables(store: Store, study: str, sources: Iterable[str] | None = None) -> StudyTables:
    """Read one study's tables, or only those of some of its sources; only files that hold its stages are opened.

    Raises:
        StoreError: if the store has no such study, or the study no such source.
    """

    def tables() -> StudyTables:
        cells = study_cells(store, study, sources)
        stages = stages_of(cells)
        facts = {name: read_files(store, name, holding(live_files(store, name), stages), stages) for name in _FACTS}
        return StudyTables(study=study, cells=cells, **facts)

    return steadily(store, tables)


def store_tables(store: Store) -> dict[str, pa.Table]:
    """Read every table of the store into memory, whatever the study."""
    return steadily(store, lambda: {name: read_files(store, name, live_files(store, name)) for name in TABLES})


def read_cells(store: Store) -> pa.Table:
    """Read the cells of every study."""
    return steadily(store, lambda: read_files(store, "cells", live_files(store, "cells")))


def read_file(store: Store, table: str, path: str) -> pa.Table:
    """Read one Parquet file of a table in the present schema; columns that an older version lacks are null.

    Raises:
        FileNotFoundError: if there is no such file.
        StoreError: if it cannot be read, or was written by a newer raysweep.
    """
    try:
        with store.filesystem.open_input_file(store.full_path(path)) as stream:
            source = pq.ParquetFile(stream)
            check_version(source.schema_arrow.metadata, f"{store.uri}/{path}")
            return conform(table, source.read())
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{store.uri}/{path} cannot be read: {error}. {_remedy(table, path)}") from error


def conform(table: str, rows: pa.Table) -> pa.Table:
    """Return rows of any version in the present schema; columns that an older version lacks are null."""
    schema = TABLES[table].schema()
    columns = [
        rows[field.name].cast(field.type) if field.name in rows.column_names else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def steadily(store: Store, read: Callable[[], _Found]) -> _Found:
    """Read again where a file has gone: a compaction has put its rows elsewhere."""
    for attempt in range(_TRIES):
        try:
            return read()
        except FileNotFoundError as error:
            if attempt == _TRIES - 1:
                raise StoreError(f"store {store.uri}: files disappear while they are read: {error}") from error
    raise AssertionError


def study_cells(store: Store, study: str, sources: Iterable[str] | None) -> pa.Table:
    """Read the cells of a study, or of some of its sources."""
    studies = {stage: file for file in live_files(store, "cells") for stage in file.stages}
    if study not in studies:
        raise StoreError(
            f"store {store.uri} has no study {study!r} (studies there: {', '.join(sorted(studies)) or 'none'}). "
            "Run it first, or give the store it ran on with --store."
        )
    cells = read_files(store, "cells", [studies[study]])
    if sources is None:
        return cells
    wanted, known = set(sources), set(cells["source"].to_pylist())
    if unknown := sorted(wanted - known):
        raise StoreError(f"study {study!r} has no source {', '.join(unknown)}; its sources: {', '.join(sorted(known))}")
    return cells.filter(pc.is_in(cells["source"].cast(pa.string()), value_set=pa.array(sorted(wanted))))


def stages_of(cells: pa.Table) -> set[str]:
    """Return the stages that cells need."""
    stages = set(cells["stage"].to_pylist())
    stages.update(stage for lineage in cells["lineage"].to_pylist() for stage in lineage or ())
    return stages


def holding(files: Iterable[LiveFile], stages: set[str]) -> list[LiveFile]:
    """Return the files that hold rows of any of some stages."""
    return [file for file in files if not stages.isdisjoint(file.stages)]


def read_files(store: Store, table: str, files: list[LiveFile], stages: set[str] | None = None) -> pa.Table:
    """Read files into memory, without rows that a newer part replaces or whose stage is not in ``stages``."""
    if not files:
        return TABLES[table].schema().empty_table()

    def read(file: LiveFile) -> pa.Table:
        rows = read_file(store, table, file.path)
        kept = file.stages if stages is None else file.stages & stages
        if kept == file.stages and not file.replaced:
            return rows
        return rows.filter(pc.is_in(rows["stage"], value_set=pa.array(sorted(kept), pa.string())))

    with ThreadPoolExecutor(_THREADS) as pool:
        return pa.concat_tables(pool.map(read, files)).unify_dictionaries()


def _remedy(table: str, path: str) -> str:
    if table == "cells":
        return "Delete the file and run the study again: it is written anew, and no stage is repeated."
    if f"/{MERGED}/" in path:
        return "Delete it and run the study again: only the stages whose rows it held are repeated."
    stage = path.rsplit("/", 1)[-1].removesuffix(".parquet")
    return f"Delete it and ledger/{stage}.json and run the study again: only that stage is repeated."
