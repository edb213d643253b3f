"""Compaction: whatever happens, and whenever, a reader sees every row once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import duckdb
import pytest

from raysweep.errors import StoreError
from raysweep.ledger import LedgerRecord
from raysweep.results.compact import MERGED_TABLES, compact
from raysweep.results.complete import complete_ledger
from raysweep.results.live import MANIFEST, live_files, live_stages, read_manifest
from raysweep.results.query import query_store
from raysweep.results.read import store_tables, study_tables
from raysweep.results.write import write_part
from raysweep.store import Store

NUM_EPOCHS = 4


def add_stage(store: Store, stage: str, status: str = "done", value: float = 0.5) -> None:
    write_part(
        store, "epochs", stage,
        [{"stage": stage, "epoch": e, "split": "val", "metric": "dice", "value": value} for e in range(NUM_EPOCHS)],
    )  # fmt: skip
    write_part(store, "stages", stage, [{"stage": stage, "kind": "finetune", "status": status, "test_score": value}])
    write_part(store, "cases", stage, [{"stage": stage, "subject": "p", "class_index": 1, "dice": value}])
    store.record(LedgerRecord(stage, status))


def add_study(store: Store, study: str, sources: dict[str, list[str]]) -> None:
    cells = [
        {"study": study, "cell": f"{source}/{stage}", "source": source, "stage": stage, "lineage": [], "seed": n,
         "annotations": 4}
        for source, stages in sources.items() for n, stage in enumerate(stages)
    ]  # fmt: skip
    write_part(store, "cells", study, cells)


def two_studies(store: Store) -> Store:
    add_study(store, "one", {"random": ["r1", "r2"], "imagenet": ["i1", "shared"]})
    add_study(store, "two", {"imagenet": ["shared", "i2"]})
    for stage in ("r1", "r2", "i1", "i2", "shared"):
        add_stage(store, stage)
    return store


def rows(store: Store) -> dict[str, list[str]]:
    """All rows of the store as sorted texts."""
    return {name: sorted(map(repr, table.to_pylist())) for name, table in store_tables(store).items()}


def files(store: Store, table: str = "epochs") -> list[str]:
    return store.list(f"results/{table}")


def test_compaction_keeps_every_row_and_leaves_few_files(tiny_store):
    before = rows(two_studies(tiny_store))
    done = compact(tiny_store)
    assert rows(tiny_store) == before
    assert (done.generation, done.num_files_before, done.num_files_after) == (2, 15, 12)
    assert done.num_rows_merged == 5 * (NUM_EPOCHS + 2)
    assert len(files(tiny_store)) == 4
    assert all("/merged/" in path for path in files(tiny_store))
    again = compact(tiny_store)
    assert (again.generation, again.num_rows_merged) == (2, 0)


def test_plain_globs_read_a_compacted_store(tiny_store):
    two_studies(tiny_store)
    compact(tiny_store)
    add_stage(tiny_store, "new")
    glob = tiny_store.local_path("results/epochs/**/*.parquet")
    assert duckdb.sql(f"SELECT count(*), count(DISTINCT stage) FROM '{glob}'").fetchall() == [(6 * NUM_EPOCHS, 6)]


def test_a_study_or_a_source_opens_only_files_that_hold_its_stages(tiny_store):
    two_studies(tiny_store)
    compact(tiny_store)
    owners = {file.path: file.owners for table in MERGED_TABLES for file in read_manifest(tiny_store).of(table)}
    for path, of in owners.items():
        if not {("one", "random")} & set(of):
            tiny_store.write_bytes(path, b"not parquet")
    assert study_tables(tiny_store, "one", ["random"]).epochs.num_rows == 2 * NUM_EPOCHS
    sql = "SELECT count(*) AS n FROM epochs"
    assert query_store(tiny_store, sql, "one", ["random"]).to_pylist() == [{"n": 2 * NUM_EPOCHS}]
    with pytest.raises(StoreError, match="cannot be read"):
        study_tables(tiny_store, "one")
    with pytest.raises(StoreError, match=r"merged/.*cannot be read.*only the stages whose rows it held"):
        query_store(tiny_store, sql)


def test_a_study_that_joins_others_later_reads_their_files_and_not_their_rows(tiny_store):
    two_studies(tiny_store)
    compact(tiny_store)
    add_study(tiny_store, "three", {"any": ["r1", "i2"]})
    assert set(study_tables(tiny_store, "three").epochs["stage"].to_pylist()) == {"r1", "i2"}
    answer = query_store(tiny_store, "SELECT DISTINCT stage FROM epochs ORDER BY stage", "three")
    assert answer["stage"].to_pylist() == ["i2", "r1"]
    before = rows(tiny_store)
    compact(tiny_store)
    assert rows(tiny_store) == before


def test_a_stage_that_ran_again_replaces_its_merged_rows(tiny_store):
    two_studies(tiny_store)
    compact(tiny_store)
    add_stage(tiny_store, "r1", value=0.9)
    scores = dict(query_store(tiny_store, "SELECT stage, test_score FROM stages").to_pandas().values)
    assert scores == {"r1": 0.9, "r2": 0.5, "i1": 0.5, "i2": 0.5, "shared": 0.5}
    assert store_tables(tiny_store)["epochs"].num_rows == 5 * NUM_EPOCHS
    compact(tiny_store)
    assert dict(query_store(tiny_store, "SELECT stage, test_score FROM stages").to_pandas().values) == scores
    assert store_tables(tiny_store)["epochs"].num_rows == 5 * NUM_EPOCHS
    assert all("/merged/" in path for path in files(tiny_store))


def test_failed_stages_stay_loose_so_that_a_retry_replaces_them(tiny_store):
    two_studies(tiny_store)
    add_stage(tiny_store, "i1", status="failed")
    compact(tiny_store)
    assert [path for path in files(tiny_store, "stages") if "/merged/" not in path] == ["results/stages/i1.parquet"]


def test_a_lost_merged_file_runs_its_stages_again_and_no_other(tiny_store):
    two_studies(tiny_store)
    compact(tiny_store)
    assert set(complete_ledger(tiny_store)) == {"r1", "r2", "i1", "i2", "shared"}
    (path,) = [file.path for file in live_files(tiny_store, "epochs") if "r1" in file.stages]
    tiny_store.delete(path)
    assert set(complete_ledger(tiny_store)) == {"i1", "i2", "shared"}
    assert set(study_tables(tiny_store, "one").epochs["stage"].to_pylist()) == {"i1", "shared"}
    add_stage(tiny_store, "r1")
    add_stage(tiny_store, "r2")
    compact(tiny_store)
    assert store_tables(tiny_store)["epochs"].num_rows == 5 * NUM_EPOCHS


def test_a_lost_manifest_is_refused_by_readers_and_rebuilt_by_compaction(tiny_store):
    before = rows(two_studies(tiny_store))
    compact(tiny_store)
    tiny_store.delete(MANIFEST)
    with pytest.raises(StoreError, match="`raysweep compact` writes it anew"):
        store_tables(tiny_store)
    with pytest.raises(StoreError, match="`raysweep compact` writes it anew"):
        complete_ledger(tiny_store)
    compact(tiny_store)
    assert rows(tiny_store) == before


@pytest.mark.parametrize("data", [b"{", b"{}", b'{"version": 1, "generation": 1, "files": {"epochs": [1]}}'])
def test_a_corrupt_manifest_is_named_with_the_remedy(tiny_store, data):
    tiny_store.write_bytes(MANIFEST, data)
    with pytest.raises(StoreError, match=r"manifest\.json is corrupt .*raysweep compact"):
        live_stages(tiny_store, "epochs")


def test_a_manifest_of_a_newer_raysweep_is_refused(tiny_store):
    tiny_store.write_bytes(MANIFEST, b'{"version": 9}')
    with pytest.raises(StoreError, match="version 9; this raysweep reads version 1"):
        live_stages(tiny_store, "epochs")


_DIE = """
import os, sys
from pathlib import Path
from raysweep.results.compact import compact
from raysweep.store import Store

def counted(function):
    def wrapper(*arguments, **options):
        global left
        if left == 0:
            os.kill(os.getpid(), 9)
        left -= 1
        return function(*arguments, **options)
    return wrapper

Path.replace, Store.delete = counted(Path.replace), counted(Store.delete)
for left, store in enumerate(sys.argv[1:]):
    if not (child := os.fork()):
        compact(Store(store))
        os._exit(0)
    print(os.waitpid(child, 0)[1] != 0)
"""


def test_a_compaction_killed_at_any_step_loses_and_doubles_nothing(tmp_path):
    stores = [Store(tmp_path / str(step)).prepare() for step in range(14)]
    for store in stores:
        add_study(store, "one", {"random": ["r1", "r2"]})
        for stage in ("r1", "r2"):
            add_stage(store, stage)
    before = rows(stores[0])
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", _DIE, *(store.uri for store in stores)]
    ended = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    # An empty manifest, 3 files shown, the manifest, 6 parts deleted: each of these steps was some compaction's last.
    assert ended.stdout.split() == ["True"] * 11 + ["False"] * 3
    for store in stores:
        assert rows(store) == before, store.uri
        assert set(complete_ledger(store)) == {"r1", "r2"}
        compact(store)
        assert rows(store) == before, store.uri
        assert len(files(store)) == 1


def test_readers_and_writers_at_work_see_every_row_once_while_parts_are_merged(tiny_store):
    stages = [f"s{n}" for n in range(12)]
    add_study(tiny_store, "one", {"random": stages})
    written: list[str] = []
    wrong: list[object] = []
    stop = threading.Event()

    def write() -> None:
        for stage in stages:
            add_stage(tiny_store, stage)
            written.append(stage)
        for stage in stages[:4]:  # some run again, with other values
            add_stage(tiny_store, stage, value=0.9)
        stop.set()

    def read() -> None:
        while not stop.is_set():
            expected = set(written)
            table = study_tables(tiny_store, "one").epochs
            counts = {value["values"]: value["counts"] for value in table["stage"].value_counts().to_pylist()}
            if not expected <= counts.keys() or set(counts.values()) - {NUM_EPOCHS}:
                wrong.append((expected, counts))

    def merge() -> None:
        while not stop.is_set():
            compact(tiny_store)

    threads = [threading.Thread(target=work) for work in (write, read, read, merge)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    compact(tiny_store)
    assert store_tables(tiny_store)["epochs"].num_rows == len(stages) * NUM_EPOCHS
    scores = query_store(tiny_store, "SELECT test_score FROM stages ORDER BY length(stage), stage")["test_score"]
    assert scores.to_pylist() == [0.9] * 4 + [0.5] * 8


def test_a_second_compaction_at_the_same_time_is_refused(tiny_store):
    import fcntl

    two_studies(tiny_store)
    with tiny_store.local_path("results/compaction.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="being compacted already"):
            compact(tiny_store)
