"""Backbones go with the sources whose weights are of them, and with the packs whose channels they take."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raysweep.errors import StudyError
from raysweep.planning import build_plan
from raysweep.study.load import validate_study
from tests.studies import FAKE_FACTS, fake_study, study_document, with_changes

NONE = {"grid.method": [], "grid.pretrain_epochs": []}


def cells(changes, facts=FAKE_FACTS):
    return {(c.task, c.source, c.backbone) for c in build_plan(fake_study({**NONE, **changes}), facts).cells}


def test_weights_go_with_the_backbone_of_their_architecture_and_random_ones_with_all():
    found = cells({
        "backbones": {"r50": {"encoder": "resnet50"}, "cnx": {"encoder": "convnext_tiny"}},
        "sources": {
            "random": "random", "swav": {"weights": "swav"}, "dino": {"weights": "convnext_tiny.dinov3_lvd1689m"}
        },
        "grid.source": ["random", "swav", "dino"],
    })  # fmt: skip
    assert found == {
        ("heart", "random", "r50"), ("heart", "random", "cnx"), ("heart", "swav", "r50"), ("heart", "dino", "cnx")
    }  # fmt: skip


def test_weights_of_no_backbone_on_the_grid_are_refused():
    with pytest.raises(StudyError, match=r"'swav' are of resnet50, but backbones\.small\.encoder is test_resnet"):
        fake_study({**NONE, "sources": {"swav": {"weights": "swav"}}, "grid.source": ["swav"]})


def test_of_backbones_that_differ_in_channels_a_task_takes_the_one_of_its_pack():
    facts = {**FAKE_FACTS, "leaves": replace(FAKE_FACTS["leaves"], num_channels=3)}
    document = with_changes(study_document(), {
        **NONE, "grid.source": ["random"],
        "backbones": {"grey": {"encoder": "test_resnet"}, "rgb": {"encoder": "test_resnet", "channels": 3}},
    })  # fmt: skip
    document["tasks"]["leaf"] = {**document["tasks"]["heart"], "pack": "leaves"}
    plan = build_plan(validate_study(document), facts)
    assert {(c.task, c.backbone) for c in plan.cells} == {("heart", "grey"), ("leaf", "rgb")}


def test_a_backbone_without_a_twin_of_the_right_channels_is_still_refused():
    facts = {**FAKE_FACTS, "cardiac": replace(FAKE_FACTS["cardiac"], num_channels=3)}
    with pytest.raises(StudyError, match="channels is 1, but pack 'cardiac' has 3 channels"):
        cells({"grid.source": ["random"]}, facts)


def test_a_snapshot_of_a_longer_run_follows_that_run_and_shares_it():
    step = {"pack": "cardiac", "method": "simclr"}
    study = fake_study({
        **NONE,
        "sources": {
            "early": ["random", {"pretrain": {**step, "epochs": 25, "of_epochs": 400}}],
            "late": ["random", {"pretrain": {**step, "epochs": 400}}],
            "own": ["random", {"pretrain": {**step, "epochs": 25}}],
        },
        "grid.source": ["early", "late", "own"],
    })  # fmt: skip
    runs = {s.epochs: s.snapshots for s in build_plan(study, FAKE_FACTS).stages.values() if s.kind == "pretrain"}
    assert runs == {400: (25, 400), 25: (25,)}


@pytest.mark.parametrize("step", [{"of_epochs": 5}, {"epochs": 6, "of_epochs": 5}])
def test_a_snapshot_outside_its_run_is_refused(step):
    with pytest.raises(StudyError, match="of_epochs is the length of a run"):
        fake_study({**NONE, "sources.cardiac": ["random", {"pretrain": {"pack": "cardiac", **step}}]})
