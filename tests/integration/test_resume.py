"""Real launches of the command line, killed for real: the next one finishes with the tables of an undisturbed run."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from raysweep.store import Store
from raysweep.sweep import open_store
from tests.facts import facts
from tests.s3_server import faulty_proxy, new_bucket

STUDY = """
study: killed
packs:
  cardiac: {dataset: synthetic-cardiac, options: {patients: 13, slices: 2, frames: 2, size_px: [64, 64]}}
backbones:
  tiny: {encoder: test_resnet}
sources:
  random: random
  cardiac: [random, {pretrain: {pack: cardiac}}]
pretraining: {image_size: 32, batch_size: 8}
tasks:
  heart:
    kind: segmentation
    pack: cardiac
    decoder_channels: [16, 8, 8]
    training: {epochs: 3, batch_size: 4, image_size: 32}
grid:
  source: [random, cardiac]
  method: [simclr]
  pretrain_epochs: [1, 4]
  annotations: [4]
  seed: [0]
"""
NUM_STAGES = 1 + 1 + 2


@pytest.fixture(scope="module")
def study_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("study") / "killed.yaml"
    file.write_text(STUDY)
    return file


@pytest.fixture(scope="module")
def undisturbed(study_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a run in one process that nothing interrupted."""
    store = tmp_path_factory.mktemp("undisturbed") / "store"
    assert _launch(study_file, store, "inline").wait(timeout=300) == 0
    return store


def _launch(study: Path, store: Path, executor: str, uri: str | None = None) -> subprocess.Popen[bytes]:
    """Launch the study in a process of its own; with ``uri``, that is the store, and ``store`` is beside the log."""
    command = [sys.executable, "-m", "raysweep", "run", str(study), "--store", uri or str(store)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAYSWEEP_CACHE": str(store.parent / "cache")}
    log = (store.parent / "log.txt").open("ab")
    return subprocess.Popen(
        [*command, "--executor", executor, "--no-report"], env=environment, stdout=log, stderr=subprocess.STDOUT
    )


def _wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes], timeout_s: float = 180) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, "the launch ended before it could be interrupted"
        assert time.monotonic() < deadline, "the launch never got as far as it was to be interrupted"
        time.sleep(0.02)


def _num_published(store: Path) -> int:
    """Files that a launch has published so far: training states, snapshots, parts, ledger records."""
    return sum(1 for folder in ("resume", "snapshots", "ledger") for _ in (store / folder).rglob("*.*"))


def test_both_executors_give_the_same_bits(study_file: Path, undisturbed: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert _launch(study_file, store, "tune").wait(timeout=300) == 0
    assert facts(open_store(store)) == facts(open_store(undisturbed))


def test_driver_killed_at_random_moments_resumes_to_the_same_bits(
    study_file: Path, undisturbed: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    generator = random.Random(1)
    for _ in range(2):
        process = _launch(study_file, store, "inline")
        published = _num_published(store)
        _wait_until(lambda: _num_published(store) > published, process)  # noqa: B023
        time.sleep(generator.uniform(0, 0.8))
        process.kill()
        process.wait()
    assert _launch(study_file, store, "inline").wait(timeout=300) == 0
    assert facts(open_store(store)) == facts(open_store(undisturbed))
    assert len(open_store(store).ledger()) == NUM_STAGES


def test_ray_driver_killed_half_way_resumes_to_the_same_bits(
    study_file: Path, undisturbed: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    process = _launch(study_file, store, "tune")
    _wait_until(lambda: len(list((store / "ledger").glob("*.json"))) >= 1, process)
    process.kill()
    process.wait()
    done = set(open_store(store).ledger())
    assert 1 <= len(done) < NUM_STAGES
    before = {stage: (store / "ledger" / f"{stage}.json").stat().st_mtime_ns for stage in done}
    assert _launch(study_file, store, "tune").wait(timeout=300) == 0
    assert facts(open_store(store)) == facts(open_store(undisturbed))
    after = {stage: (store / "ledger" / f"{stage}.json").stat().st_mtime_ns for stage in done}
    assert after == before, "a stage that was done ran again"


def test_interrupt_leaves_a_state_that_the_next_launch_continues(
    study_file: Path, undisturbed: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    process = _launch(study_file, store, "inline")
    _wait_until(lambda: _num_published(store) >= 2, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert "continues where it stopped" in (tmp_path / "log.txt").read_text()
    assert _launch(study_file, store, "inline").wait(timeout=300) == 0
    assert facts(open_store(store)) == facts(open_store(undisturbed))


def test_second_driver_on_the_same_store_says_so_and_stops(study_file: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store").prepare()
    with store.driver_lock():
        assert _launch(study_file, tmp_path / "store", "inline").wait(timeout=120) == 2
    assert f"in use by another `raysweep run` (process {os.getpid()}" in (tmp_path / "log.txt").read_text()
    assert store.ledger() == {}


def test_store_on_s3_with_faults_resumes_a_killed_driver_to_the_same_bits(
    study_file: Path, undisturbed: Path, tmp_path: Path, s3: str
) -> None:
    uri = new_bucket(s3)
    store = open_store(uri)
    with faulty_proxy(s3) as proxy:
        proxy.faults.extend(["throttle", "drop", "throttle", "lose", "throttle"])
        behind = uri.replace(s3, proxy.address)
        process = _launch(study_file, tmp_path / "store", "inline", behind)
        _wait_until(lambda: len(store.list("ledger")) >= 1, process)
        process.kill()
        process.wait()
        done = store.stamps("ledger")
        assert 1 <= len(done) < NUM_STAGES
        assert store.list("driver.lock"), "the lease of the killed driver is there, and does not keep the next one out"
        proxy.faults.extend(["drop", "throttle"])
        assert _launch(study_file, tmp_path / "store", "inline", behind).wait(timeout=300) == 0
        assert not proxy.faults
    assert facts(store) == facts(open_store(undisturbed))
    assert {path: stamp for path, stamp in store.stamps("ledger").items() if path in done} == done
    assert len(store.ledger()) == NUM_STAGES
    assert store.list("driver.lock") == []
    assert [path.rpartition("-")[0] for path in store.list("packs")] == ["packs/cardiac"]


def test_lost_node_and_one_that_joins_late_give_the_same_bits(
    study_file: Path, undisturbed: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    command = [sys.executable, "-m", "tests.integration.losing_nodes", str(study_file), str(store)]
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stdout + done.stderr
    opened = open_store(store)
    assert facts(opened) == facts(open_store(undisturbed))
    assert [(failure.kind, failure.counted) for failure in opened.failures()] == [("node", False)]


@pytest.mark.heavy
def test_two_hosts_with_nothing_but_s3_in_common_give_the_same_bits(
    study_file: Path, undisturbed: Path, tmp_path: Path
) -> None:
    if os.getuid() or subprocess.run(["unshare", "--net", "--mount", "true"], check=False).returncode:
        pytest.skip("network namespaces need root")
    command = [sys.executable, "-m", "tests.integration.separate_hosts", str(study_file), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    logs = "\n".join(path.read_text() for path in tmp_path.glob("*/log.txt"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    digest, hosts = (tmp_path / "facts.txt").read_text().splitlines()
    assert digest == hashlib.sha256(repr(facts(open_store(undisturbed))).encode()).hexdigest()
    assert hosts == "['worker']"
    assert [len(list((tmp_path / host / "cache").glob("*.h5"))) for host in ("head", "worker")] == [1, 1]
