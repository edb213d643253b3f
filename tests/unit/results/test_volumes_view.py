"""The view that adds the counts of slices up to volumes."""

from __future__ import annotations

import dataclasses

import pytest

from raysweep.results.write import to_table
from tests.simulate import simulated_study


def test_volumes_are_the_sums_of_their_slices_counts_and_nothing_else():
    tables = simulated_study(sources={"random": False}, annotations=(8,), seeds=(0,), num_subjects=3)
    rows = tables.cases.to_pylist()
    sums: dict[tuple, list[int]] = {}
    for row in rows:
        total = sums.setdefault((row["volume"], row["frame"], row["class_index"]), [0, 0, 0, 0])
        for position, name in enumerate(("tp", "fp", "fn", "tn")):
            total[position] += row[name] or 0
    others = [{**rows[0], "unit": "volume", "tp": 10**6}, {"stage": rows[0]["stage"], "probability": 0.5}]
    mixed = dataclasses.replace(tables, cases=to_table("cases", [*rows, *others]))
    found = mixed.query("SELECT * FROM volumes").to_pylist()
    assert len(found) == len(sums)
    for row in found:
        tp, fp, fn, tn = sums[row["volume"], row["frame"], row["class_index"]]
        assert (row["tp"], row["fp"], row["fn"], row["tn"]) == (tp, fp, fn, tn)
        assert row["dice"] == (pytest.approx(2 * tp / (2 * tp + fp + fn)) if tp + fp + fn else None)
        assert row["iou"] == (pytest.approx(tp / (tp + fp + fn)) if tp + fp + fn else None)
        assert row["size_error"] == (pytest.approx((fp - fn) / (tp + fn)) if tp + fn else None)
