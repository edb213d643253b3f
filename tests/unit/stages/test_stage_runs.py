"""Stages as executors run them: resumed, repeated, in processes that other stages have used."""

from __future__ import annotations

import itertools
import json
import math
import random
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy
import pytest
import torch

from raysweep.data.reader import ResidentReader, resident_or_mapped
from raysweep.errors import StageError
from raysweep.planning import Stage, build_plan
from raysweep.results.read import store_tables
from raysweep.results.schemas import TABLES
from raysweep.sources.snapshots import read_snapshot
from raysweep.stages.finetune import FinetuneLoop
from raysweep.stages.phases import PHASES
from raysweep.stages.pretrain import PretrainLoop
from raysweep.stages.profile import FIRST_TRACED, LAST_TRACED
from raysweep.stages.progress import Progress, StagePreempted, StageStopped
from raysweep.stages.run import run_stage
from raysweep.stages.runtime import prepare_runtime
from raysweep.stages.watch import StageThread
from raysweep.store import Store
from raysweep.sweep import _facts

LONGER = {
    "grid.source": ["cardiac"],
    "grid.pretrain_epochs": [1, 3],
    "tasks.heart.training.epochs": 3,
    "grid.annotations": [3],
}


NO_PRETRAINING = {"grid.method": [], "grid.pretrain_epochs": []}


def plan_of(tiny_study, store, changes=None):
    study = tiny_study({**LONGER, **(changes or {})})
    return build_plan(study, _facts(study, store))


def pretrain_of(plan) -> Stage:
    return next(stage for stage in plan.stages.values() if stage.kind == "pretrain")


def finetune_of(plan) -> Stage:
    return next(stage for stage in plan.stages.values() if stage.kind == "finetune")


def run(stage: Stage, store: Store, *, attempt: int = 1) -> list[int]:
    return [progress.epoch for progress in run_stage(stage, store, threads=1, attempt=attempt)]


def interrupt_after(stage: Stage, store: Store, epoch: int) -> None:
    for progress in run_stage(stage, store, threads=1, attempt=1):
        if progress.epoch == epoch:
            return


def facts(store: Store) -> dict[str, list]:
    """Every published value that two correct runs share, and the bytes of snapshots and examples."""
    found = {}
    for name, table in store_tables(store).items():
        if name != "cells":
            found[name] = table.select(TABLES[name].facts).to_pylist()
    for folder in ("snapshots", "examples"):
        found[folder] = [(path, store.read_bytes(path)) for path in store.list(folder)]
    found["ledger"] = [(r.stage, r.status, r.snapshots) for r in store.ledger().values()]
    return found


@pytest.fixture(scope="module")
def undisturbed(tiny_study, tmp_path_factory):
    """A store in which a pretraining and what starts from it ran without interruption, and the plan."""
    store = Store(tmp_path_factory.mktemp("undisturbed")).prepare()
    plan = plan_of(tiny_study, store)
    for stage in plan.stages.values():
        run(stage, store)
    return store, plan


@pytest.mark.parametrize("epoch", [0, 1, 2, 3])
def test_stages_interrupted_after_any_epoch_continue_to_the_same_bits(undisturbed, tiny_store, epoch):
    expected, plan = undisturbed
    for stage in plan.stages.values():
        interrupt_after(stage, tiny_store, epoch)
        assert tiny_store.ledger_record(stage.id) is None
        torch.rand(7)  # whatever else the process did
        assert run(stage, tiny_store, attempt=2)[0] == epoch
        assert not tiny_store.exists(tiny_store.resume_path(stage.id))
    assert facts(tiny_store) == facts(expected)


def preempt_after(stage: Stage, store: Store, beats: int) -> bool:
    """Run a stage until it has given some signs of life and takes a step; return whether that came before its end."""
    given = itertools.count()
    try:
        for _ in run_stage(stage, store, threads=1, attempt=1, beat=lambda: next(given) >= beats):
            pass
    except StagePreempted:
        return True
    return False


def test_stages_preempted_within_an_epoch_continue_to_the_same_bits(undisturbed, tiny_store):
    expected, plan = undisturbed
    for stage in plan.stages.values():
        assert preempt_after(stage, tiny_store, 9)
        assert tiny_store.ledger_record(stage.id) is None
        torch.rand(7)  # whatever else the process did
        run(stage, tiny_store, attempt=2)
    assert facts(tiny_store) == facts(expected)


def test_method_that_prepares_its_epochs_is_preempted_again_and_again_and_ends_with_the_same_bits(tiny_study, tmp_path):
    """It has a memory, which it fills as it trains and clusters before each epoch."""
    stores = [Store(tmp_path / name).prepare() for name in ("undisturbed", "preempted")]
    stage = pretrain_of(
        plan_of(tiny_study, stores[0], {"grid.method": ["deepcluster-v2"], "grid.pretrain_epochs": [2]})
    )
    run(stage, stores[0])
    for beats in (0, 1, 2):
        assert preempt_after(stage, stores[1], beats)
    run(stage, stores[1])
    assert facts(stores[1]) == facts(stores[0])


def test_resident_packs_change_no_bit(undisturbed, tiny_store, monkeypatch):
    """On a CPU: there the arithmetic after the reader is the same, which a GPU has kernels of its own for."""
    expected, plan = undisturbed
    given = []

    def resident(pack, device, memory_bytes):
        given.append(resident_or_mapped(pack, device, 10**9))
        return given[-1]

    monkeypatch.setattr("raysweep.stages.loop.open_reader", resident)
    for stage in plan.stages.values():
        run(stage, tiny_store)
    assert {type(reader) for reader in given} == {ResidentReader}
    assert facts(tiny_store) == facts(expected)


def test_a_profile_changes_no_bit_and_says_where_the_time_went(undisturbed, tiny_store):
    expected, plan = undisturbed
    for stage in plan.stages.values():
        run(replace(stage, profile=True), tiny_store)
        found = json.loads(tiny_store.read_bytes(tiny_store.profile_path(stage.id, "breakdown.json")))
        assert found["name"] == stage.name
        assert all(found["phases_s"][name] > 0 for name in PHASES)
        steps = {name: seconds for name, seconds in found["phases_s"].items() if name not in ("evaluation", "saving")}
        assert 0 < sum(steps.values()) <= found["steps_s"] <= found["wall_s"]
        trace = json.loads(tiny_store.read_bytes(tiny_store.profile_path(stage.id, "trace.json")))
        names = [event.get("name") for event in trace["traceEvents"] if event.get("cat") == "user_annotation"]
        assert names.count("raysweep:forward") == LAST_TRACED - FIRST_TRACED + 1
        taken = {row["stage"]: row["steps"] for row in store_tables(tiny_store)["stages"].to_pylist()}
        assert found["steps"] == taken[stage.id] - LAST_TRACED - 1
    assert facts(tiny_store) == facts(expected)


@contextmanager
def process_left_in_disorder():
    """Every setting that a stage depends on, as a careless stage before it might have left it."""
    torch.manual_seed(99)
    random.seed(99)
    numpy.random.seed(99)
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_num_threads(3)
    torch.use_deterministic_algorithms(False)
    torch.set_float32_matmul_precision("medium")
    torch.set_autocast_enabled("cpu", True)
    torch.set_grad_enabled(False)
    try:
        yield
    finally:
        prepare_runtime(0, "float32", 1)


def test_a_stage_gives_the_same_bits_in_a_process_that_others_have_used(undisturbed, tiny_store):
    expected, plan = undisturbed
    for stage in plan.stages.values():
        with process_left_in_disorder():
            run(stage, tiny_store)
    assert facts(tiny_store) == facts(expected)


def test_a_stage_gives_the_same_bits_in_the_thread_of_a_worker(undisturbed, tiny_store):
    expected, plan = undisturbed
    thread = StageThread()
    with process_left_in_disorder():
        for stage in plan.stages.values():
            thread.start(partial(run_stage, stage, tiny_store, threads=1, attempt=1, beat=thread.beat), None)
            while isinstance(event := thread.next_event(60), Progress):
                pass
            assert event is None
    assert facts(tiny_store) == facts(expected)


def test_a_stage_whose_heart_stops_it_keeps_its_last_epoch_and_continues(undisturbed, tiny_store):
    expected, plan = undisturbed
    stage = pretrain_of(plan)
    ended: list[int] = []
    beats = iter(range(10**6))

    def stop_in_the_second_epoch() -> None:
        if ended and ended[-1] and next(beats) == 2:
            raise StageStopped

    progress = run_stage(stage, tiny_store, threads=1, attempt=1, beat=stop_in_the_second_epoch)
    with pytest.raises(StageStopped):
        ended.extend(event.epoch for event in progress)
    assert ended == [0, 1]
    assert tiny_store.exists(tiny_store.resume_path(stage.id))
    assert stage.id not in tiny_store.ledger()
    for each in plan.stages.values():
        run(each, tiny_store)
    assert facts(tiny_store) == facts(expected)


def test_another_seed_gives_other_results(undisturbed, tiny_study, tiny_store):
    expected, _ = undisturbed
    plan = plan_of(tiny_study, tiny_store, {"grid.seed": [1]})
    for stage in plan.stages.values():
        run(stage, tiny_store)
    ours, theirs = (
        {(r["epoch"], r["metric"]): r["value"] for r in facts(store)["epochs"] if r["split"] == "train"}
        for store in (tiny_store, expected)
    )
    assert ours != theirs


def test_a_plan_that_needs_one_more_snapshot_runs_the_stage_again_and_keeps_the_bytes(undisturbed, tiny_store):
    expected, plan = undisturbed
    stage = pretrain_of(plan)
    run(stage, tiny_store)
    grown = replace(stage, snapshots=(1, 2, 3))
    assert run(grown, tiny_store) == [0, 1, 2, 3, 3], "its epochs, then its end"
    assert tiny_store.ledger_record(stage.id).snapshots == (1, 2, 3)
    assert store_tables(tiny_store)["snapshots"].num_rows == 3
    for epoch in (1, 3):
        path = tiny_store.snapshot_path(stage.id, epoch)
        assert tiny_store.read_bytes(path) == expected.read_bytes(path)


def test_a_training_state_past_a_snapshot_that_is_now_asked_for_is_not_continued(undisturbed, tiny_store):
    stage = pretrain_of(undisturbed[1])
    interrupt_after(stage, tiny_store, 2)
    assert run(replace(stage, snapshots=(1, 2, 3)), tiny_store)[0] == 0
    assert tiny_store.snapshot_epochs(stage.id) == (1, 2, 3)


def test_a_corrupt_training_state_is_named_with_the_remedy(undisturbed, tiny_store):
    stage = pretrain_of(undisturbed[1])
    path = tiny_store.resume_path(stage.id)
    tiny_store.write_bytes(path, b"junk")
    with pytest.raises(StageError, match=f"{path} of stage .* is corrupt.*Delete it"):
        run(stage, tiny_store)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize(("kind", "loop"), [("pretrain", PretrainLoop), ("finetune", FinetuneLoop)])
def test_a_loss_that_is_not_finite_fails_the_stage_and_publishes_nothing(
    undisturbed, tiny_store, monkeypatch, kind, loop, bad
):
    stage = next(s for s in undisturbed[1].stages.values() if s.kind == kind)
    stage = replace(stage, parent=None, config={**stage.config, "start": {"random": True}})
    monkeypatch.setattr(loop, "train_epoch", lambda self: {"loss": bad, "lr": 0.1})
    with pytest.raises(StageError, match=r"loss is not finite in epoch 1 of stage .*lower the learning rate"):
        run(stage, tiny_store)
    for folder in ("ledger", "results", "snapshots", "resume"):
        assert tiny_store.list(folder) == []


def test_pretraining_changes_the_encoder_and_fine_tuning_starts_from_its_snapshot(undisturbed):
    store, plan = undisturbed
    stage = pretrain_of(plan)
    first, last = (read_snapshot(store, stage.id, epoch).encoder.model.state_dict() for epoch in (1, 3))
    assert any(not torch.equal(first[key], last[key]) for key in first if key.endswith("weight"))
    for finetune in (s for s in plan.stages.values() if s.kind == "finetune"):
        runtime = prepare_runtime(0, "float32", 1)
        inside = FinetuneLoop(finetune, store, runtime, 1).task.encoder_module().state_dict()
        expected = first if finetune.parent.epoch == 1 else last
        for key, value in inside.items():
            assert torch.equal(value, expected[key.removeprefix("model.")])


@pytest.mark.parametrize("method", ["simclr", "byol"])
def test_every_parameter_and_statistic_of_the_encoder_is_trained(tiny_study, tiny_store, method):
    stage = pretrain_of(plan_of(tiny_study, tiny_store, {"grid.method": [method]}))
    loop = PretrainLoop(stage, tiny_store, prepare_runtime(0, "float32", 1), 1)
    before = {key: value.clone() for key, value in loop.method.encoder().model.state_dict().items()}
    loop.history.epoch = 1
    loop.train_epoch()
    after = loop.method.encoder().model.state_dict()
    assert not [key for key, value in before.items() if torch.equal(value, after[key])]


def test_frozen_tuning_leaves_the_encoder_and_its_statistics_as_they_are(undisturbed, tiny_study, tiny_store):
    for tuning, changes in (("frozen", False), ("full", True)):
        plan = plan_of(tiny_study, tiny_store, {"grid.tuning": [tuning]})
        stage = replace(finetune_of(plan), parent=None, config={**finetune_of(plan).config, "start": {"random": True}})
        loop = FinetuneLoop(stage, tiny_store, prepare_runtime(0, "float32", 1), 1)
        before = {key: value.clone() for key, value in loop.network.state_dict().items()}
        loop.history.epoch = 1
        loop.train_epoch()
        loop.end_epoch()
        after = loop.network.state_dict()
        changed = {key for key in before if not torch.equal(before[key], after[key])}
        assert any(key.startswith("encoder.") for key in changed) == changes
        assert any(key.startswith("segmentation_head.") for key in changed)


@pytest.mark.parametrize(("steps", "per_epoch"), [("same", math.ceil(32 / 4)), ("natural", math.ceil(3 / 4))])
def test_steps_are_those_of_the_whole_set_or_of_the_subset(tiny_study, tiny_store, steps, per_epoch):
    changes = {
        "tasks.heart.training.steps": steps,
        "grid.source": ["random"],
        "grid.method": [],
        "grid.pretrain_epochs": [],
    }
    run(finetune_of(plan_of(tiny_study, tiny_store, changes)), tiny_store)
    row = facts(tiny_store)["stages"][0]
    assert (row["steps"], row["images"], row["num_train"]) == (3 * per_epoch, 3 * per_epoch * 4, 3)
    assert len(row["train_subset"]) == 3


def test_published_budget_repeats_the_subset_and_drops_the_smaller_batch(tiny_study, tiny_store):
    changes = {"tasks.heart.training.steps": "kalapos2022", "grid.source": ["random"], **NO_PRETRAINING}
    stage = finetune_of(plan_of(tiny_study, tiny_store, changes))
    loop = FinetuneLoop(stage, tiny_store, prepare_runtime(0, "float32", 1), 1)
    assert loop.steps_per_epoch == 3 * int(32 / 3) // 4
    order = loop._draw_order(loop.steps_per_epoch * 4).tolist()
    assert sorted(set(order)) == [0, 1, 2]
    assert max(order.count(position) for position in set(order)) <= int(32 / 3)
    assert sorted(order[:3]) != [0, 1, 2] or sorted(order[3:6]) != [0, 1, 2], "one order of all the repetitions"


def test_every_source_learns_from_the_same_slices_at_a_seed_and_they_are_recorded(undisturbed):
    store, _ = undisturbed
    rows = [row for row in facts(store)["stages"] if row["kind"] == "finetune"]
    assert len(rows) == 2
    assert len({tuple(row["train_subset"]) for row in rows}) == 1
    assert len(rows[0]["train_subset"]) == rows[0]["num_train"] == 3


def test_the_best_validated_epoch_is_the_one_tested(undisturbed):
    store, plan = undisturbed
    tables = facts(store)
    for stage in (s for s in plan.stages.values() if s.kind == "finetune"):
        scores = {
            r["epoch"]: r["value"]
            for r in tables["epochs"]
            if (r["stage"], r["split"], r["metric"]) == (stage.id, "val", "dice")
        }
        row = next(r for r in tables["stages"] if r["stage"] == stage.id)
        assert row["val_score"] == max(scores.values()) == scores[row["best_epoch"]]
        cases = [c for c in tables["cases"] if c["stage"] == stage.id]
        by_slice: dict[tuple, list[float]] = {}
        for case in cases:
            if case["class_index"] and case["dice"] is not None:
                by_slice.setdefault((case["volume"], case["frame"], case["slice_number"]), []).append(case["dice"])
        means = [sum(values) / len(values) for values in by_slice.values()]
        assert row["test_score"] == pytest.approx(sum(means) / len(means), abs=1e-12)


def test_validation_happens_as_often_as_asked_and_after_the_last_epoch(tiny_study, tiny_store):
    changes = {
        "tasks.heart.training.evaluate_every": 2,
        "grid.source": ["random"],
        "grid.method": [],
        "grid.pretrain_epochs": [],
    }
    run(finetune_of(plan_of(tiny_study, tiny_store, changes)), tiny_store)
    assert {r["epoch"] for r in facts(tiny_store)["epochs"] if r["split"] == "val"} == {2, 3}


@pytest.mark.parametrize("precision", ["float16", "tf32"])
def test_arithmetic_of_gpus_is_refused_on_a_cpu(precision):
    if torch.cuda.is_available():
        pytest.skip("this machine computes in float16")
    with pytest.raises(StageError, match=f"{precision} needs a GPU"):
        prepare_runtime(0, precision, 1)


@pytest.mark.parametrize("tuning", ["probe-then-full", "last-stages", "layer-decay"])
def test_a_stage_of_every_tuning_mode_resumes_to_the_same_bits(undisturbed, tiny_study, tmp_path, tuning):
    expected, _ = undisturbed
    plan = plan_of(tiny_study, expected, {"grid.tuning": [tuning]})
    stage = replace(finetune_of(plan), parent=None, config={**finetune_of(plan).config, "start": {"random": True}})
    scores = []
    for name in ("whole", "cut"):
        store = Store(tmp_path / name).prepare()
        if name == "cut":
            interrupt_after(stage, store, 1)
            torch.rand(7)
        run(stage, store)
        scores.append(facts(store)["cases"])
    assert scores[0] == scores[1]


def test_low_rank_tuning_trains_a_hybrid_encoder_to_its_end(tiny_study, tiny_store):
    changes = {"grid.tuning": ["lora"], "grid.source": ["random"], **NO_PRETRAINING}
    encoder = {"backbones.small.encoder": "pvt_v2_b0", "tasks.heart.decoder_channels": [16, 8, 8, 8]}
    plan = plan_of(tiny_study, tiny_store, {**changes, **encoder, "tasks.heart.training.epochs": 1})
    run(finetune_of(plan), tiny_store)
    assert facts(tiny_store)["ledger"][0][1] == "done"


def test_low_rank_tuning_of_a_convolutional_encoder_ends_the_launch_before_anything_runs(tiny_study, tiny_store):
    from raysweep.errors import StudyError
    from raysweep.sweep import run as run_study

    study = tiny_study({"grid.tuning": ["lora"], "grid.source": ["random"], **NO_PRETRAINING})
    with pytest.raises(StudyError, match="has no attention with linear projections"):
        run_study(study, store=tiny_store, executor="inline")
    assert tiny_store.ledger() == {}
