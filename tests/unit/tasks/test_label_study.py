"""A classification from its study file to its report."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysweep.analysis._scores import subject_scores
from raysweep.study.load import validate_study
from raysweep.sweep import report, run
from tests.studies import study_document, with_changes


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, label_pack: Path, leaves_pack: Path):
    labels = {
        "kind": "classification",
        "pack": "cardiac",
        "training": {"epochs": 1, "batch_size": 8, "image_size": 32, "precision": "float32"},
        "evaluation": {"crops": "whole"},
    }
    changes = {"tasks": {"findings": labels}, "grid.pretrain_epochs": [1], "grid.seed": [0]}
    study = validate_study(with_changes(study_document(str(label_pack), str(leaves_pack)), changes))
    return run(study, store=tmp_path_factory.mktemp("labels") / "store", executor="inline")


def test_every_cell_is_trained_and_scored(finished):
    trials = finished.tables().trials().to_pylist()
    assert [row["status"] for row in trials] == ["done"] * 2
    assert {row["metric"] for row in trials} == {"auc"}
    assert all(0 < row["test_score"] < 1 for row in trials)
    names = set(finished.tables().epochs["metric"].to_pylist())
    assert {"loss", "auc", "auprc", "balanced_accuracy", "ece", "brier", "auc_hernia"} <= names


def test_the_score_is_the_mean_over_patients_that_tests_exchange(finished):
    tables = finished.tables()
    means: dict[str, list[float]] = {}
    for row in subject_scores(tables).to_pylist():
        means.setdefault(row["stage"], []).append(row["score"])
    for row in tables.stages.to_pylist():
        if row["kind"] == "finetune":
            assert sum(means[row["stage"]]) / len(means[row["stage"]]) == pytest.approx(row["test_score"], abs=1e-9)
            assert len(means[row["stage"]]) > 10


def test_the_report_speaks_of_the_area_under_the_curve(finished):
    page = Path(report(finished.plan.study, store=finished.store).page).read_text(encoding="utf-8")
    assert "Test AUC" in page
