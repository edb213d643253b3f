"""The Slurm job, run by bash with a Slurm that is made of a few lines: head, workers, study, requeue, token."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from raysweep.cluster import render
from raysweep.store import Store
from raysweep.sweep import open_store
from tests.facts import facts
from tests.integration.test_resume import STUDY

SEEDS = 4
NUM_STAGES = 1 + 3 * SEEDS
FAKES = Path(__file__).parents[1] / "fake_slurm"


class Job:
    """A job of the fake Slurm, on a loopback cluster of two Ray nodes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.id = 10_000 + os.getpid() % 9_000
        self.log = folder / "slurm.log"
        self.store = folder / "store"
        (folder / "venv/bin").mkdir(parents=True)
        (folder / "venv/bin/activate").write_text("")
        (folder / "study.yaml").write_text(STUDY.replace("seed: [0]", f"seed: {[*range(SEEDS)]}"))
        options = {"gpus": 0, "workers": 2, "cpus": 1, "cpu_partition": "cpu", "store": str(self.store)}
        (folder / "job.sh").write_text(
            render("slurm", {**options, "venv": str(folder / "venv"), "study": str(folder / "study.yaml")})
        )

    @property
    def address(self) -> str:
        """Where the head listens: a port made of the job's number."""
        return f"127.0.0.1:{20_000 + self.id % 20_000}"

    def start(self) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "PATH": f"{FAKES}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "FAKE_SLURM_LOG": str(self.log),
            "FAKE_SLURM_PYTHON": sys.executable,
            "SLURM_JOB_ID": str(self.id),
            "SLURM_JOB_NODELIST": "localhost",
            "RAYSWEEP_HEAD_IP": "127.0.0.1",
            "OMP_NUM_THREADS": "1",
        }
        out = (self.folder / "job.log").open("ab")
        return subprocess.Popen(["bash", str(self.folder / "job.sh")], env=environment, stdout=out, stderr=out)

    def listens(self) -> bool:
        """Whether the head answers."""
        host, _, port = self.address.partition(":")
        with socket.socket() as probe:
            return probe.connect_ex((host, int(port))) == 0

    def text(self) -> str:
        return (self.folder / "job.log").read_text()

    def wait_until(self, condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + 300
        while not condition():
            assert process.poll() is None, self.text()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.05)


@pytest.mark.heavy
def test_job_runs_the_study_is_requeued_before_its_time_is_up_and_continues(tmp_path):
    job = Job(tmp_path)
    token = tmp_path / f".raysweep/job-{job.id}/token"
    first = job.start()
    job.wait_until(job.listens, first)
    command = [sys.executable, "-m", "raysweep", "run", str(tmp_path / "study.yaml")]
    refused = subprocess.run(
        [*command, "--store", str(tmp_path / "other"), "--address", job.address],
        env={**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "of-somebody-else-0123456789abcdef"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert refused.returncode == 2, refused.stderr
    assert "refuses this process: it has another token" in refused.stderr
    assert token.stat().st_mode & 0o777 == 0o600
    job.wait_until(lambda: len(list((job.store / "ledger").glob("*.json"))) >= 1, first)
    first.send_signal(signal.SIGUSR1)
    assert first.wait(timeout=180) == 130, job.text()
    assert f"scontrol requeue {job.id}" in job.log.read_text()
    done = set(Store(job.store).ledger())
    assert 1 <= len(done) < NUM_STAGES
    assert not token.exists()
    assert not job.listens()

    assert job.start().wait(timeout=400) == 0, job.text()
    assert job.log.read_text().count("scontrol requeue") == 1
    assert sum("--exclude=localhost" in line for line in job.log.read_text().splitlines()) == 2
    undisturbed = tmp_path / "undisturbed"
    subprocess.run([*command, "--store", str(undisturbed), "--executor", "inline", "--no-report"], check=True)
    assert facts(open_store(job.store)) == facts(open_store(undisturbed))
