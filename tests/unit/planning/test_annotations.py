"""Annotation counts of a grid as units of a pack, and how often a published study repeated them."""

from __future__ import annotations

import pytest

from raysweep.planning import build_plan
from raysweep.planning.annotations import repetitions, resolve_count
from tests.studies import FAKE_FACTS, fake_study

SHARES = ["0.1%", "0.2%", "0.5%", "1%", "2%", "5%", "10%", "20%", "50%", "100%"]
"""Of the 1498 annotated slices of ACDC, as Kalapos & Gyires-Toth 2022 took them."""


def test_shares_of_the_cardiac_study_are_its_counts_and_its_repetitions():
    counts = [resolve_count(share, 1498, "slice", "acdc") for share in SHARES]
    assert counts == [1, 3, 7, 15, 30, 75, 150, 300, 749, 1498]
    ratios = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
    assert [repetitions(share, 1498) for share in SHARES] == [int(1 / ratio) for ratio in ratios]


@pytest.mark.parametrize(("asked", "times"), [("all", 1), (1498, 1), (1, 1498), (700, 2)])
def test_counts_are_repeated_as_often_as_they_fit(asked, times):
    assert repetitions(asked, 1498) == times


def test_repetitions_are_identity_only_where_the_published_budget_is_asked_for():
    def stages(steps, asked):
        study = fake_study({"grid.source": ["random"], "grid.method": [], "grid.pretrain_epochs": [],
                            "grid.annotations": [asked], "tasks.heart.training.steps": steps})  # fmt: skip
        return next(iter(build_plan(study, FAKE_FACTS).stages.values()))

    assert "repeat" not in stages("same", "10%").config
    share, count = stages("kalapos2022", "10%"), stages("kalapos2022", 3)
    assert (share.config["annotations"], share.config["repeat"]) == (3, 10)
    assert (count.config["annotations"], count.config["repeat"]) == (3, 10)
    # 3 slices x 10 in batches of 4, the last one dropped; 32 slices in batches of 4.
    assert (share.images, stages("same", "10%").images) == (28, 32)
