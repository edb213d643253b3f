from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from raysweep.engine.executor import Outcome
from raysweep.engine.queue import StageQueue
from raysweep.engine.tune import TuneExecutor
from raysweep.store import Store
from tests.fake_stages import RUNNER, Event, Fake, events, fake_plan

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store").prepare()


def run(store: Store, *fakes: Fake, attempts: int = 1, pretrain_cpus: float = 1) -> Outcome:
    plan = fake_plan(fakes, {"pretrain": {"cpus": pretrain_cpus}, "attempts": attempts})
    queue = StageQueue(plan, store.ledger(), attempts=attempts)
    return TuneExecutor(runner=RUNNER).run(plan, queue, store)


def times(store: Store, what: str, *names: str) -> list[float]:
    return [event.time_s for event in events(store) if event.what == what and event.name in names]


def wait_for(store: Store, condition: Callable[[Event], bool], timeout_s: float = 60) -> Event:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := next(filter(condition, events(store)), None):
            return found
        time.sleep(0.05)
    raise TimeoutError(f"no such event within {timeout_s} s; there were {events(store)}")


def test_dependent_starts_while_its_own_parent_still_runs(store):
    outcome = run(
        store,
        Fake("pretraining", epochs=20, epoch_s=0.4, kind="pretrain"),
        Fake("early", parent=("pretraining", 2)),
        Fake("late", parent=("pretraining", 20)),
    )
    assert outcome.is_complete
    assert outcome.done == 3
    first_snapshot, last_snapshot = times(store, "snapshot", "pretraining")
    (parent_ends,) = times(store, "end", "pretraining")
    assert first_snapshot < times(store, "begin", "early")[0] < times(store, "end", "early")[0] < parent_ends
    assert times(store, "begin", "late")[0] > last_snapshot


def test_failed_stage_skips_its_dependents_and_the_others_go_on(store):
    outcome = run(
        store,
        Fake("broken", epochs=3, fails_in_attempts=(1,), kind="pretrain"),
        Fake("before", parent=("broken", 1)),
        Fake("after", parent=("broken", 3), epochs=2),
        Fake("long after", parent=("after", 2)),
        Fake("unrelated"),
    )
    reason = "RuntimeError: broken fails in attempt 1"
    assert outcome.failed == {"broken": reason}
    assert outcome.skipped == dict.fromkeys(("after", "long after"), f"because broken failed: {reason}")
    assert outcome.done == 2
    assert {event.name for event in events(store) if event.what == "end"} == {"before", "unrelated"}
    (failed,) = [record for record in store.ledger().values() if record.status == "failed"]
    assert "in run_fake_stage" in (failed.traceback or "")


def test_large_request_is_not_starved_by_small_ones(store):
    small = [Fake(f"small {number}", epoch_s=0.3) for number in range(12)]
    outcome = run(
        store,
        Fake("opener", epoch_s=0.3, kind="finetune"),
        Fake("large", parent=("opener", 1), epochs=3, kind="pretrain"),
        *small,
        pretrain_cpus=2,
    )
    assert outcome.is_complete
    (ready,), (started,) = times(store, "snapshot", "opener"), times(store, "begin", "large")
    overtaking = [begun for begun in times(store, "begin", *(fake.name for fake in small)) if ready < begun < started]
    assert len(overtaking) <= 1, "only what was already on its way may start before the large stage"
    assert len([begun for begun in times(store, "begin", *(fake.name for fake in small)) if begun > started]) >= 8


def test_stage_whose_worker_is_killed_is_tried_again(store):
    killed: list[int] = []

    def kill_first_attempt() -> None:
        victim = wait_for(store, lambda event: event.what == "snapshot" and event.name == "victim")
        os.kill(victim.pid, signal.SIGKILL)
        killed.append(victim.pid)

    killer = threading.Thread(target=kill_first_attempt)
    killer.start()
    outcome = run(
        store,
        Fake("victim", epochs=6, epoch_s=0.3, kind="pretrain"),
        Fake("early", parent=("victim", 1)),
        Fake("last", parent=("victim", 6)),
        Fake("bystander", epochs=4, epoch_s=0.3),
        attempts=2,
    )
    killer.join()
    assert outcome.is_complete
    begun = [(event.attempt, event.pid in killed) for event in events(store) if event.name == "victim"]
    assert begun[0] == (1, True)
    assert begun[-1] == (2, False)
    assert len(times(store, "end", "early", "last", "bystander")) == 3


def test_stage_that_no_node_can_hold_fails_with_the_nodes_in_its_message(store):
    outcome = run(
        store,
        Fake("huge", kind="pretrain"),
        Fake("dependent", parent=("huge", 1)),
        Fake("fits"),
        pretrain_cpus=64,
    )
    assert outcome.done == 1
    assert "no node has room for {'CPU': 64.0}" in outcome.failed["huge"]
    assert "'CPU': 2.0" in outcome.failed["huge"]
    assert outcome.skipped["dependent"].startswith("because huge failed: no node has room")


def test_launch_in_which_no_stage_fits_ends_instead_of_hanging(store):
    outcome = run(store, Fake("huge", kind="pretrain"), pretrain_cpus=64)
    assert list(outcome.failed) == ["huge"]
    assert events(store) == []


def test_stage_is_tried_as_often_as_allowed_and_no_more(store):
    outcome = run(
        store,
        Fake("recovers", fails_in_attempts=(1, 2)),
        Fake("hopeless", fails_in_attempts=(1, 2, 3, 4)),
        attempts=3,
    )
    assert outcome.failed == {"hopeless": "RuntimeError: hopeless fails in attempt 3"}
    for name in ("recovers", "hopeless"):
        assert [event.attempt for event in events(store) if event.name == name and event.what == "begin"] == [1, 2, 3]
    assert {record.status: record.attempt for record in store.ledger().values()} == {"done": 3, "failed": 3}
