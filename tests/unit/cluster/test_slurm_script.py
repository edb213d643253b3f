"""The Slurm job with stand-ins for Slurm, Ray and raysweep: what starts where, signals, requeue, cleaning up."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raysweep.cluster import render

FAKES = Path(__file__).parents[2] / "fake_slurm"
HEAD = """#!/bin/bash
echo "ray $*" >>"$FAKE_SLURM_LOG"
[[ " $* " == *" --head "* ]] || exec sleep 600
exec "$FAKE_SLURM_PYTHON" -S - "$*" <<'PYTHON'
import re, signal, socket, sys
server = socket.create_server(("127.0.0.1", int(re.search(r"--port=(\\d+)", sys.argv[1])[1])))
signal.pause()
PYTHON
"""
STUDY = """#!/bin/bash
echo "raysweep $* token=$(stat -c %a "$RAY_AUTH_TOKEN_PATH") mode=$RAY_AUTH_MODE" >>"$FAKE_SLURM_LOG"
trap 'exit 130' TERM
touch "$HOME/running"
until [[ $(grep -c "^ray " "$FAKE_SLURM_LOG") == 3 ]]; do sleep 0.02; done
if [[ $STUDY_ENDS_WITH ]]; then exit "$STUDY_ENDS_WITH"; fi
while :; do sleep 0.05; done
"""


class Job:
    """A job of two partitions, three nodes in all."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "log"
        self.id = 1_000_000 + os.getpid()
        (folder / "venv/bin").mkdir(parents=True)
        (folder / "venv/bin/activate").write_text("")
        options = {"gpus": 2, "workers": 1, "cpus": 3, "cpu_partition": "cpu", "partition": "gpu", "store": "/shared"}
        (folder / "job.sh").write_text(render("slurm", {**options, "venv": str(folder / "venv")}))
        for name, text in {"ray": HEAD, "raysweep": STUDY}.items():
            path = folder / "bin" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def start(self, ends_with: str = "") -> subprocess.Popen[str]:
        environment = {
            "PATH": f"{self.folder / 'bin'}:{FAKES}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "FAKE_SLURM_LOG": str(self.log),
            "FAKE_SLURM_PYTHON": sys.executable,
            "SLURM_JOB_ID": str(self.id),
            "SLURM_JOB_NODELIST": "localhost",
            "RAYSWEEP_HEAD_IP": "127.0.0.1",
            "STUDY_ENDS_WITH": ends_with,
        }
        command = ["bash", str(self.folder / "job.sh"), "mine.yaml"]
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

    def until_running(self, process: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + 60
        while not (self.folder / "running").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def lines(self, word: str) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if line.startswith(word)]


@pytest.fixture
def job(tmp_path):
    return Job(tmp_path)


@pytest.mark.parametrize("status", ["0", "1", "2"])
def test_job_ends_as_the_study_does_and_leaves_nothing(job, status):
    process = job.start(ends_with=status)
    assert process.wait(timeout=60) == int(status), process.communicate()[1]
    assert job.lines("scontrol") == []
    assert not (job.folder / f".raysweep/job-{job.id}").exists()
    assert not Path(f"/tmp/raysweep-{job.id}").exists()


def test_head_is_on_the_node_without_a_gpu_and_a_worker_on_each_other_one(job):
    assert job.start(ends_with="0").wait(timeout=60) == 0
    head, *workers = job.lines("ray ")
    port = 20_000 + job.id % 20_000
    assert f"--head --node-ip-address=127.0.0.1 --port={port}" in head
    assert len(workers) == 2
    assert all(f"start --block --num-cpus=3 --num-gpus=0 --address=127.0.0.1:{port}" in worker for worker in workers)
    of_head, of_workers = job.lines("srun")
    assert "--nodelist=localhost --het-group=0" in of_head
    assert "--nodes=2 --ntasks=2 --het-group=1" in of_workers


def test_study_is_the_argument_and_gets_the_address_and_a_token_that_others_cannot_read(job):
    assert job.start(ends_with="0").wait(timeout=60) == 0
    (line,) = job.lines("raysweep")
    assert line == f"raysweep run mine.yaml --address 127.0.0.1:{20_000 + job.id % 20_000} token=600 mode=token"


def test_shortly_before_the_time_limit_the_study_drains_and_the_job_is_queued_again(job):
    process = job.start()
    job.until_running(process)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=60) == 130
    assert job.lines("scontrol") == [f"scontrol requeue {job.id}"]
    assert "time is nearly over: saving" in process.communicate()[1]


def test_preempted_job_drains_and_leaves_the_queue_to_slurm(job):
    process = job.start()
    job.until_running(process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 130
    assert job.lines("scontrol") == []


def test_folder_of_somebody_else_is_not_used(job):
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    folder = Path(f"/tmp/raysweep-{job.id}")
    folder.mkdir()
    try:
        os.chown(folder, 12345, 12345)
        process = job.start(ends_with="0")
        assert process.wait(timeout=60) == 1
        assert "belongs to somebody else" in process.communicate()[1]
    finally:
        folder.rmdir()
