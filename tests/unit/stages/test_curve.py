"""Stages that the study's scheduler stops keep their curve up to where they were stopped."""

from __future__ import annotations

import time

from raysweep.engine.launch import Launch
from raysweep.results.query import query_store
from raysweep.store import Store
from raysweep.sweep import run

RANDOM_ONLY = {"grid.source": ["random"], "grid.method": [], "grid.pretrain_epochs": []}
CURVE = "SELECT epoch, split, metric, value FROM epochs ORDER BY ALL"


def test_a_stopped_stage_has_the_epochs_that_it_trained(tiny_study, tiny_store, tmp_path, monkeypatch):
    study = tiny_study({**RANDOM_ONLY, "tasks.heart.training.epochs": 3})
    whole = run(study, store=tmp_path / "whole", executor="inline").store
    monkeypatch.setattr(Launch, "prunes", lambda self, stage, progress: progress.epoch == 2)
    write = Store.write_bytes

    def write_late(store, path, data):
        """Store a training state while the epoch after it has begun, as a busy disk does."""
        time.sleep(0.2 if path.startswith("resume") else 0.0)
        return write(store, path, data)

    monkeypatch.setattr(Store, "write_bytes", write_late)
    launched = run(study, store=tiny_store, executor="inline")
    assert launched.outcome.stopped == 1
    expected = [row for row in query_store(whole, CURVE).to_pylist() if row["epoch"] <= 2]
    assert len({row["epoch"] for row in expected}) == 2
    assert query_store(launched.store, CURVE).to_pylist() == expected
