"""Reading results: Arrow tables by study, and SQL over the store's views."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from raysweep.errors import QueryError, StoreError
from raysweep.results.live import MERGED, LiveFile, live_files
from raysweep.results.schemas import TABLES, VIEWS, check_version
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

    def read() -> StudyTables:
        cells = _study_cells(store, study, sources)
        stages = _stages_of(cells)
        tables = {name: _read(store, name, _files_of(store, name, stages), stages) for name in _FACTS}
        return StudyTables(study=study, cells=cells, **tables)

    return _steadily(store, read)


def store_tables(store: Store) -> dict[str, pa.Table]:
    """Read every table of the store into memory, whatever the study."""
    return _steadily(store, lambda: {name: _read(store, name, live_files(store, name)) for name in TABLES})


def read_cells(store: Store) -> pa.Table:
    """Read the cells of every study."""
    return _steadily(store, lambda: _read(store, "cells", live_files(store, "cells")))


def query_store(store: Store, sql: str, study: str | None = None, sources: Iterable[str] | None = None) -> pa.Table:
    """Run one SQL query over the store's tables and views; it can neither write nor read other files.

    Columns and row groups that the query does not need are not read. ``study`` and ``sources`` limit the tables to
    what their cells need, and the files opened to those that hold it.

    Raises:
        QueryError: if the query is not valid; the message lists the tables.
        StoreError: if a file cannot be read, or there is no such study or source.
    """
    if sources is not None and study is None:
        raise QueryError("sources are those of a study: name the study too")

    def answer() -> pa.Table:
        tables: dict[str, pa.Table | pads.Dataset] = {}
        stages = None
        if study is not None:
            tables["cells"] = _study_cells(store, study, sources)
            stages = _stages_of(tables["cells"])
        for name in TABLES.keys() - tables.keys():
            files = live_files(store, name)
            tables[name] = _dataset(store, name, files if stages is None else _holding(files, stages), stages)
        try:
            return query_tables({name: tables[name] for name in TABLES}, sql)
        except QueryError:
            _check_files(store)
            raise

    return _steadily(store, answer)


def query_tables(tables: Mapping[str, pa.Table | pads.Dataset], sql: str) -> pa.Table:
    """Run one SQL query over Arrow tables or data sets and the views that they allow.

    Raises:
        QueryError: if the query is not valid.
    """
    with duckdb.connect(":memory:") as connection:
        for name, table in tables.items():
            connection.register(name, table)
        for name, (_, select) in VIEWS.items():
            connection.execute(f"CREATE VIEW {name} AS {select}")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET python_enable_replacements = false")  # no reading of this process's variables
        connection.execute("SET lock_configuration = true")
        try:
            answer = connection.sql(sql)
            if answer is None:
                raise QueryError("the query returned nothing: write a SELECT over the store's tables")
            return answer.to_arrow_table()
        except duckdb.Error as error:
            names = ", ".join([*tables, *VIEWS])
            raise QueryError(f"the query failed: {error}\nTables: {names}.") from error


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


def _steadily(store: Store, read: Callable[[], _Found]) -> _Found:
    """Read again where a file has gone: a compaction has put its rows elsewhere."""
    for attempt in range(_TRIES):
        try:
            return read()
        except FileNotFoundError as error:
            if attempt == _TRIES - 1:
                raise StoreError(f"store {store.uri}: files disappear while they are read: {error}") from error
    raise AssertionError


def _study_cells(store: Store, study: str, sources: Iterable[str] | None) -> pa.Table:
    studies = {stage: file for file in live_files(store, "cells") for stage in file.stages}
    if study not in studies:
        raise StoreError(
            f"store {store.uri} has no study {study!r} (studies there: {', '.join(sorted(studies)) or 'none'}). "
            "Run it first, or give the store it ran on with --store."
        )
    cells = _read(store, "cells", [studies[study]])
    if sources is None:
        return cells
    wanted, known = set(sources), set(cells["source"].to_pylist())
    if unknown := sorted(wanted - known):
        raise StoreError(f"study {study!r} has no source {', '.join(unknown)}; its sources: {', '.join(sorted(known))}")
    return cells.filter(pc.is_in(cells["source"].cast(pa.string()), value_set=pa.array(sorted(wanted))))


def _stages_of(cells: pa.Table) -> set[str]:
    stages = set(cells["stage"].to_pylist())
    stages.update(stage for lineage in cells["lineage"].to_pylist() for stage in lineage or ())
    return stages


def _files_of(store: Store, table: str, stages: set[str]) -> list[LiveFile]:
    return _holding(live_files(store, table), stages)


def _holding(files: Iterable[LiveFile], stages: set[str]) -> list[LiveFile]:
    return [file for file in files if not stages.isdisjoint(file.stages)]


def _read(store: Store, table: str, files: list[LiveFile], stages: set[str] | None = None) -> pa.Table:
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


def _dataset(store: Store, table: str, files: list[LiveFile], stages: set[str] | None) -> pa.Table | pads.Dataset:
    """Return files as a data set that is read as far as a query needs; those with foreign rows are read here."""
    schema = TABLES[table].schema()
    whole = [f for f in files if not f.replaced and (stages is None or f.stages <= stages)]
    mixed = [f for f in files if f not in whole]
    lazy = pads.dataset(
        [store.full_path(f.path) for f in whole], schema=schema, format="parquet", filesystem=store.filesystem
    )
    if not mixed:
        return lazy
    return pads.dataset([lazy, pads.dataset(_read(store, table, mixed, stages))])


def _check_files(store: Store) -> None:
    """Raise for the first file that cannot be read, if that is why a query failed."""
    for table in TABLES:
        for file in live_files(store, table):
            path = store.full_path(file.path)
            try:
                with store.filesystem.open_input_file(path) as stream:
                    check_version(pq.read_schema(stream).metadata, f"{store.uri}/{file.path}")
            except FileNotFoundError:
                raise
            except (pa.ArrowException, OSError):
                read_file(store, table, file.path)


def _remedy(table: str, path: str) -> str:
    if table == "cells":
        return "Delete the file and run the study again: it is written anew, and no stage is repeated."
    if f"/{MERGED}/" in path:
        return "Delete it and run the study again: only the stages whose rows it held are repeated."
    stage = path.rsplit("/", 1)[-1].removesuffix(".parquet")
    return f"Delete it and ledger/{stage}.json and run the study again: only that stage is repeated."
