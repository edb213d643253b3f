"""The whole way through, without Ray: launches that repeat, grow, fail and are retried."""

from __future__ import annotations

import pytest

from raysweep import sweep
from raysweep.data.pack import open_pack
from raysweep.data.subsets import annotation_subset
from raysweep.errors import StageError, StoreError, StudyError
from raysweep.stages.finetune import FinetuneLoop
from raysweep.sweep import open_store, plan, run
from tests.facts import facts

SMALL = {"grid.pretrain_epochs": [1], "tasks.heart.training.epochs": 1}
RANDOM_ONLY = {**SMALL, "grid.source": ["random"], "grid.method": [], "grid.pretrain_epochs": []}


def launch(study, store, **options):
    return run(study, store=store, executor="inline", **options)


def parts(store) -> dict[str, bytes]:
    return {path: store.read_bytes(path) for path in store.list("") if not path.startswith(("results/cells", "driver"))}


def test_a_second_launch_does_nothing_and_a_grown_grid_runs_only_what_is_new(tiny_study, tiny_store, monkeypatch):
    first = launch(tiny_study(SMALL), tiny_store)
    assert first.outcome.is_complete
    assert first.outcome.done == 3
    before = parts(tiny_store)
    with monkeypatch.context() as patch:
        patch.setattr(sweep, "measured_rates", lambda *_: pytest.fail("rates are read although nothing is left to run"))
        assert launch(tiny_study(SMALL), tiny_store).outcome.done == 0
    assert parts(tiny_store) == before
    grown = launch(tiny_study({**SMALL, "grid.annotations": [4, 8]}), tiny_store)
    assert grown.outcome.done == 2
    after = parts(tiny_store)
    assert {path: after[path] for path in before} == before
    assert {t["status"] for t in grown.tables().trials().to_pylist()} == {"done"}
    assert grown.tables().trials().num_rows == 4
    assert open_store(tiny_store.uri).trials().num_rows == 4


def test_studies_share_the_stages_they_have_in_common(tiny_study, tiny_store):
    launch(tiny_study(RANDOM_ONLY), tiny_store)
    other = launch(tiny_study({**RANDOM_ONLY, "study": "other", "grid.seed": [0, 1]}), tiny_store)
    assert other.outcome.done == 1
    assert open_store(tiny_store.uri).trials("other").num_rows == 2
    with pytest.raises(StoreError, match="has no study 'neither'"):
        open_store(tiny_store.uri).trials("neither")


def test_a_failed_stage_leaves_the_others_going_and_is_retried_only_when_asked(tiny_study, tiny_store, monkeypatch):
    study = tiny_study({**RANDOM_ONLY, "grid.seed": [0, 1, 2]})
    train = FinetuneLoop.train_epoch

    def failing(self):
        if self.config["seed"] == 1:
            raise StageError("the device is on fire")
        return train(self)

    monkeypatch.setattr(FinetuneLoop, "train_epoch", failing)
    outcome = launch(study, tiny_store).outcome
    assert outcome.done == 2
    assert not outcome.is_complete
    assert ["on fire" in reason for reason in outcome.failed.values()] == [True]
    record = next(r for r in tiny_store.ledger().values() if r.status == "failed")
    assert "on fire" in record.error
    assert "Traceback" in record.traceback
    assert "in failing" in record.traceback
    failed = [t for t in open_store(tiny_store.uri).trials().to_pylist() if t["status"] == "failed"]
    assert [(t["seed"], "on fire" in t["error"]) for t in failed] == [(1, True)]
    monkeypatch.undo()
    again = launch(study, tiny_store).outcome
    assert (again.done, len(again.failed)) == (0, 1)
    retried = launch(study, tiny_store, retry_failed=True).outcome
    assert (retried.done, retried.is_complete) == (1, True)
    assert tiny_store.ledger_record(record.stage).status == "done"


def test_a_failed_pretraining_skips_what_hangs_on_it_with_the_reason(tiny_study, tiny_store, monkeypatch):
    def failing(self):
        raise StageError("no memory")

    monkeypatch.setattr("raysweep.stages.pretrain.PretrainLoop.train_epoch", failing)
    outcome = launch(tiny_study({**SMALL, "resources.attempts": 2}), tiny_store).outcome
    assert outcome.done == 1
    assert list(outcome.skipped.values()) == [
        f"because {name} failed: {reason}" for name, reason in outcome.failed.items()
    ]
    assert [r.attempt for r in tiny_store.ledger().values() if r.status == "failed"] == [2]


def test_planning_runs_nothing(tiny_study, tiny_store):
    planned = plan(tiny_study(), store=tiny_store)
    assert len(planned.cells) == 3
    assert tiny_store.list("results") == tiny_store.list("ledger") == []


def test_overrides_of_a_study_built_in_python_are_refused(tiny_study, tiny_store):
    with pytest.raises(StudyError, match="overrides"):
        plan(tiny_study(), store=tiny_store, set=["grid.seed=[1]"])


def test_a_data_set_is_packed_into_the_store_once(tiny_study, tiny_store):
    changes = {
        "packs.cardiac": {
            "dataset": "synthetic-cardiac",
            "options": {"patients": 12, "slices": 1, "frames": 2, "size_px": [40, 44]},
        }
    }
    first = plan(tiny_study(changes), store=tiny_store)
    pack = next(path for path in tiny_store.list("packs"))
    written = tiny_store.local_path(pack).stat().st_mtime_ns
    assert plan(tiny_study(changes), store=tiny_store).stages.keys() == first.stages.keys()
    assert tiny_store.list("packs") == [pack]
    assert tiny_store.local_path(pack).stat().st_mtime_ns == written


@pytest.mark.parametrize("unit", ["slice", "volume", "subject"])
def test_nested_subsets_grow_by_whole_units_and_independent_ones_are_drawn_anew(cardiac_pack, unit):
    pack = open_pack(cardiac_pack)
    total = {"slice": 32, "volume": 16, "subject": 8}[unit]
    rows = {n: set(annotation_subset(pack, n, unit=unit, seed=3).tolist()) for n in range(1, total + 1)}
    for n in range(1, total):
        assert rows[n] < rows[n + 1]
        assert len(rows[n]) == n * 32 // total
    assert rows[total] == set(pack.select(split="train", annotated=True).tolist())
    anew = set(annotation_subset(pack, total // 2, unit=unit, seed=3, drawing="anew").tolist())
    assert anew != rows[total // 2]
    assert rows[2] != set(annotation_subset(pack, 2, unit=unit, seed=4).tolist())


@pytest.mark.parametrize("lost", ["results/cases", "results/stages", "results/epochs", "snapshots"])
def test_lost_part_file_reruns_only_that_stage(tiny_study, tiny_store, lost):
    study = tiny_study(SMALL)
    launch(study, tiny_store)
    before = facts(tiny_store)
    tiny_store.delete(tiny_store.list(lost)[0])
    assert launch(study, tiny_store).outcome.done == 1
    assert facts(tiny_store) == before
