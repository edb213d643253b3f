"""SQL over result tables and their views in an in-memory DuckDB that reads what it is given and nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import duckdb
import pyarrow as pa
import pyarrow.dataset as pads

from raysweep.errors import QueryError
from raysweep.results.schemas import TABLES, VIEWS


@dataclass(frozen=True)
class ParquetFiles:
    """Local Parquet files of one table, and rows of it that are in memory."""

    paths: Sequence[str]
    rows: pa.Table


Rows: TypeAlias = "pa.Table | pads.Dataset | ParquetFiles"


def query_tables(tables: Mapping[str, Rows], sql: str) -> pa.Table:
    """Run one SELECT over tables and the views that they allow.

    Raises:
        QueryError: if the query is not valid.
    """
    with duckdb.connect(":memory:") as connection:
        try:
            for name, rows in tables.items():
                _add(connection, name, rows)
            for name, (_, select) in VIEWS.items():
                connection.execute(f"CREATE VIEW {name} AS {select}")
            _lock(
                connection, [path for rows in tables.values() if isinstance(rows, ParquetFiles) for path in rows.paths]
            )
            return _select(connection, sql)
        except duckdb.Error as error:
            names = ", ".join([*tables, *VIEWS])
            raise QueryError(f"the query failed: {error}\nTables: {names}.") from error


def mentioned(sql: str) -> set[str]:
    """Return the tables that a query may read: those whose names, or views' names, are words of it."""
    text = " ".join([sql, *(select for name, (_, select) in VIEWS.items() if _has_word(sql, name))])
    return {name for name in TABLES if _has_word(text, name)}


def _has_word(text: str, word: str) -> bool:
    return re.search(rf"\b{word}\b", text, re.IGNORECASE) is not None


def _lock(connection: duckdb.DuckDBPyConnection, paths: Sequence[str]) -> None:
    """Leave the connection nothing to read but some files, and no way to change that."""
    connection.execute("SET allowed_paths = $paths", {"paths": list(paths)})
    connection.execute("SET enable_external_access = false")
    connection.execute("SET python_enable_replacements = false")  # no reading of this process's variables
    connection.execute("SET lock_configuration = true")


def _select(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    """Run one SELECT; other statements could write to the files that a SELECT may read."""
    statements = connection.extract_statements(sql)
    if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
        raise QueryError("write one SELECT over the store's tables: nothing else is run")
    return connection.sql(sql).to_arrow_table()


def _add(connection: duckdb.DuckDBPyConnection, name: str, rows: Rows) -> None:
    if not isinstance(rows, ParquetFiles):
        connection.register(name, rows)
        return
    connection.register(f"{name}_in_memory", rows.rows)
    columns = ", ".join(column.name for column in TABLES[name].columns)
    select = f"SELECT {columns} FROM {name}_in_memory"
    if rows.paths:
        listed = ", ".join("'" + path.replace("'", "''") + "'" for path in rows.paths)
        # By name: files of an older schema version lack columns, which are null then.
        select += f" UNION ALL BY NAME SELECT * FROM read_parquet([{listed}], union_by_name = true)"
        select = f"SELECT {columns} FROM ({select})"
    connection.execute(f"CREATE VIEW {name} AS {select}")
