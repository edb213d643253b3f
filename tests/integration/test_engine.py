from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from raysweep.engine import dispatch
from raysweep.engine.launch import Launch, Outcome
from raysweep.engine.tune import TuneExecutor
from raysweep.errors import StudyError
from raysweep.store import Store
from tests.fake_stages import RUNNER, Fake, events, fake_plan, wait_for_event

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store").prepare()


@pytest.fixture(scope="module")
def mixed(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Store]:
    """One launch of stages that overlap, fail, recover and do not fit: starting workers is what takes the time."""
    store = Store(tmp_path_factory.mktemp("mixed")).prepare()
    outcome = run(
        store,
        Fake("long", epochs=8, waits_for="early"),
        Fake("early", parent=("long", 2)),
        Fake("late", parent=("long", 8)),
        Fake("broken", epochs=3, fails_in_attempts=(1, 2, 3)),
        Fake("before", parent=("broken", 1)),
        Fake("after", parent=("broken", 3), epochs=2),
        Fake("long after", parent=("after", 2)),
        Fake("recovers", fails_in_attempts=(1, 2)),
        Fake("unrelated"),
        Fake("huge", kind="pretrain"),
        Fake("needs huge", parent=("huge", 1)),
        attempts=3,
        pretrain_cpus=64,
    )
    return outcome, store


def run(store: Store, *fakes: Fake, attempts: int = 1, pretrain_cpus: float = 1) -> Outcome:
    plan = fake_plan(fakes, {"pretrain": {"cpus": pretrain_cpus}, "attempts": attempts, "backoff_s": 0})
    return TuneExecutor(runner=RUNNER).run(Launch(plan, store))


def times(store: Store, what: str, *names: str) -> list[float]:
    return [event.time_s for event in events(store) if event.what == what and event.name in names]


def test_dependent_starts_while_its_own_parent_still_runs(mixed):
    _, store = mixed
    first_snapshot, last_snapshot = times(store, "snapshot", "long")
    (parent_ends,) = times(store, "end", "long")
    assert first_snapshot < times(store, "begin", "early")[0] < times(store, "end", "early")[0] < parent_ends
    assert times(store, "begin", "late")[0] > last_snapshot


def test_failed_stage_skips_its_dependents_and_the_others_go_on(mixed):
    outcome, store = mixed
    reason = "RuntimeError: broken fails in attempt 3"
    assert outcome.failed["broken"] == reason
    for name in ("after", "long after"):
        assert outcome.skipped[name] == f"because broken failed: {reason}"
    ended = {event.name for event in events(store) if event.what == "end"}
    assert ended == {"long", "early", "late", "before", "recovers", "unrelated"}
    assert outcome.done == len(ended)
    (trace,) = [record.traceback for record in store.ledger().values() if record.error == reason]
    assert "in run_fake_stage" in (trace or "")


def test_stage_is_tried_as_often_as_allowed_and_no_more(mixed):
    outcome, store = mixed
    assert set(outcome.failed) == {"broken", "huge"}
    for name in ("recovers", "broken"):
        assert [event.attempt for event in events(store) if event.name == name and event.what == "begin"] == [1, 2, 3]
    attempts = {record.attempt for record in store.ledger().values() if record.error == outcome.failed["broken"]}
    assert attempts == {3}


def test_stage_that_no_node_can_hold_fails_with_the_nodes_in_its_message(mixed):
    outcome, _ = mixed
    assert "no node has room for {'CPU': 64.0}" in outcome.failed["huge"]
    assert "'CPU': 2.0" in outcome.failed["huge"]
    assert outcome.skipped["needs huge"].startswith("because huge failed: no node has room")


def test_large_request_is_not_starved_by_small_ones(store, monkeypatch):
    monkeypatch.setattr(dispatch, "WORKER_START_S", 0.0)  # else the small ones may go first for so long: warm workers
    small = [f"small {number}" for number in range(8)]
    outcome = run(
        store,
        Fake("opener"),
        Fake("large", parent=("opener", 1), epochs=3, kind="pretrain"),
        *(Fake(name, epoch_s=0.2, waits_for="opener") for name in small),
        pretrain_cpus=2,
    )
    assert outcome.is_complete
    (started,) = times(store, "begin", "large")
    before = [begun for begun in times(store, "begin", *small) if begun < started]
    assert len(before) <= 3, "only what was on its way when the large stage became ready may start before it"


def test_stage_whose_worker_is_killed_is_tried_again(store):
    killed: list[int] = []

    def kill_first_attempt() -> None:
        victim = wait_for_event(store, "snapshot", "victim")
        os.kill(victim.pid, signal.SIGKILL)
        killed.append(victim.pid)

    killer = threading.Thread(target=kill_first_attempt)
    killer.start()
    outcome = run(
        store,
        Fake("victim", epochs=6, epoch_s=0.3),
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


def test_launch_in_which_no_stage_fits_ends_instead_of_hanging(store):
    outcome = run(store, Fake("huge", kind="pretrain"), pretrain_cpus=64)
    assert list(outcome.failed) == ["huge"]
    assert events(store) == []


def test_every_slot_is_used_by_stages_shorter_than_the_start_of_a_worker(store):
    outcome = run(store, *(Fake(f"short {number}", epoch_s=0.05) for number in range(400)))
    assert outcome.is_complete
    assert len({event.pid for event in events(store) if event.what == "begin"}) == 2


def test_launch_that_may_not_start_runs_nothing(store):
    def refuse() -> None:
        raise StudyError("weights do not fit")

    with pytest.raises(StudyError, match="weights do not fit"):
        TuneExecutor(runner=RUNNER).run(Launch(fake_plan([Fake("a")]), store), refuse)
    assert events(store) == []
    assert run(store, Fake("a")).done == 1  # Ray is as it was
