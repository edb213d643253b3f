"""How long a person waits for the first training step."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.benchmarks.measurement import Measurement
from tests.studies import study_document, with_changes

DESCRIPTION = (
    "From `raysweep run` to the first saved training step, in a new process: inline, on Ray, a plain Tune script."
)

_PLAIN = """
import sys
import ray
from raysweep.store import Store
from raysweep.sweep import plan
from tests.benchmarks.plain_grid import run_plain
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
store = Store(sys.argv[2]).prepare()
run_plain(plan(sys.argv[1], store=store), store)
"""
_INLINE, _TUNE, _SCRIPT = "raysweep run --executor inline", "raysweep run", "plain Tune script"
_TIMEOUT_S = 300


def run(quick: bool = False) -> Measurement:
    """Start each way in turn, after the data is packed."""
    repetitions = 1 if quick else 3
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        study = _write_study(Path(folder))
        commands = {
            _INLINE: ["-m", "raysweep", "run", str(study), "--executor", "inline", "--no-report", "--store"],
            _TUNE: ["-m", "raysweep", "run", str(study), "--no-report", "--store"],
            _SCRIPT: ["-c", _PLAIN, str(study)],
        }
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for repetition in range(repetitions + 1):
            for name, command in commands.items():
                store = Path(folder) / f"{len(taken[name])}-{repetition}-{list(commands).index(name)}"
                seconds = _seconds_to_first_step(command, store)
                if repetition:  # the first brings the libraries into the page cache
                    taken[name].append(seconds)
    for name, seconds in taken.items():
        middle = sorted(seconds)[len(seconds) // 2]
        rows.append({"way": name, "first step s": middle[0], "whole s": middle[1]})
    first = {row["way"]: row["first step s"] for row in rows}
    return Measurement(
        rows,
        f"The first training step is there {first[_INLINE]:.0f} s after `raysweep run --executor inline`, "
        f"{first[_TUNE]:.0f} s with Ray, {first[_SCRIPT]:.0f} s with a plain Tune script that trains the same: "
        f"{first[_SCRIPT] / first[_TUNE]:.1f} times that of raysweep on Ray. Importing torch, timm and "
        "segmentation-models-pytorch, and starting Ray, take nearly all of it in each.",
        {
            "first step": "until the training state after an epoch of one step is in the store",
            "whole": "until the process has ended",
            "repetitions": f"{repetitions} in turn, after a first round that does not count; median",
            "clock": "wall time, on a machine that other work may share: read the ratios",
        },
    )


def _write_study(folder: Path) -> Path:
    from raysweep.datasets._packing import build_pack

    options = {"patients": 12, "slices": 2, "frames": 2, "size_px": [40, 48]}
    pack = build_pack("synthetic-cardiac", None, folder / "cardiac.h5", options, workers=1)
    changes: dict[str, Any] = {
        "packs": {"cardiac": {"file": str(pack)}},
        "sources": {"random": "random"},
        "tasks.heart.training": {"epochs": 2, "batch_size": 4, "image_size": 32, "steps": "natural"},
        "grid": {"source": ["random"], "annotations": [4], "seed": [0]},
    }
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(with_changes(study_document(), changes)), encoding="utf-8")
    return file


def _seconds_to_first_step(command: Sequence[str], store: Path) -> tuple[float, float]:
    environment = {**os.environ, "RAY_AIR_NEW_OUTPUT": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1"}
    begin = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *command, str(store)], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while not (any((store / "resume").glob("*.pt")) or any((store / "ledger").glob("*.json"))):
            if process.poll() not in (None, 0) or time.monotonic() - begin > _TIMEOUT_S:
                raise RuntimeError(f"{' '.join(command)} ended without a training step")
            time.sleep(0.02)
        first_s = time.monotonic() - begin
        if process.wait(timeout=_TIMEOUT_S):
            raise RuntimeError(f"{' '.join(command)} failed")
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    return first_s, time.monotonic() - begin
