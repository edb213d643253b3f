"""What reads a store gives the same wherever it lies: SQL, tables, the page, live pages, compaction, weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysweep.engine.trackers import TRACKERS
from raysweep.report.files import write_files
from raysweep.report.live import fingerprint, in_flight
from raysweep.results.complete import complete_ledger
from raysweep.results.rates import test_scores as scores_of  # as test_scores, pytest would run it
from raysweep.sources.stored import WeightsRecord, read_record, stored_names, weights_path, write_record
from raysweep.store import LedgerRecord, Store
from raysweep.study.load import validate_study
from raysweep.sweep import OpenStore, open_store
from tests.s3_server import new_bucket
from tests.simulate import simulated_study, write_to
from tests.studies import study_document

STUDY = validate_study(study_document("cardiac.h5", "leaves.h5") | {"study": "simulated"})
QUERIES = (
    "SELECT source, annotations, round(avg(test_score), 9) AS score FROM trials GROUP BY ALL ORDER BY ALL",
    "SELECT epoch, split, metric, round(avg(value), 9) AS value FROM curves GROUP BY ALL ORDER BY ALL",
    "SELECT count(*) AS num, sum(tp) AS tp FROM cases",
)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory, s3: str) -> tuple[OpenStore, OpenStore]:
    """One simulated study in a folder and in a bucket."""
    both = open_store(tmp_path_factory.mktemp("folder")), open_store(new_bucket(s3))
    tables = simulated_study(annotations=(8, 120), pretrain_epochs=(1, 25), epochs=4)
    for store in both:
        write_to(store.prepare(), tables)
        for row in tables.stages.select(["stage", "status"]).to_pylist():
            store.record(LedgerRecord(row["stage"], row["status"]))
    return both


def test_sql_and_tables_are_the_same(stores: tuple[OpenStore, OpenStore]) -> None:
    folder, bucket = stores
    for sql in QUERIES:
        assert bucket.query(sql).to_pylist() == folder.query(sql).to_pylist()
    assert bucket.trials("simulated").to_pylist() == folder.trials("simulated").to_pylist()
    assert scores_of(bucket) == scores_of(folder)
    assert complete_ledger(bucket) == complete_ledger(folder)


def test_live_pages_see_what_runs_and_what_changes(stores: tuple[OpenStore, OpenStore]) -> None:
    for store in stores:
        tables = store.study("simulated")
        stage = tables.cells["stage"][0].as_py()
        before = fingerprint(store, "simulated")
        assert fingerprint(store, "simulated") == before
        assert in_flight(store, tables).stages == ()
        store.write_bytes(store.resume_path(stage), b"state")
        assert fingerprint(store, "simulated") != before
        (running,) = in_flight(store, tables).stages
        assert running.stage == stage
        assert 0 <= running.saved_s_ago < 3600
        store.delete(store.resume_path(stage))


def test_report_is_written_into_either(stores: tuple[OpenStore, OpenStore]) -> None:
    folder, bucket = stores
    made = [write_files(STUDY, store, None, ["csv"]) for store in (folder, bucket)]
    assert made[0].summary == made[1].summary
    names = [[path.removeprefix(f"{store.uri}/") for path in files.files]
             for store, files in zip((folder, bucket), made, strict=True)]  # fmt: skip
    assert names[0] == names[1]
    assert all(store.exists(name) for store in (folder, bucket) for name in names[0])


def test_compaction_leaves_every_answer_as_it_was(stores: tuple[OpenStore, OpenStore]) -> None:
    folder, bucket = stores
    before = [bucket.query(sql).to_pylist() for sql in QUERIES]
    merged = [store.compact() for store in (folder, bucket)]
    assert merged[0] == merged[1]
    assert len(bucket.list("results/epochs")) < 10
    assert [bucket.query(sql).to_pylist() for sql in QUERIES] == before


def test_weights_lie_in_either(stores: tuple[OpenStore, OpenStore]) -> None:
    for store in stores:
        store.write_bytes(weights_path("a/b"), b"")
        record = WeightsRecord("a/b", "resnet18", "sha256:00", 0, "here", 1)
        write_record(store, record)
        assert stored_names(store) == ["a/b"]
        assert read_record(store, "a/b") == record


def test_trackers_of_a_remote_store_write_where_the_driver_runs(
    stores: tuple[Store, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raysweep.sweep import _trackers

    given = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(TRACKERS, "tensorboard", lambda study, folder: given.append(folder))
    for store in stores:
        _trackers(["tensorboard"], "study", store)
    assert given == [str(stores[0].local_path("trackers")), "raysweep-trackers"]
