"""A lock on an object store, which has no kernel to release it: a lease that its holder renews.

Each claim is an object ``<lock>/<generation>.json`` that is created on the condition that it is not there
(``If-None-Match: *``): of several claimants of a generation one succeeds, and the highest generation holds the lock.
The holder renews its object every few seconds. Whoever wants the lock watches that object: if it changes, its holder
lives; if it has not changed for the length of a lease, by the watcher's own clock, the next generation is claimed. No
clocks of two machines are compared. A holder that was paused and finds a higher generation stops.

A server that ignores the condition is found out, since it lets the same object be created twice: there, the claimant
waits, and holds the lock if the object is still its own.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from raysweep.errors import StoreError
from raysweep.store.files import FileStamp

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class LeaseTimes:
    """How often a lease is renewed, when it has run out without a renewal, and how late writes may be."""

    renew_s: float = 10.0
    expires_s: float = 60.0
    settle_s: float = 5.0


TIMES = LeaseTimes()


class Objects(Protocol):
    """What a lease needs of an object store."""

    def read(self, path: str) -> bytes | None:
        """Return an object's bytes, or None."""

    def write(self, path: str, data: bytes) -> None:
        """Publish an object."""

    def create(self, path: str, data: bytes) -> bool:
        """Publish an object unless it is there; return whether it was published."""

    def delete(self, path: str) -> None:
        """Delete an object if it is there."""

    def stamps(self, folder: str) -> dict[str, FileStamp]:
        """Return objects with their stamps."""


class Lease:
    """Holds a lock while its block runs."""

    def __init__(self, objects: Objects, path: str, busy: str, times: LeaseTimes) -> None:
        self._objects = objects
        self._folder = path
        self._busy = busy
        self._times = times
        self._owner = {"owner": uuid.uuid4().hex, **_this_process()}
        self._renewals = 0
        self._generation = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew_always, name="lease", daemon=True)

    def __enter__(self) -> Lease:
        """Claim the lock.

        Raises:
            StoreError: if another process holds it, or was quicker.
        """
        held = self._highest()
        if held:
            self._outlast(held)
        self._claim(held + 1)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lock: delete this claim, and those of holders that are gone."""
        self._stop.set()
        self._thread.join()
        for path in self._objects.stamps(self._folder):
            if _generation(path) <= self._generation:
                self._objects.delete(path)

    def _outlast(self, generation: int) -> None:
        """Return once the holder of a generation is known to be gone; raise if it renews its claim."""
        path = self._path(generation)
        first = self._objects.read(path)
        holder = _parsed(first)
        if holder.get("machine") == self._owner["machine"] and not _is_alive(holder):
            return
        deadline = time.monotonic() + self._times.expires_s
        _LOG.warning(
            "%s may still be running on this store: waiting for a sign of life, or for %.0f s without one",
            _name_of(holder),
            self._times.expires_s,
        )
        while time.monotonic() < deadline:
            time.sleep(min(self._times.renew_s, 1.0))
            now = self._objects.read(path)
            if now is None:
                return  # it was released meanwhile
            if now != first:
                raise self._refusal(generation)

    def _claim(self, generation: int) -> None:
        path = self._path(generation)
        if not self._objects.create(path, self._content()):
            raise self._refusal(generation)
        self._generation = generation
        if self._objects.create(path, self._content()):  # the server ignores the condition
            time.sleep(self._times.settle_s)
            if _parsed(self._objects.read(path)).get("owner") != self._owner["owner"]:
                raise self._refusal(generation)
        if (highest := self._highest()) > generation:
            self._objects.delete(path)
            raise self._refusal(highest)

    def _refusal(self, generation: int) -> StoreError:
        holder = _parsed(self._objects.read(self._path(generation)))
        return StoreError(self._busy.format(holder=_name_of(holder)))

    def _renew_always(self) -> None:
        renewed_at = time.monotonic()
        while not self._stop.wait(self._times.renew_s):
            try:
                if self._highest() != self._generation:
                    break
                self._objects.write(self._path(self._generation), self._content())
                renewed_at = time.monotonic()
            except StoreError as error:
                _LOG.warning("cannot renew the lease: %s", error)
                if time.monotonic() - renewed_at > self._times.expires_s:
                    break
        if not self._stop.is_set():
            _LOG.error("another process has taken over the lock %s, or it could not be renewed: stopping", self._folder)
            _interrupt_main_thread()

    def _highest(self) -> int:
        return max(map(_generation, self._objects.stamps(self._folder)), default=0)

    def _path(self, generation: int) -> str:
        return f"{self._folder}/{generation:06d}.json"

    def _content(self) -> bytes:
        self._renewals += 1
        return json.dumps({**self._owner, "renewals": self._renewals}).encode()


def _interrupt_main_thread() -> None:
    """Interrupt the main thread as Ctrl-C does, also where it waits."""
    if (main := threading.main_thread().ident) is not None:
        signal.pthread_kill(main, signal.SIGINT)


def _generation(path: str) -> int:
    name = path.rsplit("/", 1)[-1].removesuffix(".json")
    return int(name) if name.isdigit() else 0


def _parsed(data: bytes | None) -> dict[str, Any]:
    try:
        value = json.loads(data or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _name_of(holder: dict[str, Any]) -> str:
    return f"process {holder['pid']} on {holder['host']}" if {"pid", "host"} <= holder.keys() else "unknown"


def _this_process() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "machine": _machine(),
        "started": _start_time(os.getpid()),
    }


def _machine() -> str:
    """Return what tells this boot of this machine, and this space of process ids on it, from any other."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return uuid.uuid4().hex  # never equal: nothing is known of other processes


def _start_time(pid: int) -> str:
    """Return when a process of this machine started, in ticks since the boot; empty if there is none."""
    try:
        facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if facts[0] == "Z" else facts[19]
    except (OSError, IndexError):
        return ""


def _is_alive(holder: dict[str, Any]) -> bool:
    """Whether the process that wrote a claim on this machine is still there."""
    return bool(holder.get("started")) and _start_time(int(holder["pid"])) == holder["started"]
