"""The worker without Ray: a stage that is stopped for good ends at once and leaves its curve."""

from __future__ import annotations

import gc
import io
import json
import threading

import pytest

from raysweep.engine import trainable as module
from raysweep.engine.trainable import StageTrainable
from raysweep.results.query import query_store
from raysweep.stages.progress import Progress
from tests.fake_stages import Fake, fake_plan, worker_settings

BEGUN, ENDED = threading.Event(), threading.Event()


def endless_stage(stage, store, *, beat, **_):
    """Train until it is stopped, with a state after every epoch, as real stages save it."""
    import torch

    rows, epoch = [], 0
    try:
        while True:
            epoch += 1
            rows.append(
                {"epoch": epoch, "step": epoch, "split": "val", "metric": "dice", "value": 0.5, "elapsed_s": 1.0}
            )
            state = io.BytesIO()
            torch.save({"history": {"epoch": epoch, "rows": json.dumps(rows)}}, state)
            store.write_bytes(store.resume_path(stage.id), state.getvalue())
            if epoch == 4:
                BEGUN.set()
            yield Progress(epoch)
            beat()
    finally:
        ENDED.set()


@pytest.fixture
def worker(tiny_store, monkeypatch):
    (stage,) = fake_plan([Fake("endless", epochs=1000)]).stages.values()
    monkeypatch.setattr(
        module.ray, "get_runtime_context", lambda: type("Context", (), {"get_node_id": lambda _: "n"})()
    )
    worker = object.__new__(StageTrainable)
    worker.setup(worker_settings(stage, tiny_store, f"{__name__}:endless_stage", 0.01))
    return worker, stage


def test_a_stage_that_is_halted_trains_no_further_and_publishes_its_curve(worker, tiny_store):
    worker, stage = worker
    worker.step()
    assert BEGUN.wait(60)
    worker.halt(3)
    assert ENDED.wait(60)
    rows = query_store(tiny_store, "SELECT stage, epoch, value FROM epochs ORDER BY epoch").to_pylist()
    assert rows == [{"stage": stage.id, "epoch": epoch, "value": 0.5} for epoch in (1, 2, 3)]
    worker.halt(3)  # nothing runs any more: nothing happens
    assert worker.reset_config(worker._settings)


def test_collecting_garbage_between_stages_passes_over_what_was_there_before(worker):
    worker, _ = worker
    module._spare_imports.cache_clear()
    try:
        worker.reset_config(worker._settings)
        assert gc.get_freeze_count() > 10_000
    finally:
        gc.unfreeze()


def test_a_stage_without_a_training_state_leaves_no_curve(tiny_store):
    from raysweep.stages.curve import publish_curve

    (stage,) = fake_plan([Fake("done already")]).stages.values()
    assert not publish_curve(stage, tiny_store, 3)
    assert not tiny_store.exists(tiny_store.part_path("epochs", stage.id))
