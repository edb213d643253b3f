"""Clusters whose nodes are unlike, come and go: each in a process of its own, for a process has one Ray."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from raysweep.planning import Plan
from raysweep.results.read import store_tables
from raysweep.results.schemas import TABLES
from raysweep.store import Store
from tests.fake_stages import events, run_fake_stage
from tests.integration.many_nodes import plain_plan, unlike_plan


def on_nodes(scenario: str, store: Store, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a scenario of ``many_nodes``, with more in its environment."""
    command = [sys.executable, "-m", "tests.integration.many_nodes", store.absolute_uri, scenario]
    environment = {
        **os.environ,
        "FAKE_SLOWDOWN": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        **more,
    }
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)


def facts(store: Store) -> Mapping[str, Any]:
    return {name: sorted(table.select(TABLES[name].facts).to_pylist(), key=str) for name, table in
            store_tables(store).items()}  # fmt: skip


def undisturbed(plan: Plan, folder: Path) -> Store:
    """Run a plan's stages one after another in this process."""
    store = Store(folder).prepare()
    for stage in plan.stages.values():
        for _ in run_fake_stage(stage, store, threads=1, attempt=1):
            pass
    return store


@pytest.fixture(autouse=True)
def _no_sleep_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages that run in this process take no time."""
    monkeypatch.setenv("FAKE_SLOWDOWN", "0")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store").prepare()


@pytest.mark.heavy
def test_unlike_nodes_one_drained_one_late_one_slow_give_the_tables_of_one_process(store, tmp_path):
    done = on_nodes("unlike", store)
    assert done.returncode == 0, done.stdout + done.stderr
    assert facts(store) == facts(undisturbed(unlike_plan(), tmp_path / "undisturbed"))
    begun = [event for event in events(store) if event.what == "begin"]
    assert {event.node for event in begun if event.name.startswith("pretrain")} == {"late"}
    assert {event.node for event in begun} == {"drained", "slow", "late"}
    ended = [event.name for event in events(store) if event.what == "end"]
    assert sorted(ended) == sorted(stage.name for stage in unlike_plan().stages.values()), "each stage ended once"
    (saved,) = [event for event in events(store) if event.what == "preempted"]
    assert saved.node == "drained"
    after = [event for event in begun if event.name == saved.name and event.time_s > saved.time_s]
    assert [event.node != "drained" for event in after] == [True], "it went on elsewhere"
    assert [(failure.kind, failure.counted) for failure in store.failures()] == [("preempted", False)]


@pytest.mark.heavy
def test_full_object_stores_keep_no_stage_from_running(store, tmp_path):
    done = on_nodes("full", store)
    assert done.returncode == 0, done.stdout + done.stderr
    assert facts(store) == facts(undisturbed(plain_plan(), tmp_path / "undisturbed"))


@pytest.mark.heavy
def test_study_whose_head_died_is_resumed_on_another_cluster(store, tmp_path):
    quick = {"RAY_gcs_rpc_server_reconnect_timeout_s": "5"}
    assert on_nodes("head_dies", store, **quick).returncode != 0
    assert len(store.ledger()) < len(plain_plan().stages)
    done = on_nodes("plain", store)
    assert done.returncode == 0, done.stdout + done.stderr
    assert facts(store) == facts(undisturbed(plain_plan(), tmp_path / "undisturbed"))
