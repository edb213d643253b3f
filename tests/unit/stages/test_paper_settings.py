"""Stages that read packs as published studies do, and stages without a seed."""

from __future__ import annotations

import numpy as np
import torch

from raysweep.data.pack import open_pack
from raysweep.planning import build_plan
from raysweep.results.read import store_tables
from raysweep.settings import Normalisation
from raysweep.sources.snapshots import read_snapshot
from raysweep.stages.finetune import FinetuneLoop
from raysweep.stages.pretrain import PretrainLoop
from raysweep.stages.run import run_stage
from raysweep.stages.runtime import prepare_runtime
from raysweep.store import Store
from raysweep.sweep import _facts

SHORT = {
    "grid.source": ["cardiac"],
    "grid.pretrain_epochs": [1],
    "grid.annotations": [3],
    "tasks.heart.training.epochs": 2,
    "tasks.heart.training.steps": "natural",
}
STATISTICS = {"mean": 67.27, "std": 84.66}


def stages_of(tiny_study, store, changes):
    study = tiny_study({**SHORT, **changes})
    return list(build_plan(study, _facts(study, store)).stages.values())


def run(stage, store, until=None):
    for progress in run_stage(stage, store, threads=1, attempt=1):
        if progress.epoch == until:
            return


def test_stages_read_and_normalise_slices_as_the_study_says(tiny_study, tiny_store):
    reading = {"intensities": "wrapped", "normalisation": STATISTICS}
    later = {"intensities": "eight-bit", "normalisation": STATISTICS, "resize_px": 64}
    changes = {"pretraining.reading": reading, "tasks.heart.training.reading": later}
    pretrain, finetune = stages_of(tiny_study, tiny_store, changes)
    loop = PretrainLoop(pretrain, tiny_store, prepare_runtime(0, "float32", 1), 1)
    assert loop.normalisation == Normalisation(mean=67.27, std=84.66)
    stored = open_pack(pretrain.inputs["pack"]).image(0)
    np.testing.assert_array_equal(loop.pack.image(0), stored.astype(np.int64).astype(np.uint8))
    run(pretrain, tiny_store)
    assert read_snapshot(tiny_store, pretrain.id, 1).normalisation == Normalisation(mean=67.27, std=84.66)
    loop = FinetuneLoop(finetune, tiny_store, prepare_runtime(0, "float32", 1), 1)
    assert loop.task.pack.shape(0) == (64, 64)
    images, masks = loop._augmented(torch.tensor([0, 1]))
    assert float(images.mean()) < -0.7, "0-255 statistics on 0-1 data leave next to nothing but their mean"
    assert masks.shape == (2, 32, 32)
    run(finetune, tiny_store)
    assert store_tables(tiny_store)["stages"].num_rows == 2


def test_readings_and_missing_seeds_are_identity(tiny_study, tiny_store):
    plain = {stage.id for stage in stages_of(tiny_study, tiny_store, {})}
    for changes in (
        {"pretraining.reading": {"intensities": "wrapped"}},
        {"seeding": "none"},
    ):
        assert not plain & {stage.id for stage in stages_of(tiny_study, tiny_store, changes)}
    same = {"pretraining.reading": {"intensities": "percentiles"}, "seeding": "fixed"}
    assert {stage.id for stage in stages_of(tiny_study, tiny_store, same)} == plain


def test_stages_without_a_seed_differ_and_record_the_one_they_drew(tiny_study, tmp_path):
    drawn, losses = [], []
    for name in ("one", "two"):
        store = Store(tmp_path / name).prepare()
        (stage,) = stages_of(tiny_study, store, {"seeding": "none", "grid.source": ["random"], "grid.method": [],
                                                 "grid.pretrain_epochs": []})  # fmt: skip
        run(stage, store)
        (row,) = store_tables(store)["stages"].to_pylist()
        drawn.append(row["drawn_seed"])
        assert row["seed"] == 0
        losses.append([r["value"] for r in store_tables(store)["epochs"].to_pylist() if r["metric"] == "loss"])
    assert drawn[0] != drawn[1]
    assert losses[0] != losses[1]


def test_a_stage_without_a_seed_goes_on_with_the_one_it_drew(tiny_study, tiny_store):
    changes = {"seeding": "none", "grid.source": ["random"], "grid.method": [], "grid.pretrain_epochs": []}
    (stage,) = stages_of(tiny_study, tiny_store, changes)
    run(stage, tiny_store, until=1)
    saved = torch.load(tiny_store.local_path(tiny_store.resume_path(stage.id)), weights_only=True)
    run(stage, tiny_store)
    (row,) = store_tables(tiny_store)["stages"].to_pylist()
    assert row["drawn_seed"] == saved["history"]["drawn_seed"] is not None
