"""What follows from validation: early endings, the best epoch, averaged weights; resumed to the same bits."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.utils import ModelEmaV2
from torch import nn

from raysweep.planning import build_plan
from raysweep.results.read import store_tables
from raysweep.results.schemas import TABLES
from raysweep.settings import EarlyStopping, Optimisation
from raysweep.stages.finetune import FinetuneLoop
from raysweep.stages.run import run_stage
from raysweep.stages.runtime import prepare_runtime
from raysweep.stages.validation import Averaged, Patience
from raysweep.store import Store
from raysweep.sweep import _facts
from raysweep.tasks import Validation

ONE_CELL = {
    "grid.source": ["random"],
    "grid.method": [],
    "grid.pretrain_epochs": [],
    "grid.annotations": [3],
    "tasks.heart.training.epochs": 8,
    "tasks.heart.training.steps": "natural",
}


def stage_of(tiny_study, store, changes):
    study = tiny_study({**ONE_CELL, **{f"tasks.heart.training.{key}": value for key, value in changes.items()}})
    (stage,) = build_plan(study, _facts(study, store)).stages.values()
    return stage


def facts(store):
    return {name: store_tables(store)[name].select(TABLES[name].facts).to_pylist() for name in ("epochs", "cases")}


def run(stage, store, until=None):
    for progress in run_stage(stage, store, threads=1, attempt=1):
        if progress.epoch == until:
            return


def test_patience_ends_after_one_bad_validation_more_than_it_bears():
    settings = EarlyStopping(patience=2, min_delta=0.01, monitor="score")
    patience, over = Patience(), []
    for score in (0.1, 0.2, 0.205, 0.2, 0.3, 0.3, 0.3, 0.3):
        patience.update(settings, Validation(score, None))
        over.append(patience.is_over(settings))
    assert over == [False] * 7 + [True]


def test_monitored_loss_should_fall():
    settings = EarlyStopping(patience=0, monitor="loss")
    patience = Patience()
    patience.update(settings, Validation(0.1, 2.0))
    patience.update(settings, Validation(0.0, 1.0))
    assert not patience.is_over(settings)
    patience.update(settings, Validation(0.9, 1.0))
    assert patience.is_over(settings)


def test_average_is_that_of_timm():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    theirs, ours = ModelEmaV2(network, decay=0.9), Averaged(network, 0.9)
    for _ in range(4):
        network(torch.randn(5, 3)).sum().backward()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += torch.randn_like(parameter)
        theirs.update(network)
        ours.update(network)
    own = copy.deepcopy(network.state_dict())
    with ours.in_place_of(network):
        for key, value in theirs.module.state_dict().items():
            if value.is_floating_point():
                torch.testing.assert_close(network.state_dict()[key], value)
        assert int(network.state_dict()["1.num_batches_tracked"]) == 4
    assert all(torch.equal(value, own[key]) for key, value in network.state_dict().items())


EVERY_KIND = {
    "optimisation": {
        "optimiser": "sgd", "nesterov": True, "lr": 0.02, "schedule": "plateau", "patience": 0, "factor": 0.3,
        "threshold": 0.05, "clip_norm": 0.5,
    },
    "early_stopping": {"patience": 2, "monitor": "loss", "min_delta": 10.0},
    "best_by": "loss",
    "ema": 0.8,
}  # fmt: skip


@pytest.mark.parametrize("epoch", [1, 3, 4])
def test_a_training_that_depends_on_validation_resumes_to_the_same_bits(tiny_study, tmp_path, epoch):
    whole, cut = Store(tmp_path / "whole").prepare(), Store(tmp_path / "cut").prepare()
    stage = stage_of(tiny_study, whole, EVERY_KIND)
    run(stage, whole)
    run(stage, cut, until=epoch)
    torch.rand(5)
    run(stage, cut)
    assert facts(cut) == facts(whole)
    rates = {row["value"] for row in facts(whole)["epochs"] if row["metric"] == "lr"}
    assert len(rates) > 1, "the plateau was reached, so that its state matters"


def test_a_stage_that_ends_early_records_the_epochs_and_steps_it_took(tiny_study, tiny_store):
    stage = stage_of(tiny_study, tiny_store, EVERY_KIND)
    run(stage, tiny_store)
    row = store_tables(tiny_store)["stages"].to_pylist()[0]
    # The first validation is the best, for nothing improves by 10; two more are borne, the next one ends it.
    assert (row["status"], row["epochs"], row["steps"], stage.epochs) == ("done", 4, 4, 8)
    assert max(epoch["epoch"] for epoch in facts(tiny_store)["epochs"]) == 4
    assert tiny_store.ledger_record(stage.id).status == "done"


def test_the_best_epoch_is_that_of_the_lowest_loss_the_highest_score_or_the_last(tiny_study, tmp_path):
    best = {}
    for by in ("score", "loss", "last"):
        store = Store(tmp_path / by).prepare()
        changes = {"best_by": by, "epochs": 4, "early_stopping": {"monitor": "loss", "patience": 99}}
        run(stage_of(tiny_study, store, changes), store)
        rows = [row for row in facts(store)["epochs"] if row["split"] == "val"]
        best[by] = store_tables(store)["stages"].to_pylist()[0]["best_epoch"]
        losses = {row["epoch"]: row["value"] for row in rows if row["metric"] == "loss"}
        scores = {row["epoch"]: row["value"] for row in rows if row["metric"] == "dice"}
    assert best == {"score": max(scores, key=scores.get), "loss": min(losses, key=losses.get), "last": 4}


@pytest.mark.parametrize(("every", "epochs", "best"), [(3, 7, 6), (5, 4, 4), (1, 7, 2)])
def test_only_every_so_many_epochs_may_be_the_best(tiny_study, tmp_path, every, epochs, best):
    store = Store(tmp_path / "store").prepare()
    loop = FinetuneLoop(
        stage_of(tiny_study, store, {"best_every": every, "epochs": epochs}), store, prepare_runtime(0, "float32", 1), 1
    )
    for epoch in range(1, epochs + 1):
        loop.history.epoch = epoch
        loop._keep_if_best(0.0, -9.0 if epoch == 2 else 1 / epoch)
    assert loop.best_epoch == best


def test_the_averaged_network_is_what_is_tested(tiny_study, tiny_store):
    stage = stage_of(tiny_study, tiny_store, {"ema": 0.5, "epochs": 1})
    loop = FinetuneLoop(stage, tiny_store, prepare_runtime(0, "float32", 1), 1)
    loop.history.epoch = 1
    loop.train_epoch()
    loop.end_epoch()
    assert all(torch.equal(loop.best_weights[key], value) for key, value in loop.averaged.state.items())
    now = loop.network.state_dict()
    assert {key for key, value in loop.best_weights.items() if not torch.equal(value, now[key])}


def test_pretraining_has_no_plateau_to_watch():
    from raysweep.methods.simclr import METHOD

    with pytest.raises(ValueError, match="pretraining validates nothing"):
        METHOD.Settings(optimisation=Optimisation(schedule="plateau"))
