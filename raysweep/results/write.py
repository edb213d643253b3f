"""Writing result parts: one atomic Parquet file per table and stage, so its rows appear all at once or not at all."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raysweep.results.schemas import TABLES
from raysweep.store import Store


def to_table(table: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return rows as an Arrow table of the named schema; absent keys become null.

    Raises:
        KeyError: if a row has a key that is no column of the table.
    """
    schema = TABLES[table].schema()
    known = set(schema.names)
    for row in rows:
        if unknown := set(row) - known:
            raise KeyError(f"table {table} has no column {sorted(unknown)}; columns: {sorted(known)}")
    columns = [pa.array([row.get(field.name) for row in rows], type=field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def write_part(store: Store, table: str, part: str, rows: Sequence[Mapping[str, Any]] | pa.Table) -> None:
    """Publish one part of a table, replacing an earlier version of the same part."""
    data = rows if isinstance(rows, pa.Table) else to_table(table, rows)
    buffer = io.BytesIO()
    pq.write_table(data, buffer, compression="zstd")
    store.write_bytes(store.part_path(table, part), buffer.getvalue())
