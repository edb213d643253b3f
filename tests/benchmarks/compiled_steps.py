"""What torch.compile does to a training step on a CPU."""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from raysweep.data.pack import Pack
from raysweep.stages.finetune import FinetuneLoop
from raysweep.stages.runtime import prepare_runtime
from raysweep.store import Store
from tests.benchmarks.measurement import Measurement, alternate
from tests.benchmarks.training_setups import stage_of, whole_epoch, write_cardiac_pack

DESCRIPTION = "Fine-tuning steps of a U-Net as they are, and with the whole network compiled by torch.compile."

_SETUPS = {("small", 4): ("test_resnet", 64), ("ResNet-18", 16): ("resnet18", 128)}
_SAMPLES = 32


def run(quick: bool = False) -> Measurement:
    """Train the same steps with and without compilation, in turn."""
    repetitions, rows = (1 if quick else 5), []
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, TORCHINDUCTOR_CACHE_DIR=f"{folder}/cache"):
        pack, store = write_cardiac_pack(Path(folder), 8), Store(Path(folder) / "store").prepare()
        for setup, batch in list(_SETUPS)[: 1 if quick else None]:
            rows.append(_row(setup, batch, store, pack, repetitions))
    best = max(row["compiled faster by"] for row in rows)
    costs = [row["compiling s"] for row in rows]
    verdict = (
        "it never pays, and raysweep has no option for it"
        if best <= 1
        else f"it pays after {min(row['pays after steps'] for row in rows if row['compiled faster by'] > 1):,} steps"
    )
    return Measurement(
        rows,
        f"Compiled steps are {best:.2f} times as fast at best, and compiling takes {min(costs):.0f} to "
        f"{max(costs):.0f} CPU seconds of a process: {verdict}. Most of a step is convolutions, for which "
        "compiled code calls the same library; what it could fuse is little beside them. Weights differ after the "
        "first epoch, so it could not be a matter of the machine alone either.",
        {
            "work": f"a U-Net with all of its training step; {_SAMPLES} slices an epoch; precision auto",
            "sizes": ", ".join(f"{setup} {size} px" for (setup, _), (_, size) in _SETUPS.items()),
            "compiling": "CPU seconds of this process and its compilers beyond a usual first epoch, without a cache",
            "not measured": "a GPU, and CUDA graphs",
            "repetitions": f"{repetitions} epochs in turn, median, CPU seconds of one process with one thread",
        },
    )


def _row(setup: str, batch: int, store: Store, pack: Pack, repetitions: int) -> dict[str, Any]:
    plain, compiled = (_loop(setup, batch, store, pack) for _ in range(2))
    network = compiled.network
    compiled.network = torch.compile(network, dynamic=False)  # type: ignore[assignment]
    first = {"plain": _cpu_seconds(plain.train_epoch), "compiled": _cpu_seconds(compiled.train_epoch)}
    difference = max(_distance(p, q) for p, q in zip(plain.network.parameters(), network.parameters(), strict=True))
    seconds = alternate({"plain": whole_epoch(plain), "compiled": whole_epoch(compiled)}, repetitions)
    steps = _SAMPLES // batch
    saved, cost = (seconds["plain"] - seconds["compiled"]) / steps, first["compiled"] - first["plain"]
    return {
        "encoder": setup,
        "batch": batch,
        "ms per step": 1000 * seconds["plain"] / steps,
        "compiled ms": 1000 * seconds["compiled"] / steps,
        "compiled faster by": seconds["plain"] / seconds["compiled"],
        "compiling s": cost,
        "pays after steps": round(cost / saved) if saved > 0 else "never",
        "weights differ by": difference,
    }


def _loop(setup: str, batch: int, store: Store, pack: Pack) -> FinetuneLoop:
    encoder, size = _SETUPS[setup, batch]
    stage = stage_of("finetune", store, pack, encoder, {"image_size": size, "batch_size": batch, "precision": "auto"})
    loop = FinetuneLoop(stage, store, prepare_runtime(0, "auto", 1), 1)
    loop.rows = pack.select(split="train", annotated=True)[:_SAMPLES]
    loop.steps_per_epoch, loop.history.epoch = _SAMPLES // batch, 1
    return loop


def _cpu_seconds(work: Callable[[], object]) -> float:
    before = time.process_time() + _of_children()
    work()
    return time.process_time() + _of_children() - before


def _of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a.detach() - b.detach()).abs().max())
