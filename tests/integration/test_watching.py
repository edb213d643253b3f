"""What stages say reaches the store from Ray's workers as from this process, also where a stage fails."""

from __future__ import annotations

import pytest

from raysweep.engine.inline import InlineExecutor
from raysweep.engine.launch import Launch
from raysweep.engine.tune import TuneExecutor
from raysweep.report.logs import attempts, find_stage, read_log
from raysweep.store import Store
from tests.fake_stages import Fake, fake_plan, run_fake_stage

FAKES = [
    Fake("pretraining", epochs=2),
    Fake("heart", parent=("pretraining", 1)),
    Fake("recovers", epochs=2, fails_in_attempts=(1,)),
    Fake("fails", fails_in_attempts=(1, 2)),
]


def said(store: Store) -> dict[str, list[list[str]]]:
    """Return the messages of every attempt by stage, errors with the last line of their traceback."""
    found = {}
    for fake in FAKES:
        stage = find_stage(store, fake.name)
        logs = [read_log(store, stage, attempt.number) for attempt in attempts(store, stage)]
        found[fake.name] = [[_short(line) for line in log] for log in logs]
    return found


def _short(line: dict) -> str:
    return line["message"] + "".join(str(line.get("traceback", "")).splitlines()[-1:])


@pytest.mark.ray
def test_lines_are_the_same_whatever_the_executor(ray_session: None, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raysweep.stages.run.run_stage", run_fake_stage)
    stores = []
    for executor in (InlineExecutor(), TuneExecutor(runner="tests.fake_stages:run_fake_stage")):
        store = Store(tmp_path / type(executor).__name__).prepare()
        executor.run(Launch(fake_plan(FAKES, resources={"attempts": 2, "backoff_s": 0}), store))
        stores.append(store)
    inline, tune = map(said, stores)
    assert inline == tune
    assert inline["recovers"] == [
        ["begins", "epoch 1 of 2", "failedRuntimeError: recovers fails in attempt 1"],
        ["begins", "epoch 1 of 2", "epoch 2 of 2", "done"],
    ]
    assert [log[-1] for log in inline["fails"]] == [
        "failedRuntimeError: fails fails in attempt 1",
        "failedRuntimeError: fails fails in attempt 2",
    ]
