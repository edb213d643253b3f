from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest

from raysweep.errors import QueryError, StoreError
from raysweep.results.examples import Example, read_examples, write_examples
from raysweep.results.query import query_store
from raysweep.results.read import store_tables, study_tables
from raysweep.results.schemas import TABLES, VIEWS
from raysweep.results.write import to_table, write_part
from raysweep.store import Store


def write_study(store, study: str = "one", stages=("s1", "s2"), done=("s1",)) -> None:
    cells = [
        {
            "study": study,
            "cell": f"cell{n}",
            "source": "random",
            "annotations": 4,
            "seed": n,
            "stage": stage,
            "lineage": [f"parent-{stage}"],
        }
        for n, stage in enumerate(stages)
    ]
    write_part(store, "cells", study, cells)
    for stage in done:
        write_part(store, "stages", stage, [{"stage": stage, "status": "done", "test_score": 0.5}])
        write_part(
            store, "epochs", stage, [{"stage": stage, "epoch": 1, "split": "val", "metric": "dice", "value": 0.4}]
        )


def test_a_key_that_is_no_column_is_refused():
    with pytest.raises(KeyError, match=r"no column \['scor'\]"):
        to_table("stages", [{"stage": "a", "scor": 1.0}])


@pytest.mark.parametrize("table", TABLES)
def test_absent_keys_become_null_and_every_column_is_documented(table):
    rows = to_table(table, [{}])
    assert rows.num_rows == 1
    assert all(rows[name].null_count == 1 for name in rows.column_names)
    assert all(field.metadata[b"doc"] for field in rows.schema)


@pytest.mark.parametrize("table", TABLES)
def test_rows_come_back_as_they_were_written(tiny_store, table):
    samples = {
        "string": "a",
        "int64": 3,
        "double": 0.1,
        "bool": True,
        "timestamp[us, tz=UTC]": dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
    }
    row = {}
    for column in TABLES[table].columns:
        if pa.types.is_list(column.type):
            row[column.name] = ["x", "y"] if pa.types.is_string(column.type.value_type) else [0.5, 1.0]
        elif pa.types.is_dictionary(column.type):
            row[column.name] = "word"
        else:
            row[column.name] = samples[str(column.type)]
    write_part(tiny_store, table, "part", [row])
    assert store_tables(tiny_store)[table].to_pylist() == [row]


def test_what_differs_between_correct_runs_is_marked_volatile():
    volatile = {c.name for c in TABLES["stages"].columns if c.volatile}
    assert {"wall_s", "host", "started_at", "device", "threads", "versions", "attempt"} <= volatile
    assert not {"test_score", "best_epoch", "config", "train_subset", "steps"} & volatile
    assert set(TABLES["stages"].facts) == set(TABLES["stages"].schema().names) - volatile
    assert "elapsed_s" not in TABLES["epochs"].facts


def test_trials_join_cells_with_their_outcome_and_say_what_is_pending(tiny_store):
    write_study(tiny_store)
    trials = study_tables(tiny_store, "one").trials().to_pylist()
    assert [(t["cell"], t["status"], t["test_score"]) for t in trials] == [
        ("cell0", "done", 0.5),
        ("cell1", "pending", None),
    ]
    curves = study_tables(tiny_store, "one").curves().to_pylist()
    assert [(c["cell"], c["metric"], c["value"]) for c in curves] == [("cell0", "dice", 0.4)]


def test_cells_behind_a_failed_pretraining_are_skipped_with_the_reason(tiny_store):
    write_study(tiny_store, stages=("s1", "s2", "s3"))
    write_part(tiny_store, "stages", "parent-s2", [{"stage": "parent-s2", "status": "failed", "error": "NaN"}])
    write_part(tiny_store, "stages", "parent-s3", [{"stage": "parent-s3", "status": "done"}])
    trials = study_tables(tiny_store, "one").trials().to_pylist()
    assert [(t["cell"], t["status"], t["error"]) for t in trials] == [
        ("cell0", "done", None),
        ("cell1", "skipped", "pretraining parent-s2 failed: NaN"),
        ("cell2", "pending", None),
    ]


def test_a_study_reads_only_its_own_parts(tiny_store):
    write_study(tiny_store)
    write_study(tiny_store, "two", ("t1",), ("t1",))
    for table in ("stages", "epochs"):
        tiny_store.write_bytes(tiny_store.part_path(table, "t1"), b"not parquet")
    tables = study_tables(tiny_store, "one")
    assert tables.stages["stage"].to_pylist() == ["s1"]
    with pytest.raises(StoreError, match=r"results/stages/t1\.parquet cannot be read.*ledger/t1\.json"):
        study_tables(tiny_store, "two")
    write_part(tiny_store, "stages", "parent-s2", [{"stage": "parent-s2"}])
    assert set(study_tables(tiny_store, "one").stages["stage"].to_pylist()) == {"s1", "parent-s2"}


def test_an_unknown_study_is_refused_with_those_there_are(tiny_store):
    write_study(tiny_store)
    with pytest.raises(StoreError, match=r"has no study 'onne' \(studies there: one\)"):
        study_tables(tiny_store, "onne")


def test_a_query_reads_every_table_and_view(tiny_store):
    write_study(tiny_store)
    for name in (*TABLES, *VIEWS):
        assert query_store(tiny_store, f"SELECT count(*) AS n FROM {name}").num_rows == 1


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM '{file}'",
        "SELECT * FROM read_csv('{file}')",
        "SELECT * FROM read_text('{file}')",
        "SELECT * FROM glob('{folder}/*')",
        "COPY cells TO '{folder}/out.csv'",
        "COPY stages TO '{store}/results/stages/s1.parquet'",
        "EXPLAIN ANALYZE COPY stages TO '{store}/results/stages/s1.parquet'",
        "SELECT * FROM read_text('{store}/store.json')",
        "SELECT 1; COPY stages TO '{store}/results/stages/s1.parquet'",
        "DROP VIEW stages",
        "DELETE FROM stages",
        "ATTACH '{folder}/new.db'",
        "EXPORT DATABASE '{folder}/out'",
        "SET enable_external_access = true; SELECT * FROM '{file}'",
        "INSTALL httpfs",
        "SELECT * FROM local_frame",
        "SELECT * FROM cels",
        "nonsense",
        "",
    ],
)
def test_a_query_can_neither_read_nor_write_anything_else(tiny_store, tmp_path, sql):
    write_study(tiny_store)
    secret = tmp_path / "outside" / "secret.csv"
    secret.parent.mkdir()
    secret.write_text("a\n1\n")
    local_frame = pa.table({"a": [1]})
    before = {path: tiny_store.read_bytes(path) for path in tiny_store.list("")}
    with pytest.raises(QueryError):
        query_store(tiny_store, sql.format(file=secret, folder=secret.parent, store=tiny_store.uri))
    assert {path: tiny_store.read_bytes(path) for path in tiny_store.list("")} == before
    assert [path.name for path in secret.parent.iterdir()] == ["secret.csv"]
    assert local_frame.num_rows == 1


def test_a_store_whose_path_holds_glob_characters_is_queried_as_it_is(tmp_path):
    for name in ("a*", "ab"):
        store = Store(tmp_path / name).prepare()
        write_study(store, stages=(name,), done=(name,))
    answer = query_store(Store(tmp_path / "a*"), "SELECT stage FROM stages")
    assert answer.to_pylist() == [{"stage": "a*"}]


def example(score) -> Example:
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    return Example("patient", 1, 2, labels, labels % 4, labels % 3, score)


def test_examples_come_back_as_they_were_written(tiny_store):
    write_examples(tiny_store, "s", [example(0.25), example(None)])
    for read, wrote in zip(read_examples(tiny_store, "s"), [example(0.25), example(None)], strict=True):
        assert (read.subject, read.frame, read.slice_number, read.score) == ("patient", 1, 2, wrote.score)
        for name in ("image", "truth", "prediction"):
            np.testing.assert_array_equal(getattr(read, name), getattr(wrote, name))
    assert read_examples(tiny_store, "other") == []


@pytest.mark.parametrize(
    "damage", [lambda d: b"", lambda d: b"junk", lambda d: d[:-30], lambda d: d[:60] + b"\0" * 40 + d[100:]]
)
def test_corrupt_examples_are_named(tiny_store, damage):
    write_examples(tiny_store, "s", [example(0.5)])
    path = tiny_store.examples_path("s")
    tiny_store.write_bytes(path, damage(tiny_store.read_bytes(path)))
    with pytest.raises(StoreError, match=f"{path} is corrupt"):
        read_examples(tiny_store, "s")
