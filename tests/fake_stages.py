"""Stages that cost nothing and do what a test or a benchmark of the engine asks of them, and plans made of them.

A worker runs them through ``RUNNER``. They publish snapshots, a row of the stages table and a ledger record exactly
where the real ones do, and log when and in which process each attempt began, published, and ended.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raysweep.identity import content_id
from raysweep.planning.model import Kind, Parent, Plan, Stage, stage_to_json
from raysweep.results.write import write_part
from raysweep.stages.failure import stage_columns
from raysweep.stages.log import stage_context
from raysweep.stages.progress import Beat, Progress, StagePreempted, no_beat
from raysweep.store import LedgerRecord, Store
from raysweep.study import Study
from raysweep.study.load import validate_study

RUNNER = "tests.fake_stages:run_fake_stage"
_LOG = "fake_stages.jsonl"


@dataclass(frozen=True)
class Fake:
    """One fake stage; as it stands, it ends at once."""

    name: str
    parent: tuple[str, int] | None = None
    """Name of an earlier stage, and the epoch of the snapshot to start from."""
    epochs: int = 1
    epoch_s: float = 0.0
    """Seconds that each epoch sleeps."""
    fails_in_attempts: tuple[int, ...] = ()
    """Attempts that raise in their last epoch."""
    hangs_in_attempts: tuple[int, ...] = ()
    """Attempts that sleep for ever in their last epoch, without a sign of life."""
    waits_for: str | None = None
    """Name of a stage that has to end before this one takes its last epoch; it raises if that takes a minute."""
    val_score: float | None = None
    """Validation score of every epoch."""
    kind: Kind = "finetune"
    """Decides which of the plan's two requests for resources applies."""


@dataclass(frozen=True)
class Event:
    """Something a fake stage did."""

    what: str
    """begin, snapshot, preempted, hang or end."""
    name: str
    attempt: int
    pid: int
    time_s: float
    """Seconds since 1970."""
    node: str = ""
    """$FAKE_NODE where it ran."""


def fake_plan(
    fakes: Sequence[Fake], resources: Mapping[str, Any] | None = None, stop: Mapping[str, Any] | None = None
) -> Plan:
    """Return a plan of fake stages; ``resources`` and ``stop`` are the study's sections of those names."""
    stages: dict[str, Stage] = {}
    snapshots: dict[str, set[int]] = defaultdict(set)
    for fake in fakes:
        parent = None
        if fake.parent is not None:
            parent = Parent(_id_of(fake.parent[0]), fake.parent[1])
            snapshots[parent.stage].add(parent.epoch)
        stages[_id_of(fake.name)] = Stage(
            _id_of(fake.name), fake.kind, fake.name, _config_of(fake), parent, fake.epochs, inputs={}
        )
    planned = {
        key: Stage(**{**stage.__dict__, "snapshots": tuple(sorted(snapshots[key]))}) for key, stage in stages.items()
    }
    return Plan(_study(resources or {}, stop or {}), (), planned)


def run_fake_stage(
    stage: Stage,
    store: Store,
    *,
    threads: int,
    attempt: int,
    gpu_share: float = 1.0,
    ranks: int = 1,
    beat: Beat = no_beat,
) -> Iterator[Progress]:
    """Run a fake stage as ``run_stage`` runs a real one."""
    fake = stage.config["fake"]
    _log(store, "begin", stage, attempt)
    for epoch in range(1, stage.epochs + 1):
        try:
            _work(fake["epoch_s"], beat)
        except StagePreempted:
            _log(store, "preempted", stage, attempt)
            raise
        if epoch == stage.epochs and fake["waits_for"] is not None:
            wait_for_event(store, "end", fake["waits_for"])
        if epoch == stage.epochs and attempt in fake["fails_in_attempts"]:
            raise RuntimeError(f"{stage.name} fails in attempt {attempt}")
        if epoch == stage.epochs and attempt in fake["hangs_in_attempts"]:
            _log(store, "hang", stage, attempt)
            threading.Event().wait()
        published = (epoch,) if epoch in stage.snapshots else ()
        if published:
            store.write_bytes(store.snapshot_path(stage.id, epoch), b"")
            _log(store, "snapshot", stage, attempt)
        yield Progress(epoch, published, metrics=_metrics(fake["val_score"]))
    row = {**stage_columns(stage), "status": "done", "epochs": stage.epochs, "attempt": attempt, "threads": threads}
    write_part(store, "stages", stage.id, [row])
    snapshots = store.snapshot_epochs(stage.id)
    store.record(LedgerRecord(stage.id, "done", snapshots, attempt=attempt, host=socket.gethostname()))
    _log(store, "end", stage, attempt)


def _metrics(val_score: float | None) -> dict[str, float]:
    return {} if val_score is None else {"val/score": val_score}


def _work(seconds: float, beat: Beat) -> None:
    """Sleep, $FAKE_SLOWDOWN times as long, with a sign of life every fifth of a second, as optimiser steps give."""
    end = time.monotonic() + seconds * float(os.environ.get("FAKE_SLOWDOWN", "1"))
    while True:
        if beat():
            raise StagePreempted
        if (left := end - time.monotonic()) <= 0:
            return
        time.sleep(min(left, 0.2))


def events(store: Store) -> list[Event]:
    """Return what the fake stages of a store have done so far, in order of time."""
    text = (store.read_bytes(_LOG) or b"").decode()
    return sorted((Event(*json.loads(line)) for line in text.splitlines()), key=lambda event: event.time_s)


def wait_for_event(store: Store, what: str, name: str, timeout_s: float = 60) -> Event:
    """Return the first event of a kind of a stage once there is one.

    Raises:
        TimeoutError: if there is none in time.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        for event in events(store):
            if (event.what, event.name) == (what, name):
                return event
        time.sleep(0.05)
    raise TimeoutError(f"no {what} of {name} within {timeout_s} s; there were {events(store)}")


def _log(store: Store, what: str, stage: Stage, attempt: int) -> None:
    line = json.dumps([what, stage.name, attempt, os.getpid(), time.time(), os.environ.get("FAKE_NODE", "")]) + "\n"
    with store.local_path(_LOG).open("a", encoding="utf-8") as stream:
        stream.write(line)  # one small write in append mode: lines of several processes do not mix


def _id_of(name: str) -> str:
    return content_id({"fake": name})


def _config_of(fake: Fake) -> dict[str, Any]:
    return {
        "fake": {
            "epoch_s": fake.epoch_s,
            "fails_in_attempts": list(fake.fails_in_attempts),
            "hangs_in_attempts": list(fake.hangs_in_attempts),
            "waits_for": fake.waits_for,
            "val_score": fake.val_score,
        },
        "backbone": {"encoder": "none"},
        "method": {"name": "supervised"},
        "task": {"kind": "fake", "settings": {"metric": "score"}},
        "tuning": "full",
        "annotations": 1,
        "pack": "none",
        "seed": 0,
    }


def _study(resources: Mapping[str, Any], stop: Mapping[str, Any]) -> Study:
    return validate_study(
        {
            "study": "fake",
            "packs": {"nowhere": {"file": "/nowhere.h5"}},
            "backbones": {"small": {"encoder": "test_resnet", "channels": 1}},
            "sources": {"random": "random"},
            "tasks": {"segmentation": {"kind": "segmentation", "pack": "nowhere"}},
            "grid": {"source": ["random"], "annotations": [1], "seed": [0]},
            "resources": dict(resources),
            "stop": dict(stop),
        }
    )


def worker_settings(stage: Stage, store: Store, runner: str = RUNNER, report_every_s: float = 30.0) -> dict[str, Any]:
    """Return what the engine gives a worker that is to run a stage."""
    return {
        "stage": stage_to_json(stage),
        "store": store.absolute_uri,
        "threads": 1,
        "attempt": 1,
        "gpu_share": 1.0,
        "ranks": 1,
        "time_limit_s": None,
        "hung_after_s": None,
        "report_every_s": report_every_s,
        "runner": runner,
        "log_context": stage_context(stage, (), 1),
        "log_format": "text",
    }
