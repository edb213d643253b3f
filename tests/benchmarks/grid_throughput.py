"""How many fine-tunings of a grid end in an hour."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raysweep.planning import Plan
from raysweep.results.read import store_tables
from raysweep.store import Store
from raysweep.study.load import validate_study
from raysweep.sweep import plan as plan_study
from tests.benchmarks.measurement import Measurement
from tests.benchmarks.plain_grid import run_ours, run_plain
from tests.benchmarks.ray_cluster import NUM_SLOTS, ray_cluster
from tests.studies import study_document, with_changes

DESCRIPTION = "Trials per hour of a grid of 60 fine-tunings: raysweep on Ray Tune, a plain Tune grid."

_OURS, _PLAIN = "raysweep on Tune", "Tune grid of a function trainable"
_COUNTS = (4, 8, 16)
_LENGTHS = (2, 20)


def run(quick: bool = False) -> Measurement:
    """Run the same grid both ways, once with short and once with longer trainings."""
    num_seeds = 2 if quick else 20
    rows = []
    with tempfile.TemporaryDirectory() as folder, ray_cluster():
        for epochs in _LENGTHS[: 1 if quick else None]:
            for name, launch in ((_OURS, run_ours), (_PLAIN, run_plain)):
                rows.append(_timed(name, launch, num_seeds, epochs, Path(folder) / f"{epochs}-{name}"))
    ratios = [plain["wall s"] / ours["wall s"] for ours, plain in zip(rows[::2], rows[1::2], strict=True)]
    trained = [row["s of training per trial"] for row in rows[::2]]
    cases = [
        f"{ratio:.1f} times as many trials an hour where one trains {seconds:.1f} s"
        for ratio, seconds in zip(ratios, trained, strict=True)
    ]
    return Measurement(
        rows,
        f"raysweep finishes {' and '.join(cases)}. A plain trial starts a process and imports torch, timm and "
        "segmentation-models-pytorch, which raysweep does once for each slot: the longer the training, the less that "
        "is.",
        {
            "grid": f"{len(_COUNTS)} annotation counts x {num_seeds} seeds, a U-Net on 40 x 48 slices, test_resnet, "
            f"{' or '.join(map(str, _LENGTHS))} epochs of 8 steps",
            "slots": NUM_SLOTS,
            "s of training per trial": "training and evaluation as the stages table has them",
            "order": "as in the table; the cluster is up before",
            "clock": "wall time, on a machine that other work may share: read the ratios",
        },
    )


def _timed(
    name: str, launch: Callable[[Plan, Store], None], num_seeds: int, epochs: int, folder: Path
) -> dict[str, Any]:
    store = Store(folder).prepare()
    plan = _plan(num_seeds, epochs, store)
    begin = time.monotonic()
    launch(plan, store)
    wall_s = time.monotonic() - begin
    ended = store_tables(store)["stages"].to_pylist()
    if sum(row["status"] == "done" for row in ended) != len(plan.stages):
        raise RuntimeError(f"{name}: {len(ended)} of {len(plan.stages)} stages ended")
    return {
        "way": name,
        "epochs": epochs,
        "trials": len(ended),
        "wall s": wall_s,
        "trials per hour": 3600 * len(ended) / wall_s,
        "s of training per trial": sum(row["wall_s"] for row in ended) / len(ended),
    }


def _plan(num_seeds: int, epochs: int, store: Store) -> Plan:
    options = {"patients": 12, "slices": 2, "frames": 2, "size_px": [40, 48]}
    changes = {
        "packs": {"cardiac": {"dataset": "synthetic-cardiac", "options": options}},
        "sources": {"random": "random"},
        "tasks.heart.training.epochs": epochs,
        "tasks.heart.training.evaluate_every": epochs,
        "grid": {"source": ["random"], "annotations": list(_COUNTS), "seed": list(range(num_seeds))},
    }
    return plan_study(validate_study(with_changes(study_document(), changes)), store=store)
