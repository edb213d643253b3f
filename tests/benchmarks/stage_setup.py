"""What a stage takes before its first epoch, in a process that has trained before."""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from raysweep.engine.launch import Launch
from raysweep.planning import Stage
from raysweep.stages.progress import Progress
from raysweep.sweep import run as run_study
from tests.benchmarks.measurement import Measurement

DESCRIPTION = "CPU time from the start of a stage until its first epoch, against that of its training."

_QUICKSTART = Path(__file__).parents[2] / "search_spaces" / "quickstart.yaml"
_Spans = defaultdict[str, list[tuple[float, float]]]


def run(quick: bool = False) -> Measurement:
    """Run stages of the quickstart in this process; the first of each kind imports libraries and is left out."""
    seeds = list(range(3 if quick else 6))
    changes = [
        "grid.source=[random,cardiac]",
        "grid.method=[simclr]",
        "grid.pretrain_epochs=[1]",
        "grid.annotations=[4]",
        "pretraining.seeds=each",
        "tasks.heart.training.epochs=1",
        f"grid.seed={seeds}",
    ]
    spans: _Spans = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, _watched(spans):
        if not run_study(_QUICKSTART, store=folder, executor="inline", set=changes).outcome.is_complete:
            raise RuntimeError("a stage failed")
    rows = [
        {
            "kind": kind,
            "stages": len(found) - 1,
            "until the first epoch, CPU-s": median(first for first, _ in found[1:]),
            "whole stage of one epoch, CPU-s": median(whole for _, whole in found[1:]),
        }
        for kind, found in sorted(spans.items())
    ]
    setup = {row["kind"]: row["until the first epoch, CPU-s"] for row in rows}
    return Measurement(
        rows,
        f"A fine-tuning takes {setup['finetune']:.2f} CPU-s until its first epoch, a pretraining "
        f"{setup['pretrain']:.2f}: the network is built, weights are read, the pack is opened, and a pretraining is "
        "probed once before it begins.",
        {"study": "the quickstart: a very small residual network, slices of 64 x 64", "clock": "CPU time; medians"},
    )


@contextmanager
def _watched(spans: _Spans) -> Iterator[None]:
    """Note of every stage the CPU seconds until its first report, and until its end."""
    begun: dict[str, float] = {}
    first: dict[str, float] = {}
    plain = Launch.started, Launch.progress, Launch.finished

    def started(self: Launch, stage: Stage) -> None:
        begun[stage.id] = time.process_time()
        plain[0](self, stage)

    def progress(self: Launch, stage: Stage, progress: Progress) -> None:
        first.setdefault(stage.id, time.process_time() - begun[stage.id])
        plain[1](self, stage, progress)

    def finished(self: Launch, stage: Stage) -> None:
        spans[stage.kind].append((first[stage.id], time.process_time() - begun[stage.id]))
        plain[2](self, stage)

    Launch.started, Launch.progress, Launch.finished = started, progress, finished  # type: ignore[method-assign]
    try:
        yield
    finally:
        Launch.started, Launch.progress, Launch.finished = plain  # type: ignore[method-assign]
