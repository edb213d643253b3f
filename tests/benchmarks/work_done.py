"""The training that two published sweeps cost: done, at least needed, and in a grid that shares nothing."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raysweep.engine.launch import Launch
from raysweep.engine.tune import TuneExecutor
from raysweep.planning import PackFacts, Plan, Stage, build_plan
from raysweep.stages.progress import Progress
from raysweep.store import LedgerRecord, Store
from raysweep.study.load import validate_study
from tests.benchmarks.measurement import Measurement
from tests.benchmarks.ray_cluster import NUM_SLOTS, ray_cluster, temporary_store

DESCRIPTION = "Epochs trained for the two sweeps of Kalapos & Gyires-Toth 2022, against the least and the naive number."

RUNNER = "tests.benchmarks.work_done:run_counting_stage"
SEEDS = [0, 13, 42, 123, 1111, 77, 62, 91, 7, 5]
RATIOS = [1, 3, 7, 15, 30, 75, 150, 300, 749, 1498]
LENGTHS = [*range(11), 12, 14, 16, 18, 20, 22, 24, 25, 50, 100, 200, 300, 400]
FINETUNE_EPOCHS = 150
_FACTS = PackFacts("/packs/acdc.h5", "sha256:acdc", 1, 4, 25_000, {"slice": 1498, "volume": 160, "subject": 80})


def run(quick: bool = False) -> Measurement:
    """Run both sweeps with stages that only count their epochs."""
    with ray_cluster(), tempfile.TemporaryDirectory() as folder:
        sweeps = [_data_efficiency(Path(folder), SEEDS[: 1 if quick else 10]), _pretraining_epochs(Path(folder))]
        rows = [_measure(*sweep) for sweep in sweeps]
    both, naive = sum(row["trained"] for row in rows), sum(row["naive grid"] for row in rows)
    ratios = ", ".join(f"{row['trained / needed']:.2f}" for row in rows)
    return Measurement(
        rows,
        f"Both sweeps train {ratios} times the epochs that are needed at least; a grid in which every cell repeats its "
        f"own pretraining would train {naive / both:.2f} times as many epochs "
        f"({rows[0]['naive grid'] / rows[0]['trained']:.2f} and {rows[1]['naive grid'] / rows[1]['trained']:.2f}).",
        {
            "trained": "epochs that workers went through, counted by the stages themselves",
            "needed": "each distinct pretraining once, up to its longest length, and each fine-tuning once, by hand",
            "slots": NUM_SLOTS,
        },
    )


def run_counting_stage(stage: Stage, store: Store, **_: Any) -> Iterator[Progress]:
    """Run a stage that does nothing but count its epochs."""
    count = 0
    for epoch in range(1, stage.epochs + 1):
        count += 1
        published = (epoch,) if epoch in stage.snapshots else ()
        if published:
            store.write_bytes(store.snapshot_path(stage.id, epoch), b"")
            yield Progress(epoch, published)
    store.write_bytes(f"counts/{stage.id}-{count}", b"")
    store.record(LedgerRecord(stage.id, "done", stage.snapshots))


def _measure(name: str, plan: Plan, needed: int) -> dict[str, Any]:
    with temporary_store() as store:
        outcome = TuneExecutor(runner=RUNNER).run(Launch(plan, store))
        if not outcome.is_complete:
            raise RuntimeError(f"{name}: {outcome.failed}")
        trained = Counter[str]()
        for path in store.list("counts"):
            stage, _, count = Path(path).name.rpartition("-")
            trained[plan.stages[stage].kind] += int(count)
    return {
        "sweep": name,
        "cells": len(plan.cells),
        "stages": len(plan.stages),
        "trained": sum(trained.values()),
        "of which pretraining": trained["pretrain"],
        "needed": needed,
        "trained / needed": sum(trained.values()) / needed,
        "naive grid": sum(plan.naive_epochs.values()),
    }


def _data_efficiency(folder: Path, seeds: list[int]) -> tuple[str, Plan, int]:
    """Ten annotation counts x six encoders x ten seeds, and what its distinct trainings need."""
    on_acdc = {"pack": "acdc", "method": "byol"}
    sources = {
        "imagenet": [_weights(folder, "imagenet")],
        "imagenet-byol": [_weights(folder, "imagenet-byol")],
        "specialist": ["random", {"pretrain": {**on_acdc, "epochs": 400}}],
        "hierarchical": [_weights(folder, "imagenet"), {"pretrain": {**on_acdc, "epochs": 25}}],
        "hierarchical-byol-25": [_weights(folder, "imagenet-byol"), {"pretrain": {**on_acdc, "epochs": 25}}],
        "hierarchical-byol-34": [_weights(folder, "imagenet-byol"), {"pretrain": {**on_acdc, "epochs": 34}}],
    }
    grid = {"source": list(sources), "annotations": RATIOS, "seed": seeds}
    needed = 400 + 25 + 25 + 34 + len(RATIOS) * len(sources) * len(seeds) * FINETUNE_EPOCHS
    return "data efficiency", _plan(sources, grid), needed


def _pretraining_epochs(folder: Path) -> tuple[str, Plan, int]:
    """24 lengths of one pretraining, and what they need: its longest run, and a fine-tuning from each length."""
    sources = {"hierarchical-byol": [_weights(folder, "imagenet-byol"), {"pretrain": {"pack": "acdc"}}]}
    grid = {
        "source": list(sources),
        "method": ["byol"],
        "pretrain_epochs": LENGTHS,
        "annotations": [150],
        "seed": [13],
    }
    return "pretraining length", _plan(sources, grid), max(LENGTHS) + len(LENGTHS) * FINETUNE_EPOCHS


def _weights(folder: Path, name: str) -> dict[str, str]:
    file = folder / f"{name}.pt"
    file.write_bytes(name.encode())  # only its digest counts: nothing loads it
    return {"weights": str(file)}


def _plan(sources: dict[str, Any], grid: dict[str, Any]) -> Plan:
    document = {
        "study": "counted",
        "packs": {"acdc": {"file": "/packs/acdc.h5"}},
        "backbones": {"resnet50": {"encoder": "resnet50"}},
        "sources": sources,
        "tasks": {"heart": {"kind": "segmentation", "pack": "acdc", "training": {"epochs": FINETUNE_EPOCHS}}},
        "grid": grid,
    }
    return build_plan(validate_study(document), {"acdc": _FACTS})
