"""Stores of every schema version stay readable, and a new nullable column is all it takes to add one."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysweep import analysis
from raysweep.errors import StoreError
from raysweep.ledger import LedgerRecord
from raysweep.results import schemas
from raysweep.results.compact import compact
from raysweep.results.query import query_store
from raysweep.results.read import store_tables, study_tables
from raysweep.results.schemas import TABLES, Column
from raysweep.results.write import write_part
from raysweep.store import Store
from tests.simulate import simulated_study, write_to

STORES = Path(__file__).parents[2] / "golden" / "stores"
VERSION = max(table.version for table in TABLES.values())


def write_fixture(folder: Path) -> None:
    """Write a small store, half of it compacted."""
    store = Store(folder).prepare()
    tables = simulated_study(
        sources={"random": False, "acdc": True}, pretrain_epochs=(2,), annotations=(4, 8), seeds=(0, 1), num_subjects=2,
        slices_per_subject=1, epochs=2,
    )  # fmt: skip
    write_to(store, tables, examples=False)
    ids = tables.stages["stage"].to_pylist()
    for stage in ids[::2]:
        store.record(LedgerRecord(stage, "done"))
    compact(store)
    (folder / "results" / "compaction.lock").unlink()


@pytest.mark.parametrize("version", range(1, VERSION + 1))
def test_a_store_of_every_version_is_there_and_reads(version, tmp_path):
    """RAYSWEEP_UPDATE_GOLDEN=1 writes the store of the present version, if there is none."""
    kept = STORES / f"v{version}"
    if version == VERSION and not kept.exists() and os.environ.get("RAYSWEEP_UPDATE_GOLDEN"):
        write_fixture(kept)
    assert kept.exists(), f"run this with RAYSWEEP_UPDATE_GOLDEN=1 to keep a store of schema version {version}"
    shutil.copytree(kept, tmp_path / "store")
    store = Store(tmp_path / "store").prepare()
    tables = study_tables(store, "simulated")
    assert tables.trials().num_rows == 8
    assert set(tables.trials()["status"].to_pylist()) == {"done"}
    assert all(row["mean"] > 0 for row in analysis.data_efficiency(tables).to_pylist())
    for path in store.list("results"):
        if path.endswith(".parquet"):
            known = TABLES[path.split("/")[1]].columns
            columns = pq.read_schema(store.local_path(path)).names
            assert columns == [c.name for c in known if c.since <= version], (
                f"columns added since need since={VERSION + 1}"
            )
    for name, table in store_tables(store).items():
        added = [column.name for column in TABLES[name].columns if column.since > version]
        assert all(table[column].null_count == table.num_rows for column in added)
    before = query_store(store, "SELECT * FROM epochs ORDER BY ALL")
    compact(store)
    assert query_store(store, "SELECT * FROM epochs ORDER BY ALL") == before


@pytest.fixture
def with_new_column(monkeypatch):
    """The stages table as a later version would have it."""
    later = dataclasses.replace(
        TABLES["stages"],
        columns=(*TABLES["stages"].columns, Column("novel", pa.float64(), "a column added later", since=VERSION + 1)),
    )
    monkeypatch.setitem(schemas.TABLES, "stages", later)
    return later


def test_a_column_added_later_is_null_in_older_files_and_filled_in_newer_ones(tmp_path, with_new_column):
    shutil.copytree(STORES / "v1", tmp_path / "store")
    store = Store(tmp_path / "store").prepare()
    old = store_tables(store)["stages"]
    assert old["novel"].null_count == old.num_rows > 0
    write_part(store, "stages", "new", [{"stage": "new", "novel": 2.5}])
    store.record(LedgerRecord("new", "done"))
    for _ in range(2):
        found = query_store(store, "SELECT count(*) AS num, count(novel) AS known, max(novel) AS novel FROM stages")
        assert found.to_pylist() == [{"num": old.num_rows + 1, "known": 1, "novel": 2.5}]
        compact(store)


def test_a_file_of_a_newer_version_is_refused_by_name(tiny_store):
    schema = TABLES["stages"].schema()
    newer = {**schema.metadata, b"raysweep_schema": b"stages/99"}
    rows = TABLES["stages"].schema().empty_table().replace_schema_metadata(newer)
    path = tiny_store.local_path("results/stages/a.parquet")
    path.parent.mkdir(parents=True)
    pq.write_table(rows, path)
    with pytest.raises(StoreError, match=r"a\.parquet has version 99 of table stages; this raysweep reads up to"):
        store_tables(tiny_store)


def test_documentation_and_version_travel_in_the_files(tiny_store):
    write_part(tiny_store, "epochs", "a", [{"stage": "a"}])
    schema = pq.read_schema(tiny_store.local_path("results/epochs/a.parquet"))
    assert schema.metadata[b"raysweep_schema"] == f"epochs/{TABLES['epochs'].version}".encode()
    assert schema.field("elapsed_s").metadata[b"doc"] == b"seconds of training so far"
