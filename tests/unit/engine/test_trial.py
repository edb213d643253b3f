"""Stages as trials of Tune, without a cluster."""

from __future__ import annotations

import gc
import json
import tracemalloc

import pytest

from raysweep.engine import trial as module
from raysweep.engine.trainable import REPORT, StageTrainable
from raysweep.engine.trial import Report, StageTrial, placement, report_in
from raysweep.stages.failure import Failure
from raysweep.stages.progress import Progress


def text_of(**changes) -> str:
    values = {"events": [], "ended": False, "failure": None, "node": "n"}
    return json.dumps({**values, **changes})


def test_a_report_says_what_a_worker_sent():
    events = [{"epoch": 3, "snapshots": [1, 3], "metrics": {"val/dice": 0.5}}]
    failure = {"reason": "broken", "kind": "error", "traceback": "", "host": "h"}
    report = report_in({REPORT: text_of(events=events, ended=True, failure=failure)})
    assert report.events == (Progress(3, (1, 3), {"val/dice": 0.5}),)
    assert report.has_ended
    assert report.failure == Failure("broken", "error", "", "h")
    assert report.node == "n"
    assert report_in({}) == Report()


def test_a_result_that_the_scheduler_has_seen_is_not_parsed_again(monkeypatch):
    parsed = []
    monkeypatch.setattr(module.json, "loads", lambda text, loads=json.loads: parsed.append(text) or loads(text))
    for node in ("a", "b"):
        result = {REPORT: text_of(node=node)}
        assert report_in(result) is report_in(dict(result))
    assert len(parsed) == 2


@pytest.fixture
def trial():
    from ray.tune.registry import register_trainable

    register_trainable("stages", StageTrainable)
    return StageTrial(
        "stages",
        trial_id="t",
        config={"stage": "large"},
        placement_group_factory=placement({"CPU": 1.0}, "n"),
        stub=True,
    )


def test_a_trial_that_has_ended_lets_go_of_its_configuration_and_results(trial):
    trial.update_last_result({"training_iteration": 1, REPORT: text_of()})
    assert not trial.forget()
    assert trial.config == {"stage": "large"}
    assert trial.last_result[REPORT] == text_of()
    trial.set_status(StageTrial.TERMINATED)
    assert trial.forget()
    assert trial.config == {}
    assert REPORT not in trial.last_result
    assert trial.run_metadata.checkpoint_manager.latest_checkpoint_result is None  # what Tune asks at the end


def test_equal_placements_are_one_object():
    assert placement({"CPU": 1.0, "GPU": 0.5}, "n") is placement({"GPU": 0.5, "CPU": 1.0}, "n")
    assert placement({"CPU": 1.0}, "n") is not placement({"CPU": 1.0}, "m")
    assert placement({"CPU": 1.0}, "n").required_resources == {"CPU": 1.0}


def test_what_is_left_of_an_ended_trial_is_small(trial):
    def ended(number: int) -> StageTrial:
        where = placement({"CPU": 1.0}, "n")
        config = {"stage": f"stage {number}" * 1000}
        new = StageTrial("stages", trial_id=f"t{number}", config=config, placement_group_factory=where, stub=True)
        new.update_last_result({"training_iteration": number, **{f"number {i}": float(i) for i in range(20)}})
        new.get_json_state()
        new.set_status(StageTrial.TERMINATED)
        assert new.forget()
        return new

    ended(0)  # what all of them share
    tracemalloc.start()
    try:
        kept = [ended(number) for number in range(1, 51)]
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held / len(kept) < 4000  # bytes; the configuration alone has 8,000
