"""The names that papers give to chains."""

from __future__ import annotations

import pytest

from raysweep import registry
from raysweep.planning import build_plan
from raysweep.planning.strategy import STRATEGIES, TakenStep, strategy_of
from raysweep.study import WeightsStep
from tests.studies import FAKE_FACTS, fake_study

IMAGENET = WeightsStep(timm="resnet50.a1_in1k")
OWN, OTHER = TakenStep("acdc", "byol"), TakenStep("leaves", "byol")


@pytest.mark.parametrize(
    ("weights", "steps", "expected"),
    [
        (None, [], "random"),
        (IMAGENET, [], "generalist"),
        (WeightsStep(zoo="byol"), [], "generalist"),
        (WeightsStep(file="/w.pth"), [], "generalist"),
        (WeightsStep(zoo="chestxray14"), [], "in-domain"),
        (WeightsStep(zoo="imagenet-chestxray14"), [], "domain-adapted"),
        (WeightsStep(zoo="byol-byol-acdc"), [], "hierarchical"),
        (WeightsStep(zoo="inat2021"), [], "generalist"),
        (None, [OWN], "specialist"),
        (None, [OTHER], "generalist"),
        (IMAGENET, [OWN], "hierarchical"),
        (IMAGENET, [OTHER], "hierarchical"),
        (None, [OTHER, OWN], "sequential"),
        (IMAGENET, [OTHER, OWN], "sequential"),
    ],
)
def test_a_chain_has_the_name_that_papers_give_it(weights, steps, expected):
    assert strategy_of(weights, steps, "acdc") == expected
    assert expected in STRATEGIES


def test_a_supervised_pretraining_after_weights_adapts_to_the_domain(monkeypatch):
    class Module:
        class METHOD:
            family = "supervised"

    monkeypatch.setattr(registry, "load", lambda kind, name: Module)
    assert strategy_of(IMAGENET, [TakenStep("chest", "supervised")], "acdc") == "domain-adapted"


def test_cells_carry_their_strategy_and_a_length_of_0_takes_the_step_away():
    plan = build_plan(
        fake_study({"grid.source": ["random", "cardiac", "leaves-cardiac"], "grid.pretrain_epochs": [0, 2]}), FAKE_FACTS
    )
    found = {(cell.source, cell.pretrain_epochs): cell.strategy for cell in plan.cells}
    assert found == {
        ("random", None): "random",
        ("cardiac", 0): "random",
        ("cardiac", 2): "specialist",
        ("leaves-cardiac", 0): "generalist",
        ("leaves-cardiac", 2): "sequential",
    }


def test_chains_of_any_depth_start_each_stage_from_the_one_before():
    chain = ["random", *({"pretrain": {"pack": "leaves", "epochs": n, "method": "simclr"}} for n in (1, 2, 3, 4))]
    plan = build_plan(
        fake_study({"sources.deep": chain, "grid.source": ["deep"], "grid.method": [], "grid.pretrain_epochs": []}),
        FAKE_FACTS,
    )
    (cell,) = plan.cells
    assert len(cell.lineage) == 4
    assert cell.strategy == "sequential"
    for parent, child in zip(cell.lineage, [*cell.lineage[1:], cell.stage], strict=True):
        assert plan.stages[child].parent.stage == parent
