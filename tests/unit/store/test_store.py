from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raysweep.errors import StoreError
from raysweep.store import LedgerRecord, Store


def test_a_write_that_fails_publishes_nothing_and_leaves_nothing(tiny_store):
    tiny_store.write_bytes("ledger/a.json", b"old")

    def write_half() -> None:
        with tiny_store.writer("ledger/a.json") as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert tiny_store.read_bytes("ledger/a.json") == b"old"
    assert [path.name for path in tiny_store.local_path("ledger").iterdir()] == ["a.json"]


def test_a_process_killed_while_writing_publishes_nothing(tiny_store):
    code = f"""
import sys, time
from raysweep.store import Store
with Store({tiny_store.absolute_uri!r}).writer("ledger/a.json") as temporary:
    temporary.write_bytes(b"half")
    print("writing", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment()) as process:
        assert process.stdout.readline() == b"writing\n"
        os.kill(process.pid, signal.SIGKILL)
    assert tiny_store.read_bytes("ledger/a.json") is None
    assert tiny_store.list("ledger") == []
    assert tiny_store.ledger() == {}
    assert list(tiny_store.local_path("ledger").iterdir())  # the temporary file is there and is not listed


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def test_the_ledger_returns_what_was_recorded(tiny_store):
    done = LedgerRecord("a" * 32, "done", (1, 5), attempt=2, host="node")
    failed = LedgerRecord("b" * 32, "failed", error="NaN", traceback="Traceback ...")
    for record in (done, failed):
        tiny_store.record(record)
    assert tiny_store.ledger() == {done.stage: done, failed.stage: failed}
    tiny_store.forget(done.stage)
    assert tiny_store.ledger() == {failed.stage: failed}
    assert tiny_store.ledger_record(done.stage) is None


def test_keys_of_a_newer_ledger_are_ignored():
    assert LedgerRecord.from_json({"stage": "a", "status": "done", "novel": 1}) == LedgerRecord("a", "done")


@pytest.mark.parametrize("data", [b"{", b"[]", b"{}", b'{"stage": "a", "status": "maybe"}', b"\xff"])
def test_a_corrupt_ledger_record_is_named_with_the_remedy(tiny_store, data):
    tiny_store.write_bytes("ledger/a.json", data)
    with pytest.raises(StoreError, match=r"ledger/a\.json is not a ledger record .*delete it"):
        tiny_store.ledger()


def test_foreign_files_are_neither_records_nor_snapshots(tiny_store):
    for path in ("ledger/.DS_Store", "snapshots/a/.nfs0001", "snapshots/a/notes.txt"):
        tiny_store.write_bytes(path, b"x")
    tiny_store.write_bytes(tiny_store.snapshot_path("a", 3), b"x")
    assert tiny_store.ledger() == {}
    assert tiny_store.snapshot_epochs("a") == (3,)


def test_snapshots_are_listed_by_epoch_whatever_its_digits(tiny_store):
    for epoch in (10, 9, 1_234_567):
        tiny_store.write_bytes(tiny_store.snapshot_path("a", epoch), b"x")
    assert tiny_store.snapshot_epochs("a") == (9, 10, 1_234_567)


def test_a_store_of_a_newer_format_is_refused(tmp_path):
    Store(tmp_path).write_bytes("store.json", b'{"format": 99}')
    with pytest.raises(StoreError, match="has format 99; this raysweep reads format 1"):
        Store(tmp_path).prepare()


def test_a_corrupt_format_file_is_refused(tmp_path):
    Store(tmp_path).write_bytes("store.json", b"oops")
    with pytest.raises(StoreError, match=r"store\.json is corrupt"):
        Store(tmp_path).prepare()


def test_a_store_that_is_a_file_or_an_unknown_scheme_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be opened or created"):
        Store(tmp_path / "file").prepare()
    with pytest.raises(StoreError, match="Allowed: a folder, or a URI"):
        Store("nonsense://bucket")


def test_preparing_twice_changes_nothing(tiny_store):
    before = tiny_store.local_path("store.json").stat().st_mtime_ns
    assert tiny_store.prepare() is tiny_store
    assert tiny_store.local_path("store.json").stat().st_mtime_ns == before


def test_a_second_driver_is_refused_by_name_until_the_first_is_gone(tiny_store):
    code = f"""
import time
from raysweep.store import Store
with Store({tiny_store.absolute_uri!r}).driver_lock():
    print("locked", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment()) as process:
        assert process.stdout.readline() == b"locked\n"
        with pytest.raises(StoreError, match=f"in use by another .*process {process.pid} on"), tiny_store.driver_lock():
            pass
        os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while True:
        try:
            with tiny_store.driver_lock():
                break
        except StoreError:
            assert time.monotonic() < deadline
    with tiny_store.driver_lock():
        pass


def test_a_relative_store_goes_to_other_processes_as_an_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Store("here").prepare()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = pickle.loads(pickle.dumps(store))
    assert again.uri == str(tmp_path / "here")
    assert again.read_bytes("store.json") == store.read_bytes("store.json")


def test_a_file_uri_is_the_folder_it_names(tmp_path):
    Store(f"file://{tmp_path}/store").prepare().write_bytes("a/b", b"1")
    assert Store(tmp_path / "store").read_bytes("a/b") == b"1"
    assert Store(f"file://{tmp_path}/store").list("a") == ["a/b"]
    assert Store(tmp_path / "store").list("nothing") == []


def test_the_next_driver_clears_what_a_killed_writer_left(tiny_store):
    left = tiny_store.local_path("results/stages/.tmp-0123-part.parquet")
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half a file")
    with tiny_store.driver_lock():
        assert not left.exists()
