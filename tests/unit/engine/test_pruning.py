from __future__ import annotations

import pytest

from raysweep.engine.inline import InlineExecutor
from raysweep.engine.launch import Launch
from raysweep.engine.pruning import Pruner
from raysweep.planning import Stage
from raysweep.store import Store
from raysweep.study import Pruning
from tests.fake_stages import Fake, fake_plan, run_fake_stage

ASHA = {"scheduler": "asha", "grace_epochs": 2, "reduction_factor": 2}
FAKES = [Fake(f"{score}", epochs=8, val_score=score) for score in (0.9, 0.1, 0.8, 0.2, 0.7, 0.05)]


def stage(name: str, annotations: int = 1, kind="finetune") -> Stage:
    config = {
        "task": {"kind": "segmentation", "settings": {"metric": "dice"}},
        "backbone": {"encoder": "resnet18"},
        "tuning": "full",
        "annotations": annotations,
        "pack": "p",
    }
    return Stage(name, kind, name, config, None, 9, {})


def decisions(pruner: Pruner, scores: dict[str, float], **options) -> dict[str, bool]:
    return {name: pruner.stops(stage(name, **options), 1, {"val/dice": score}) for name, score in scores.items()}


@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_fine_tunings_that_fall_behind_are_stopped(scheduler):
    pruner = Pruner(Pruning(scheduler=scheduler, grace_epochs=1, reduction_factor=2, min_samples=1))
    good = {f"good {number}": 0.9 + number / 100 for number in range(4)}
    assert not any(decisions(pruner, good).values())
    assert pruner.stops(stage("bad"), 1, {"val/dice": 0.1})


def test_other_annotation_counts_are_another_competition():
    pruner = Pruner(Pruning(scheduler="asha", grace_epochs=1, reduction_factor=2))
    decisions(pruner, {f"good {number}": 0.9 for number in range(4)}, annotations=80)
    assert not pruner.stops(stage("few", annotations=5), 1, {"val/dice": 0.1})


def test_epochs_without_validation_the_last_epoch_and_pretrainings_are_left_alone():
    pruner = Pruner(Pruning(scheduler="asha", grace_epochs=1, reduction_factor=2))
    decisions(pruner, {f"good {number}": 0.9 for number in range(4)})
    assert not pruner.stops(stage("bad"), 1, {"train/loss": 3.0})
    assert not pruner.stops(stage("bad"), 9, {"val/dice": 0.1})
    assert not pruner.stops(stage("bad", kind="pretrain"), 1, {"val/dice": 0.1})


def test_a_stopped_stage_is_recorded_kept_and_continued_only_without_the_scheduler(tiny_store: Store, monkeypatch):
    from raysweep.stages import run

    monkeypatch.setattr(run, "run_stage", run_fake_stage)
    outcome = InlineExecutor().run(Launch(fake_plan(FAKES, stop={"pruning": ASHA}), tiny_store))
    assert outcome.is_complete
    assert 0 < outcome.stopped < len(FAKES)
    stopped = [record for record in tiny_store.ledger().values() if record.status == "stopped"]
    assert len(stopped) == outcome.stopped
    again = InlineExecutor().run(Launch(fake_plan(FAKES, stop={"pruning": ASHA}), tiny_store))
    assert (again.done, again.stopped) == (0, outcome.stopped)
    whole = InlineExecutor().run(Launch(fake_plan(FAKES), tiny_store))
    assert (whole.done, whole.stopped) == (outcome.stopped, 0)
