"""What every store guarantees, wherever its files lie: a folder, S3, and Azure (Azurite, where it is installed)."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysweep.errors import StoreError
from raysweep.results.compact import compact
from raysweep.results.live import live_files
from raysweep.results.query import query_store
from raysweep.results.read import read_cells
from raysweep.results.write import write_part
from raysweep.store import FailureRecord, LedgerRecord, Store, objects
from tests.azure_server import new_container
from tests.s3_server import new_bucket

PART = 5 * 2**20
"""The smallest part of an upload that S3 takes."""
LARGE = os.urandom(2**20) * 11
"""More than two parts."""


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have files of some megabytes uploaded and downloaded in several parts."""
    monkeypatch.setattr(objects, "_CHUNK", PART)


@pytest.fixture(params=["folder", "s3", pytest.param("azure", marks=pytest.mark.heavy)])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "store")
    make = {"s3": new_bucket, "azure": new_container}[request.param]
    return make(request.getfixturevalue(request.param))


@pytest.fixture
def store(uri: str) -> Store:
    return Store(uri).prepare()


def test_what_is_written_is_read_listed_and_deleted(store):
    assert store.read_bytes("a/b") is None
    assert not store.exists("a/b")
    assert store.list("a") == []
    store.write_bytes("a/b", b"old")
    store.write_bytes("a/b", b"new")
    store.write_bytes("a/c/d", b"")
    store.write_bytes("ab/c", b"of another folder")
    assert store.read_bytes("a/b") == b"new"
    assert store.read_bytes("a/c/d") == b""
    assert store.list("a") == ["a/b", "a/c/d"]
    assert [stamp.size_bytes for stamp in store.stamps("a").values()] == [3, 0]
    store.delete("a/b")
    store.delete("a/b")
    assert store.list("a") == ["a/c/d"]
    assert not store.exists("a/b")


def test_large_files_come_back_whole(store):
    store.write_bytes("large", LARGE)
    assert store.read_bytes("large") == LARGE
    with store.filesystem.open_input_file(store.full_path("large")) as stream:
        stream.seek(len(LARGE) - 5)
        assert stream.read() == LARGE[-5:]
        assert stream.read_at(7, 2**20 + 1) == LARGE[2**20 + 1 : 2**20 + 8]
        assert stream.size() == len(LARGE)


@pytest.mark.parametrize("name", ["a b.json", "ä/ö.json", "x=1/+%20&.json", "#?.json"])
def test_names_of_any_characters_come_back(store, name):
    store.write_bytes(f"odd/{name}", b"1")
    assert store.read_bytes(f"odd/{name}") == b"1"
    assert store.list("odd") == [f"odd/{name}"]


def test_stamp_tells_versions_of_one_size_apart_and_stays_while_nothing_is_written(store):
    store.write_bytes("a", b"1")
    first = store.stamps("")["a"]
    assert store.stamps("")["a"] == first
    store.write_bytes("a", b"2")
    assert store.stamps("")["a"] != first


def test_block_that_fails_publishes_nothing(store):
    store.write_bytes("ledger/a.json", b"old")

    def write_half(path: str) -> None:
        with store.writer(path) as temporary:
            temporary.write_bytes(LARGE)
            raise RuntimeError

    for path in ("ledger/a.json", "ledger/b.json"):
        with pytest.raises(RuntimeError):
            write_half(path)
    assert store.read_bytes("ledger/a.json") == b"old"
    assert store.list("ledger") == ["ledger/a.json"]


def test_block_that_ends_publishes_its_file(store):
    with store.writer("weights/a.bin") as temporary:
        temporary.write_bytes(LARGE)
        assert not store.exists("weights/a.bin")
    assert store.read_bytes("weights/a.bin") == LARGE


def test_process_killed_while_writing_publishes_nothing(store):
    code = f"""
import time
from raysweep.store import Store
with Store({store.absolute_uri!r}).writer("ledger/a.json") as temporary:
    temporary.write_bytes(b"half")
    print("writing", flush=True)
    time.sleep(60)
"""
    with running(code) as process:
        assert process.stdout.readline() == b"writing\n"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert store.ledger() == {}
    with store.driver_lock():
        assert store.list("ledger") == []


def test_ledger_and_failures_come_back(store):
    done = LedgerRecord("a" * 32, "done", (1, 5), attempt=2, host="node")
    failed = LedgerRecord("b" * 32, "failed", error="NaN", traceback="Traceback ...")
    for record in (done, failed):
        store.record(record)
    assert store.ledger() == {done.stage: done, failed.stage: failed}
    store.forget(done.stage)
    assert store.ledger() == {failed.stage: failed}
    attempts = [FailureRecord("c", attempt, "error", "bad") for attempt in (1, 2)]
    for failure in attempts:
        store.record_failure(failure)
    assert store.failures() == attempts
    assert store.failures({"d"}) == []
    store.write_bytes(store.snapshot_path("a", 12), b"x")
    assert store.snapshot_epochs("a") == (12,)


def test_store_travels_to_other_processes(store):
    again = pickle.loads(pickle.dumps(store))
    again.write_bytes("a", b"1")
    assert store.read_bytes("a") == b"1"


def test_newer_or_corrupt_store_is_refused(uri):
    Store(uri).write_bytes("store.json", b'{"format": 99}')
    with pytest.raises(StoreError, match="has format 99; this raysweep reads format 1"):
        Store(uri).prepare()
    Store(uri).write_bytes("store.json", b"oops")
    with pytest.raises(StoreError, match=r"store\.json is corrupt"):
        Store(uri).prepare()


def test_second_driver_is_refused_by_name_and_a_killed_one_is_followed_at_once(store):
    code = f"""
import time
from raysweep.store import Store, lease
lease.TIMES = lease.LeaseTimes(renew_s=0.1)
with Store({store.absolute_uri!r}).driver_lock():
    print("locked", flush=True)
    time.sleep(60)
"""
    with running(code) as process:
        assert process.stdout.readline() == b"locked\n"
        with pytest.raises(StoreError, match=f"in use by another .*process {process.pid} on"), store.driver_lock():
            pass
        with store.compaction_lock():
            pass  # another lock
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    with store.driver_lock():
        pass
    with store.driver_lock():
        pass


def test_parquet_is_read_queried_and_compacted(store):
    def row(stage: str, value: float) -> dict[str, object]:
        return {"stage": stage, "epoch": 1, "split": "train", "metric": "loss", "value": value}

    for stage in ("a", "b"):
        write_part(store, "epochs", stage, [row(stage, 1.0)])
        store.record(LedgerRecord(stage, "done"))
    write_part(store, "cells", "s", [{"study": "s", "cell": "x", "source": "r", "stage": "a", "lineage": []}])
    assert read_cells(store)["cell"].to_pylist() == ["x"]
    total = "SELECT stage, sum(value) AS v FROM epochs GROUP BY stage ORDER BY stage"
    assert query_store(store, total).to_pylist() == [{"stage": "a", "v": 1.0}, {"stage": "b", "v": 1.0}]
    assert compact(store).num_files_after == 2  # of a study, and of none
    write_part(store, "epochs", "b", [row("b", 3.0)])  # b runs again
    assert query_store(store, total).to_pylist() == [{"stage": "a", "v": 1.0}, {"stage": "b", "v": 3.0}]
    assert len(live_files(store, "epochs")) == 2
    (merged,) = [f for f in live_files(store, "epochs") if "a" in f.stages]
    assert pq.read_table(store.full_path(merged.path), filesystem=store.filesystem)["stage"].to_pylist() == ["a"]
    with pytest.raises(StoreError, match="cannot be read"):
        read_garbage(store)


def read_garbage(store: Store) -> pa.Table:
    store.write_bytes("results/cells/broken.parquet", b"not parquet")
    return read_cells(store)


def running(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
