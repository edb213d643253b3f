from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from raysweep.errors import StoreError
from raysweep.store import lease
from raysweep.store.files import FileStamp
from raysweep.store.lease import Lease, LeaseTimes

QUICK = LeaseTimes(renew_s=0.05, expires_s=1.0, settle_s=0.2)
BUSY = "in use by {holder}"


class Memory:
    """An object store in memory; ``conditional`` says whether it heeds conditions."""

    def __init__(self, *, conditional: bool = True) -> None:
        self.objects: dict[str, bytes] = {}
        self.is_down = False
        self._conditional = conditional
        self._lock = threading.Lock()

    def read(self, path: str) -> bytes | None:
        return self.objects.get(path)

    def write(self, path: str, data: bytes) -> None:
        if self.is_down:
            raise StoreError("down")
        self.objects[path] = data

    def create(self, path: str, data: bytes) -> bool:
        with self._lock:
            if self._conditional and path in self.objects:
                return False
            self.objects[path] = data
            return True

    def delete(self, path: str) -> None:
        self.objects.pop(path, None)

    def stamps(self, folder: str) -> dict[str, FileStamp]:
        return {path: FileStamp(1, 0) for path in sorted(self.objects) if path.startswith(f"{folder}/")}


@pytest.fixture
def interrupted(monkeypatch) -> threading.Event:
    """Set where a holder would interrupt its process."""
    event = threading.Event()
    monkeypatch.setattr(lease, "_interrupt_main_thread", event.set)
    return event


@pytest.fixture
def elsewhere(monkeypatch) -> None:
    """Claims look as if other machines made them."""
    machines = iter(range(1000))
    monkeypatch.setattr(lease, "_machine", lambda: str(next(machines)))


def take(memory: Memory) -> Lease:
    return Lease(memory, "driver.lock", BUSY, QUICK)


@pytest.mark.parametrize("conditional", [True, False])
def test_of_several_claimants_one_succeeds(conditional, elsewhere):
    memory = Memory(conditional=conditional)
    together = threading.Barrier(8)
    release = threading.Event()
    outcomes = []

    def claim(_: int) -> None:
        together.wait()
        try:
            with take(memory):
                outcomes.append("held")
                if len(outcomes) < 8:
                    release.wait(20)
        except StoreError as error:
            outcomes.append(str(error))
        if len(outcomes) == 8:
            release.set()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(claim, range(8)))
    assert outcomes.count("held") == 1
    assert all(text.startswith("in use by process") for text in outcomes if text != "held")
    assert memory.objects == {}


def test_living_holder_on_another_machine_is_not_replaced(elsewhere):
    memory = Memory()
    with take(memory), pytest.raises(StoreError, match="in use by process"), take(memory):
        pass


def test_dead_holder_on_another_machine_is_replaced_when_its_lease_has_run_out(elsewhere):
    memory = Memory()
    memory.objects["driver.lock/000003.json"] = b'{"pid": 1, "host": "gone", "machine": "x", "renewals": 7}'
    begin = time.monotonic()
    with take(memory):
        assert time.monotonic() - begin >= QUICK.expires_s
        assert "driver.lock/000004.json" in memory.objects
    assert memory.objects == {}


def test_dead_holder_on_this_machine_is_replaced_at_once(monkeypatch):
    memory = Memory()
    dead = b'{"pid": 4194304, "host": "here", "machine": "%s", "started": "12"}' % lease._machine().encode()
    memory.objects["driver.lock/000001.json"] = dead
    monkeypatch.setattr(lease.time, "sleep", lambda _: pytest.fail("nothing to wait for"))
    with take(memory):
        assert "driver.lock/000002.json" in memory.objects


def test_claim_that_cannot_be_read_runs_out_too(elsewhere):
    memory = Memory()
    memory.objects["driver.lock/000001.json"] = b"\xff"
    with take(memory):
        assert "driver.lock/000002.json" in memory.objects


def test_holder_that_was_replaced_stops(interrupted):
    memory = Memory()
    with take(memory):
        memory.objects["driver.lock/000002.json"] = b"{}"
        assert interrupted.wait(10)
    assert list(memory.objects) == ["driver.lock/000002.json"], "the new holder's claim stays"


def test_holder_that_cannot_renew_for_the_length_of_a_lease_stops(interrupted):
    memory = Memory()
    with take(memory):
        memory.is_down = True
        assert interrupted.wait(30)
        memory.is_down = False


def test_holder_that_misses_some_renewals_goes_on(interrupted):
    memory = Memory()
    with take(memory):
        memory.is_down = True
        time.sleep(3 * QUICK.renew_s)
        memory.is_down = False
        before = memory.objects["driver.lock/000001.json"]
        deadline = time.monotonic() + 10
        while memory.objects["driver.lock/000001.json"] == before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert memory.objects["driver.lock/000001.json"] != before
    assert not interrupted.is_set()
