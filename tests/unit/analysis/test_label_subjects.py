"""Subject scores of stages whose metric ranks all cases against each other."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from raysweep.analysis import comparison, data_efficiency
from raysweep.analysis._scores import ALL_SUBJECTS, arm_scores, subject_scores
from raysweep.results.read import StudyTables
from raysweep.results.write import to_table
from tests.simulate import simulated_study

LABELS = ("effusion", "oedema", "hernia")


def label_rows(stage: str, skill: float, seed: int, num_subjects: int, slices: int) -> list[dict[str, Any]]:
    """Cases of one stage: the truth is the same for every stage, hernia is not scored."""
    truth_rng, rng = np.random.default_rng(7), np.random.default_rng(seed)
    rows = []
    for subject in range(num_subjects):
        for number in range(slices):
            for index, name in enumerate(LABELS):
                target = float(truth_rng.random() < 0.35)
                unknown = truth_rng.random() < 0.1
                probability = 1 / (1 + np.exp(-(skill * target + rng.normal())))
                rows.append(
                    {"stage": stage, "split": "test", "unit": "slice", "subject": f"p{subject:03}",
                     "volume": f"p{subject:03}", "frame": -1, "slice_number": number, "class_index": index,
                     "class_name": name, "probability": probability, "target": None if unknown else target,
                     "scored": name != "hernia"}
                )  # fmt: skip
    return rows


def mean_auc(rows: list[dict[str, Any]]) -> float:
    areas = []
    for name in LABELS[:2]:
        known = [row for row in rows if row["class_name"] == name and row["target"] is not None]
        areas.append(roc_auc_score([r["target"] for r in known], [r["probability"] for r in known]))
    return float(np.mean(areas))


def label_study(skill: dict[str, float], num_subjects=30, slices=2, seeds=(0, 1, 2), metric="auc") -> StudyTables:
    """Classifications by ``skill`` of each source."""
    tables = simulated_study(sources=dict.fromkeys(skill, False), annotations=(8,), seeds=seeds, metric=metric)
    source = {row["stage"]: row["source"] for row in tables.cells.to_pylist()}
    stages, cases = tables.stages.to_pylist(), []
    for number, stage in enumerate(stages):
        rows = label_rows(stage["stage"], skill[source[stage["stage"]]], number, num_subjects, slices)
        stage["test_score"] = mean_auc(rows)
        cases += rows
    return dataclasses.replace(tables, stages=to_table("stages", stages), cases=to_table("cases", cases))


def test_subjects_average_to_the_stages_score_which_is_that_of_all_cases():
    tables = label_study({"random": 0.5, "imagenet": 1.5})
    by_stage: dict[str, list[float]] = {}
    for row in subject_scores(tables).to_pylist():
        by_stage.setdefault(row["stage"], []).append(row["score"])
    assert len(by_stage) == 6
    for stage in tables.stages.to_pylist():
        values = by_stage[stage["stage"]]
        assert len(values) == 30
        assert np.mean(values) == pytest.approx(stage["test_score"], abs=1e-12)
    entries = arm_scores(tables)
    assert [entry.num_subjects for entry in entries] == [30, 30]
    assert data_efficiency(tables)["metric"].to_pylist() == ["auc", "auc"]


def test_a_subjects_score_is_what_leaving_it_out_costs():
    tables = label_study({"random": 1.0}, seeds=(0,))
    found = {row["subject"]: row["score"] for row in subject_scores(tables).to_pylist()}
    rows = tables.cases.to_pylist()
    without = {subject: mean_auc([row for row in rows if row["subject"] != subject]) for subject in found}
    whole, mean = mean_auc(rows), np.mean(list(without.values()))
    for subject, score in found.items():
        assert score == pytest.approx(whole + 29 * (mean - without[subject]), abs=1e-9)


def test_a_better_classifier_is_told_apart_with_an_interval_over_patients():
    tables = label_study({"random": 0.4, "imagenet": 2.5}, num_subjects=60)
    (row,) = comparison(tables).to_pylist()
    difference = abs(row["difference"])
    scores = {r["stage"]: r["test_score"] for r in tables.stages.to_pylist()}
    by_source: dict[str, list[float]] = {}
    for cell in tables.cells.to_pylist():
        by_source.setdefault(cell["source"], []).append(scores[cell["stage"]])
    assert difference == pytest.approx(abs(np.mean(by_source["imagenet"]) - np.mean(by_source["random"])), abs=1e-12)
    assert row["decided"]
    assert row["num_subjects"] == 60


def test_the_interval_of_one_run_is_as_wide_as_resampling_its_patients_says():
    tables = label_study({"random": 1.0}, seeds=(0,), num_subjects=60, slices=3)
    rows = tables.cases.to_pylist()
    of_subject: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        of_subject.setdefault(row["subject"], []).append(row)
    rng = np.random.default_rng(0)
    names = list(of_subject)
    drawn = [[row for name in rng.choice(names, len(names)) for row in of_subject[name]] for _ in range(200)]
    spread = np.std([mean_auc(sample) for sample in drawn])
    (answer,) = data_efficiency(tables).to_pylist()
    assert (answer["high"] - answer["low"]) / (2 * 1.96) == pytest.approx(spread, rel=0.2)


def test_where_one_patient_has_all_positives_the_score_belongs_to_no_patient():
    tables = label_study({"random": 1.0}, seeds=(0,))
    rows = tables.cases.to_pylist()
    for row in rows:
        if row["class_name"] == "oedema":
            row["target"] = float(row["subject"] == "p003")
    changed = dataclasses.replace(tables, cases=to_table("cases", rows))
    assert [row["subject"] for row in subject_scores(changed).to_pylist()] == [ALL_SUBJECTS]


def test_a_metric_that_no_patient_has_stays_with_the_stage():
    tables = label_study({"random": 1.0}, metric="auprc")
    found = subject_scores(tables).to_pylist()
    assert {row["subject"] for row in found} == {ALL_SUBJECTS}
    assert [row["score"] for row in found] == sorted(
        (s["test_score"] for s in tables.stages.to_pylist()), key=[row["score"] for row in found].index
    )


def test_a_stages_own_scores_of_cases_are_what_counts():
    """What a task wrote as ``score`` goes before the overlap: absent classes, background, volumes."""
    tables = simulated_study(sources={"random": False}, annotations=(8,), seeds=(0,))
    rows = tables.cases.to_pylist()
    for row in rows:
        row["score"] = 0.25 if row["class_index"] < 2 else None
    stages = [{**row, "metric": "nsd"} for row in tables.stages.to_pylist()]
    changed = dataclasses.replace(tables, stages=to_table("stages", stages), cases=to_table("cases", rows))
    assert {row["score"] for row in subject_scores(changed).to_pylist()} == {0.25}
    assert subject_scores(changed).num_rows == subject_scores(tables).num_rows
