"""Queries over large stores before and after compaction, and what writing costs a stage."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa

from raysweep.ledger import LedgerRecord
from raysweep.results.compact import compact
from raysweep.results.query import query_store
from raysweep.results.read import study_tables
from raysweep.results.schemas import TABLES
from raysweep.results.write import write_part
from raysweep.store import Store
from tests.benchmarks.measurement import Measurement

DESCRIPTION = "10 million epoch rows and 5 million case rows: aggregation per source and annotation count; writing."

_SOURCES = 6
_COUNTS = (1, 3, 7, 15, 30, 75, 150, 300, 749, 1498)
_METRICS = ("loss", "lr", "dice", "iou")
_EPOCHS = """
    SELECT c.source, c.annotations, e.split, e.metric, avg(e.value) AS mean, count(*) AS num
    FROM cells c JOIN epochs e USING (stage) GROUP BY ALL
"""
_CASES = """
    SELECT c.source, c.annotations, s.class_name, avg(s.dice) AS dice, count(*) AS num
    FROM cells c JOIN cases s USING (stage) WHERE s.class_index > 0 GROUP BY ALL
"""
_ONE = "SELECT annotations, avg(value) AS mean, count(*) AS num FROM curves WHERE metric = 'dice' GROUP BY ALL"


def run(quick: bool = False) -> Measurement:
    """Write a store, query it, compact it, query it again."""
    num_stages, num_epochs, num_slices = (120, 100, 25) if quick else (5_000, 500, 250)
    folder = Path(tempfile.mkdtemp(prefix="raysweep-tables-"))
    try:
        store = Store(folder / "store").prepare()
        written = _write(store, num_stages, num_epochs, num_slices)
        rows = [_row("write one stage's parts, median", None, written)]
        queries: dict[str, Callable[[], object]] = {
            f"epochs by source and count ({num_stages * num_epochs * 4:,} rows)": lambda: query_store(store, _EPOCHS),
            f"cases by source and count ({num_stages * num_slices * 4:,} rows)": lambda: query_store(store, _CASES),
            "curves of one source of one study": lambda: query_store(store, _ONE, "large", ["source0"]),
            "tables of one source into memory": lambda: study_tables(store, "large", ["source0"]),
        }
        before = {name: _seconds(query, 1 if quick else 2) for name, query in queries.items()}
        begin = time.process_time()
        done = compact(store)
        compact_s = time.process_time() - begin
        rows += [_row(name, before[name], _seconds(queries[name], 5)) for name in queries]
        size_mb = sum(path.stat().st_size for path in (folder / "store" / "results").rglob("*.parquet")) / 1e6
    finally:
        shutil.rmtree(folder)
    slowest = max(rows[1:3], key=lambda row: row["after, CPU s"])
    return Measurement(
        rows,
        f"After compaction the dearer of the two aggregations takes {slowest['after, CPU s']:.2f} CPU seconds, which "
        f"DuckDB spreads over two cores ({slowest['after, s']:.2f} s of wall time at the load below); writing takes a "
        f"stage {1000 * written[1]:.0f} ms of CPU time. Compaction merged {done.num_files_before:,} files into "
        f"{done.num_files_after} of {size_mb:.0f} MB in {compact_s:.0f} CPU seconds.",
        {
            "stages": num_stages,
            "a stage": f"{num_epochs} epochs x 4 values, {num_slices} test slices x 4 classes",
            "clock": "median of 5 (2 before compaction), files in the page cache; wall times depend on other load",
            "other load": f"load average {os.getloadavg()[1]:.1f} on {os.cpu_count()} cores",
            "readers": "raysweep's own (DuckDB over pyarrow data sets)",
        },
    )


def _row(what: str, before: tuple[float, float] | None, after: tuple[float, float]) -> dict[str, object]:
    first = ("", "") if before is None else before
    return {
        "what": what,
        "before, s": first[0],
        "before, CPU s": first[1],
        "after, s": after[0],
        "after, CPU s": after[1],
    }


def _seconds(function: Callable[[], object], repetitions: int) -> tuple[float, float]:
    """Return the median wall and CPU seconds."""
    taken = []
    for _ in range(repetitions):
        begin = time.perf_counter(), time.process_time()
        function()
        taken.append((time.perf_counter() - begin[0], time.process_time() - begin[1]))
    return median(wall for wall, _ in taken), median(cpu for _, cpu in taken)


def _write(store: Store, num_stages: int, num_epochs: int, num_slices: int) -> tuple[float, float]:
    """Write all stages and return the median wall and CPU seconds that one takes."""
    rng = np.random.default_rng(0)
    stages = [hashlib.sha256(str(number).encode()).hexdigest()[:32] for number in range(num_stages)]
    cells = [
        {"study": "large", "cell": f"cell{n}", "source": f"source{n % _SOURCES}", "seed": n // 60, "stage": stage,
         "annotations": _COUNTS[n // _SOURCES % len(_COUNTS)], "lineage": [], "task": "t", "backbone": "b"}
        for n, stage in enumerate(stages)
    ]  # fmt: skip
    write_part(store, "cells", "large", cells)
    taken = []
    for number, stage in enumerate(stages):
        epochs = _epochs(rng, stage, num_epochs)
        cases = _cases(rng, stage, num_slices)
        begin = time.perf_counter(), time.process_time()
        if number < 50:  # as a stage does it: rows of Python values
            write_part(store, "epochs", stage, epochs.to_pylist())
            write_part(store, "cases", stage, cases.to_pylist())
        else:
            write_part(store, "epochs", stage, epochs)
            write_part(store, "cases", stage, cases)
        write_part(store, "stages", stage, [{"stage": stage, "kind": "finetune", "status": "done", "metric": "dice"}])
        if number < 50:
            taken.append((time.perf_counter() - begin[0], time.process_time() - begin[1]))
        store.record(LedgerRecord(stage, "done"))
    return median(wall for wall, _ in taken), median(cpu for _, cpu in taken)


def _epochs(rng: np.random.Generator, stage: str, num_epochs: int) -> pa.Table:
    num = num_epochs * len(_METRICS)
    epoch = np.repeat(np.arange(1, num_epochs + 1), len(_METRICS))
    split = pa.DictionaryArray.from_arrays(np.tile(np.array([0, 0, 1, 1], np.int32), num_epochs), ["train", "val"])
    metric = pa.DictionaryArray.from_arrays(np.tile(np.arange(4, dtype=np.int32), num_epochs), list(_METRICS))
    columns = [pa.array([stage] * num), epoch, epoch * 10, split, metric, rng.random(num), epoch * 1.5]
    return pa.Table.from_arrays(columns, schema=TABLES["epochs"].schema())


def _cases(rng: np.random.Generator, stage: str, num_slices: int) -> pa.Table:
    num = num_slices * 4
    subject = np.repeat(np.arange(num_slices) // 10, 4).astype(np.int32)
    names = [f"patient{i:03}" for i in range(num_slices // 10 + 1)]
    words = ["background", "right ventricle", "myocardium", "left ventricle"]
    tp, fp, fn = (rng.integers(0, 4000, num) for _ in range(3))
    values = {
        "stage": pa.array([stage] * num),
        "split": pa.DictionaryArray.from_arrays(np.zeros(num, np.int32), ["test"]),
        "subject": pa.DictionaryArray.from_arrays(subject, names),
        "volume": pa.DictionaryArray.from_arrays(subject, names),
        "frame": np.ones(num, np.int64), "slice_number": np.repeat(np.arange(num_slices) % 10, 4),
        "class_index": np.tile(np.arange(4), num_slices),
        "class_name": pa.DictionaryArray.from_arrays(np.tile(np.arange(4, dtype=np.int32), num_slices), words),
        "tp": tp, "fp": fp, "fn": fn, "tn": 60_000 - tp - fp - fn, "dice": 2 * tp / (2 * tp + fp + fn + 1),
        "iou": tp / (tp + fp + fn + 1),
    }  # fmt: skip
    schema = TABLES["cases"].schema()
    arrays = [pa.array(values[f.name]) if f.name in values else pa.nulls(num, f.type) for f in schema]
    return pa.table(dict(zip(schema.names, arrays, strict=True))).cast(schema)
