"""Pretraining with methods that keep more than weights: resume to the bit, what batches know, probes in the table."""

import numpy as np
import pytest
import torch

from raysweep.data.pack import open_pack
from raysweep.data.slices import mask_of
from raysweep.errors import PackError
from raysweep.planning import Stage, build_plan
from raysweep.results.read import store_tables
from raysweep.stages.pretrain import PretrainLoop
from raysweep.stages.run import run_stage
from raysweep.stages.runtime import prepare_runtime
from raysweep.store import Store
from raysweep.sweep import _facts
from tests.pretraining import VIT, backbone_for, small_settings

STATEFUL = ["pcl-v1", "deepcluster-v2", "ibot", "supervised"]


@pytest.fixture(autouse=True)
def _small_probes(monkeypatch):
    monkeypatch.setattr("raysweep.stages.probes.MAX_CELLS", {"train": 256, "val": 256})


def stage_of(tiny_study, store: Store, method: str, **given) -> Stage:
    settings = small_settings(method, **given).model_dump(mode="json")
    changes = {
        "grid.method": [method],
        "grid.pretrain_epochs": [3],
        "pretraining.image_size": 64 if method == "spark" else 32,
        "pretraining.batch_size": 8,
        f"pretraining.methods.{method}": settings,
        "backbones.small": backbone_for(method).model_dump(mode="json"),
    }
    if backbone_for(method).encoder == VIT.encoder:
        changes["tasks.heart.architecture"] = "dpt"
    study = tiny_study(changes)
    plan = build_plan(study, _facts(study, store))
    return next(stage for stage in plan.stages.values() if stage.kind == "pretrain")


def loop_of(tiny_study, store: Store, method: str, **given) -> PretrainLoop:
    stage = stage_of(tiny_study, store, method, **given)
    return PretrainLoop(stage, store, prepare_runtime(0, "float32", 1), 1)


def outcome(store: Store) -> tuple:
    rows = store_tables(store)["epochs"].select(["epoch", "split", "metric", "value"]).to_pylist()
    return rows, [store.read_bytes(path) for path in store.list("snapshots")]


@pytest.mark.parametrize("method", STATEFUL)
def test_interrupted_after_an_epoch_it_continues_to_the_same_bits(tiny_study, tmp_path, method):
    given = {"learn": "masks"} if method == "supervised" else {}
    whole, broken = (Store(tmp_path / name).prepare() for name in ("whole", "broken"))
    stage = stage_of(tiny_study, whole, method, **given)
    for _ in run_stage(stage, whole, threads=1, attempt=1):
        pass
    for progress in run_stage(stage, broken, threads=1, attempt=1):
        if progress.epoch == 2:
            break
    torch.rand(5)
    for _ in run_stage(stage, broken, threads=1, attempt=2):
        pass
    assert outcome(broken) == outcome(whole)
    rows = outcome(whole)[0]
    probed = {(row["epoch"], row["metric"]) for row in rows if row["split"] == "val"}
    assert {(epoch, f"{probe}_dice") for epoch in (0, 3) for probe in ("knn", "linear")} <= probed
    assert {row["epoch"] for row in rows if row["metric"] == "effective_rank"} == {1, 2, 3}


def test_probes_change_no_bit_of_the_training(tiny_study, tmp_path, monkeypatch):
    stores = [Store(tmp_path / name).prepare() for name in ("with", "without")]
    stage = stage_of(tiny_study, stores[0], "swav")
    for store in stores:
        for _ in run_stage(stage, store, threads=1, attempt=1):
            pass
        monkeypatch.setattr("raysweep.stages.probes.Probes.measure", lambda self, encoder: {})
    rows = [[row for row in outcome(store)[0] if row["split"] == "train"] for store in stores]
    assert rows[0] == rows[1]
    assert outcome(stores[0])[1] == outcome(stores[1])[1]


def test_a_batch_knows_heights_places_and_masks_of_its_slices(tiny_study, tiny_store):
    loop = loop_of(
        tiny_study,
        tiny_store,
        "supervised",
        learn="masks",
        augmentation={"crop_scale": [1, 1], "flip_p": 0, "rotation_deg": 0},
    )
    ids = torch.tensor([3, 0, 7])
    batch = loop._draw_batch(ids)
    pack, rows = loop.pack, loop.rows[ids.numpy()]
    index = pack.index
    for i, row in enumerate(rows):
        same = index.volume == index.volume[row]
        count = int(index.slice_number[same].max()) + 1
        assert float(batch.positions[i]) == pytest.approx((index.slice_number[row] + 0.5) / count)
        H, W = pack.shape(int(row))
        assert batch.places[0][i].tolist() == [[H, 0, 0], [0, W, 0]]
        mask = mask_of(pack, int(row))
        y, x = ((torch.arange(32) + 0.5) * side / 32 for side in (H, W))
        assert torch.equal(batch.masks[0][i], mask[y.long()][:, x.long()])
    assert torch.equal(batch.ids, ids)
    assert batch.labels is None


def test_whole_slices_before_an_epoch_are_all_slices_once(tiny_study, tiny_store):
    loop = loop_of(tiny_study, tiny_store, "deepcluster-v2")
    ids, slices = zip(*loop._whole_slices(), strict=True)
    assert torch.cat(ids).tolist() == list(range(len(loop.rows)))
    assert {tuple(part.shape[1:]) for part in slices} == {(1, 32, 32)}


def test_supervised_trains_on_labelled_slices_alone(tiny_study, tiny_store, cardiac_pack):
    loop = loop_of(tiny_study, tiny_store, "supervised", learn="masks")
    pack = open_pack(cardiac_pack)
    expected = pack.select("train")[pack.index.mask_position[pack.select("train")] >= 0]
    assert np.array_equal(loop.rows, expected)
    assert loop.method.run.num_classes == len(pack.class_names)


def test_a_pack_that_a_method_cannot_learn_from_ends_the_launch(tiny_study, tiny_store):
    study = tiny_study(
        {
            "grid.method": ["supervised"],
            "grid.source": ["leaves-cardiac"],
            "pretraining.methods": {"supervised": {"learn": "masks"}},
        }
    )
    with pytest.raises(PackError, match=r"has no masks in its train split, but method 'supervised' learns from them"):
        _facts(study, tiny_store)
