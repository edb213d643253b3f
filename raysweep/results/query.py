"""SQL over a store: its files are read as far as a query needs them."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from raysweep.errors import QueryError
from raysweep.results.live import LiveFile, live_files
from raysweep.results.read import holding, read_file, read_files, stages_of, steadily, study_cells
from raysweep.results.schemas import TABLES, check_version
from raysweep.results.sql import ParquetFiles, Rows, mentioned, query_tables
from raysweep.store import Store

_GLOB = frozenset("*?[")


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
        cells = None if study is None else study_cells(store, study, sources)
        stages = None if cells is None else stages_of(cells)
        read = mentioned(sql) - ({"cells"} if cells is not None else set())
        files = {name: live_files(store, name) for name in sorted(read)}
        if stages is not None:
            files = {name: holding(found, stages) for name, found in files.items()}
        tables: dict[str, Rows] = {name: table.schema().empty_table() for name, table in TABLES.items()}
        tables |= {name: _rows(store, name, found, stages) for name, found in files.items()}
        if cells is not None:
            tables["cells"] = cells
        try:
            return query_tables(tables, sql)
        except QueryError as error:
            _explain(store, files, error)
            raise

    return steadily(store, answer)


def _rows(store: Store, table: str, files: list[LiveFile], stages: set[str] | None) -> Rows:
    """Return the rows of files to be read when a query needs them; those of files with foreign rows are read here."""
    schema = TABLES[table].schema()
    whole = [file for file in files if not file.replaced and (stages is None or file.stages <= stages)]
    paths = [store.full_path(file.path) for file in whole]
    mixed = read_files(store, table, [file for file in files if file not in whole], stages)
    if store.is_local and not any(_GLOB & set(path) for path in paths):  # DuckDB takes every path for a glob
        return ParquetFiles(paths, mixed)
    lazy = pads.dataset(paths, schema=schema, format="parquet", filesystem=store.filesystem)
    return pads.dataset([lazy, pads.dataset(mixed)]) if mixed.num_rows else lazy


def _explain(store: Store, files: dict[str, list[LiveFile]], error: QueryError) -> None:
    """Raise what made a query fail if that was a file: one that is gone, or one that cannot be read."""
    for table, read in files.items():
        for file in read:
            try:
                with store.filesystem.open_input_file(store.full_path(file.path)) as stream:
                    metadata = pq.read_schema(stream).metadata
            except FileNotFoundError:
                raise
            except (pa.ArrowException, OSError):
                read_file(store, table, file.path)
            else:
                check_version(metadata, f"{store.uri}/{file.path}")
