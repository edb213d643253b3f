import itertools
import math

import numpy as np
import pytest
from scipy import stats

from raysweep.analysis import _scores, comparison, data_efficiency
from raysweep.analysis._scores import arm_scores, subject_scores
from raysweep.results.read import StudyTables
from raysweep.results.write import to_table
from tests.simulate import simulated_study


def brute_force(tables: StudyTables) -> dict[tuple[str, str], float]:
    """Subject scores by plain loops over the cases."""
    metric = {row["stage"]: row["metric"] for row in tables.stages.to_pylist()}
    slices: dict[tuple, list[float]] = {}
    for row in tables.cases.to_pylist():
        value = row[metric[row["stage"]]]
        if row["split"] == "test" and row["class_index"] > 0 and value is not None:
            key = (row["stage"], row["subject"], row["volume"], row["frame"], row["slice_number"])
            slices.setdefault(key, []).append(value)
    subjects: dict[tuple[str, str], list[float]] = {}
    for (stage, subject, *_), values in slices.items():
        subjects.setdefault((stage, subject), []).append(sum(values) / len(values))
    return {key: sum(values) / len(values) for key, values in subjects.items()}


@pytest.mark.parametrize("metric", ["dice", "iou"])
def test_subject_scores_equal_a_loop_over_the_cases(metric):
    tables = simulated_study(seeds=(0, 1), metric=metric)
    expected = brute_force(tables)
    found = {(r["stage"], r["subject"]): r["score"] for r in subject_scores(tables).to_pylist()}
    assert found.keys() == expected.keys()
    assert all(math.isclose(found[key], expected[key], abs_tol=1e-12) for key in expected)


def test_a_slice_without_any_class_is_left_out_of_its_subject():
    tables = simulated_study(annotations=(8,), seeds=(0,), num_subjects=2)
    before = {(r["stage"], r["subject"]): r["score"] for r in subject_scores(tables).to_pylist()}
    empty = [
        {**row, "slice_number": 99, "tp": 0, "fp": 0, "fn": 0, "dice": None, "iou": None}
        for row in tables.cases.to_pylist()
        if row["slice_number"] == 0
    ]
    cases = to_table("cases", [*tables.cases.to_pylist(), *empty])
    with_empty = StudyTables(tables.study, tables.cells, tables.stages, tables.epochs, cases)
    after = {(r["stage"], r["subject"]): r["score"] for r in subject_scores(with_empty).to_pylist()}
    assert after == before


def test_validation_cases_do_not_enter_the_test_score():
    tables = simulated_study(annotations=(8,), seeds=(0,))
    rows = tables.cases.to_pylist()
    other = [{**row, "split": "val", "dice": 0.0} for row in rows if row["class_index"] > 0]
    mixed = StudyTables(tables.study, tables.cells, tables.stages, tables.epochs, to_table("cases", [*rows, *other]))
    assert subject_scores(mixed) == subject_scores(tables)


def test_unfinished_cells_are_counted_and_leave_no_scores():
    tables = simulated_study(
        annotations=(8, 30),
        pending=lambda cell: cell["source"] == "random" and cell["annotations"] == 8,
        failed=lambda cell: cell["source"] == "imagenet" and cell["seed"] == 1,
    )
    entries = {(e.arm.label, e.annotations): e for e in arm_scores(tables)}
    assert entries["random", 8].missing["pending"] == 3
    assert entries["random", 8].scores.size == 0
    assert entries["imagenet", 30].missing["failed"] == 1
    assert entries["imagenet", 30].seeds == (0, 2)
    rows = {(r["arm"], r["annotations"]): r for r in data_efficiency(tables).to_pylist()}
    assert rows["random", 8]["mean"] is None
    assert (rows["random", 8]["num_pending"], rows["imagenet", 30]["num_failed"]) == (3, 1)
    assert rows["imagenet", 30]["num_seeds"] == 2


def test_two_counts_answered_by_one_stage_are_one_observation():
    tables = simulated_study(annotations=(8,), seeds=(0, 1))
    cells = tables.cells.to_pylist()
    again = [{**cell, "cell": cell["cell"] + "-all", "annotations_asked": "all"} for cell in cells]
    doubled = StudyTables(tables.study, to_table("cells", [*cells, *again]), tables.stages, tables.epochs, tables.cases)
    for first, second in itertools.zip_longest(arm_scores(tables), arm_scores(doubled)):
        assert first.scores.tolist() == second.scores.tolist()


def test_a_metric_that_subjects_do_not_have_is_one_score_a_run():
    tables = simulated_study(sources={"random": False, "imagenet": False}, annotations=(8,), seeds=(0, 1, 2))
    stages = [{**row, "metric": "auc"} for row in tables.stages.to_pylist()]
    other = StudyTables(tables.study, tables.cells, to_table("stages", stages), tables.epochs, tables.cases)
    by_stage = {row["stage"]: row["test_score"] for row in stages}
    for entry in arm_scores(other):
        own = [c["stage"] for c in other.cells.to_pylist() if c["source"] == entry.arm.source]
        assert entry.scores.tolist() == [[by_stage[stage]] for stage in own]
    (row,) = comparison(other).to_pylist()
    differences = [a.scores[:, 0] for a in arm_scores(other)]
    reference = stats.permutation_test(
        differences, lambda a, b: (a - b).mean(), permutation_type="samples", n_resamples=np.inf
    )
    assert row["p"] == pytest.approx(reference.pvalue)
    assert row["low"] < row["difference"] < row["high"]


def test_scores_are_computed_once_for_the_same_tables(monkeypatch):
    tables = simulated_study(annotations=(8,), seeds=(0,))
    first = arm_scores(tables)
    monkeypatch.setattr(_scores, "subject_scores", None)
    assert all(a is b for a, b in zip(first, arm_scores(tables), strict=True))
