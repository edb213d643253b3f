"""How soon a grid of short trainings gives its first result, and how long it takes, imports included."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raysweep.planning import Plan
from raysweep.store import Store
from raysweep.study.load import validate_study
from raysweep.sweep import plan as plan_study
from tests.benchmarks.measurement import Measurement
from tests.benchmarks.plain_grid import run_ours, run_plain
from tests.benchmarks.ray_cluster import NUM_SLOTS, ray_cluster
from tests.studies import study_document, with_changes

DESCRIPTION = "First result and whole time of 20 tiny fine-tunings: raysweep on Ray Tune, a plain Tune grid."

_OURS, _PLAIN = "raysweep on Tune", "Tune grid of a function trainable"


def run(quick: bool = False) -> Measurement:
    """Run the same fine-tunings both ways, the plain grid between two runs of ours."""
    num_stages = 4 if quick else 20
    with tempfile.TemporaryDirectory() as folder, ray_cluster():
        rows = [
            _timed(name, launch, num_stages, Path(folder) / str(number))
            for number, (name, launch) in enumerate([(_OURS, run_ours), (_PLAIN, run_plain), (_OURS, run_ours)])
        ]
    first = (rows[0]["first result s"] + rows[2]["first result s"]) / 2
    whole = (rows[0]["all results s"] + rows[2]["all results s"]) / 2
    return Measurement(
        rows,
        f"The first of {num_stages} results is there after {first:.0f} s, in the plain grid after "
        f"{rows[1]['first result s']:.0f} s: both start a worker and import torch before it. All of them are there "
        f"after {whole:.0f} s, {rows[1]['all results s'] / whole:.1f} times as soon: each plain trial starts a process "
        "and imports torch.",
        {
            "stage": "2 epochs of a U-Net on 4 annotated 40 x 48 slices, with torch, timm and "
            "segmentation-models-pytorch imported in the worker",
            "slots": NUM_SLOTS,
            "order": "as in the table; means of the repeated rows are compared; the cluster is up before",
            "clock": "wall time, on a machine that other work may share: read the ratios",
        },
    )


def _timed(name: str, launch: Callable[[Plan, Store], None], num_stages: int, folder: Path) -> dict[str, Any]:
    store = Store(folder / "store").prepare()
    plan = _plan(num_stages, store)
    begin = time.time()
    launch(plan, store)
    whole_s = time.time() - begin
    ends = sorted(path.stat().st_mtime for path in (folder / "store" / "ledger").glob("*.json"))
    if len(ends) != num_stages:
        raise RuntimeError(f"{name}: {len(ends)} of {num_stages} stages ended")
    return {"way": name, "stages": num_stages, "first result s": ends[0] - begin, "all results s": whole_s}


def _plan(num_stages: int, store: Store) -> Plan:
    options = {"patients": 12, "slices": 2, "frames": 2, "size_px": [40, 48]}
    changes = {
        "packs": {"cardiac": {"dataset": "synthetic-cardiac", "options": options}},
        "sources": {"random": "random"},
        "grid": {"source": ["random"], "annotations": [4], "seed": list(range(num_stages))},
    }
    return plan_study(validate_study(with_changes(study_document(), changes)), store=store)
