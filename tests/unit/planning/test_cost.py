from __future__ import annotations

import pytest

from raysweep.planning import build_plan
from raysweep.planning.cost import ASSUMED_IMAGES_PER_S, Measured, Rates, estimate, longest_paths
from raysweep.store import LedgerRecord
from tests.studies import FAKE_FACTS, fake_study


@pytest.fixture
def plan():
    return build_plan(fake_study({"grid.source": ["cardiac", "random"], "grid.seed": [0, 1]}), FAKE_FACTS)


def of_kind(plan, kind):
    return [stage for stage in plan.stages.values() if stage.kind == kind]


def rates_of(plan, pretrain_s=100.0, finetune_s=10.0):
    seconds = {"pretrain": pretrain_s, "finetune": finetune_s}
    return Rates({stage.shape: Measured(seconds[stage.kind]) for stage in plan.stages.values()})


def test_stages_that_differ_in_seed_count_or_start_alone_have_one_shape(plan):
    assert len({stage.shape for stage in of_kind(plan, "finetune")}) == 1
    assert len({stage.shape for stage in plan.stages.values()}) == 2


def test_what_decides_the_cost_of_an_epoch_decides_the_shape(plan):
    (pretrain,) = of_kind(plan, "pretrain")
    for change in (
        {"pretraining.batch_size": 8},
        {"pretraining.image_size": 96},
        {"pretraining.precision": "bfloat16"},
    ):
        other = build_plan(fake_study({"grid.source": ["cardiac"], **change}), FAKE_FACTS)
        assert of_kind(other, "pretrain")[0].shape != pretrain.shape


def test_annotations_decide_the_shape_only_where_they_decide_the_steps():
    for steps, shapes in (("same", 1), ("natural", 2)):
        study = fake_study({"grid.annotations": [1, 16], "tasks.heart.training.steps": steps})
        finetunes = of_kind(build_plan(study, FAKE_FACTS), "finetune")
        assert len({stage.shape for stage in finetunes}) == shapes
        images = {stage.config["annotations"]: stage.images for stage in finetunes}
        assert (images[1] < images[16]) == (steps == "natural")


def test_hours_follow_measured_rates(plan):
    found = estimate(plan, {}, rates_of(plan))
    finetunes = sum(stage.epochs for stage in of_kind(plan, "finetune"))
    (pretrain,) = of_kind(plan, "pretrain")
    assert found.unit == "core-hours"
    assert found.whole.pretrain == pytest.approx(pretrain.epochs * 100 / 3600)
    assert found.whole.finetune == pytest.approx(finetunes * 10 / 3600)
    assert found.naive.finetune == found.whole.finetune
    assert found.num_measured == len(plan.stages)


def test_the_naive_grid_trains_every_cells_chain_for_itself(plan):
    found = estimate(plan, {}, rates_of(plan))
    naive_epochs = sum(cell.pretrain_epochs or 0 for cell in plan.cells)
    assert found.naive.pretrain == pytest.approx(naive_epochs * 100 / 3600)
    assert found.saved == pytest.approx(1 - found.whole.total / found.naive.total)
    assert found.saved > 0.3


def test_what_is_done_is_not_left(plan):
    (pretrain,) = of_kind(plan, "pretrain")
    ledger = {pretrain.id: LedgerRecord(pretrain.id, "done", pretrain.snapshots)}
    found = estimate(plan, ledger, rates_of(plan))
    assert found.left.pretrain == 0.0
    assert found.left.finetune == found.whole.finetune
    finetune_epochs = of_kind(plan, "finetune")[0].epochs
    assert found.critical_path_h == pytest.approx(finetune_epochs * 10 / 3600)


def test_without_measurements_the_stated_assumption_holds(plan):
    (pretrain,) = of_kind(plan, "pretrain")
    pixels = pretrain.config["image_size"] ** 2
    assert pretrain.config["method"]["name"] == "simclr"
    expected = 2 * pretrain.images * pixels / 224**2 / ASSUMED_IMAGES_PER_S["cpu"]  # two views of every slice
    assert Rates().epoch_s(pretrain) == pytest.approx(expected)
    on_gpu = Rates(on_gpu={"pretrain": True})
    assert on_gpu.epoch_s(pretrain) == pytest.approx(expected * ASSUMED_IMAGES_PER_S["cpu"] / 500.0)


def test_shares_of_gpus_are_what_hours_count():
    changes = {"resources.finetune.gpus": 0.25, "resources.pretrain.gpus": 1.0}
    plan = build_plan(fake_study(changes), FAKE_FACTS)
    found = estimate(plan, {}, rates_of(plan, finetune_s=36.0))
    assert found.unit == "GPU-hours"
    assert found.whole.finetune == pytest.approx(sum(stage.epochs for stage in of_kind(plan, "finetune")) * 0.01 * 0.25)


def test_ranks_share_an_epoch_whether_it_was_measured_or_assumed(plan):
    """What was measured counts the seconds of all its ranks, so that other numbers of them can be told from it."""
    (pretrain,) = of_kind(plan, "pretrain")
    finetune = of_kind(plan, "finetune")[0]
    measured = {stage.shape: Measured(100.0) for stage in (pretrain, finetune)}
    for rates in (Rates(), Rates(measured)):
        four = Rates(rates.measured, ranks={"pretrain": 4})
        assert four.epoch_s(pretrain) == pytest.approx(rates.epoch_s(pretrain) / 4)
        assert four.epoch_s(finetune) == rates.epoch_s(finetune)


def test_longest_paths_match_a_walk_over_every_chain(plan):
    def walk(stage) -> float:
        children = [s for s in plan.stages.values() if s.parent and s.parent.stage == stage.id]
        return max([stage.epochs * 3.0, *(child.parent.epoch * 3.0 + walk(child) for child in children)])

    paths = longest_paths(plan, lambda stage: stage.epochs * 3.0)
    assert paths == {stage.id: walk(stage) for stage in plan.stages.values()}
