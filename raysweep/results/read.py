"""Reading results: Arrow tables by study, and SQL over the store's views."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from raysweep.errors import QueryError, StoreError
from raysweep.results.schemas import TABLES, VIEWS
from raysweep.store import Store

_THREADS = 8


@dataclass(frozen=True)
class StudyTables:
    """The facts of one study: its cells, and the stages they need with their rows."""

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


def study_tables(store: Store, study: str) -> StudyTables:
    """Read one study's tables; only the parts of its own stages are opened.

    Raises:
        StoreError: if the store has no such study.
    """
    parts = store.list("results/cells")
    path = store.part_path("cells", study)
    if path not in parts:
        names = ", ".join(sorted(p.split("/")[-1].removesuffix(".parquet") for p in parts)) or "none"
        raise StoreError(
            f"store {store.uri} has no study {study!r} (studies there: {names}). "
            "Run it first, or give the store it ran on with --store."
        )
    cells = _read(store, "cells", [path])
    stages = set(cells["stage"].to_pylist())
    stages.update(stage for lineage in cells["lineage"].to_pylist() for stage in lineage or ())
    tables = {name: _read(store, name, _parts(store, name, stages)) for name in ("stages", "epochs", "cases")}
    return StudyTables(study=study, cells=cells, **tables)


def store_tables(store: Store) -> dict[str, pa.Table]:
    """Read every table of the store, whatever the study."""
    return {name: _read(store, name, store.list(f"results/{name}")) for name in TABLES}


def query_store(store: Store, sql: str) -> pa.Table:
    """Run one SQL query over the store's tables and views; it can neither write nor read other files.

    Raises:
        QueryError: if the query is not valid; the message lists the tables.
    """
    return query_tables(store_tables(store), sql)


def query_tables(tables: dict[str, pa.Table], sql: str) -> pa.Table:
    """Run one SQL query over Arrow tables and the views that they allow.

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


def _remedy(table: str, path: str) -> str:
    if table == "cells":
        return "Delete the file and run the study again: it is written anew, and no stage is repeated."
    stage = path.rsplit("/", 1)[-1].removesuffix(".parquet")
    return f"Delete it and ledger/{stage}.json and run the study again: only that stage is repeated."


def _parts(store: Store, table: str, stages: Iterable[str]) -> list[str]:
    wanted = set(stages)
    return [p for p in store.list(f"results/{table}") if p.split("/")[-1].removesuffix(".parquet") in wanted]


def _read(store: Store, table: str, paths: list[str]) -> pa.Table:
    schema = TABLES[table].schema()
    if not paths:
        return schema.empty_table()

    def read(path: str) -> pa.Table:
        try:
            part = pq.read_table(store.full_path(path), filesystem=store.filesystem, schema=schema)
        except (pa.ArrowException, OSError) as error:
            raise StoreError(f"{store.uri}/{path} cannot be read: {error}. {_remedy(table, path)}") from error
        return part

    with ThreadPoolExecutor(_THREADS) as pool:
        return pa.concat_tables(pool.map(read, paths)).unify_dictionaries()
