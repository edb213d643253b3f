"""Packs and stages that the benchmarks of training share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from raysweep.data.pack import Pack, open_pack
from raysweep.datasets._packing import build_pack
from raysweep.planning import Stage, build_plan
from raysweep.stages.finetune import FinetuneLoop
from raysweep.stages.pretrain import PretrainLoop
from raysweep.store import Store
from raysweep.study.load import validate_study
from raysweep.sweep import _facts

SOURCE_PX = (216, 256)
"""Height and width of slices, those of most cardiac MRI of the ACDC data set."""


def write_cardiac_pack(folder: Path, patients: int) -> Pack:
    """Write synthetic cardiac slices, eight of each patient, all annotated; a tenth each validates and tests."""
    options = {"patients": patients, "slices": 4, "frames": 2, "size_px": list(SOURCE_PX), "cine": False}
    return open_pack(build_pack("synthetic-cardiac", None, folder / "cardiac.h5", options, workers=1))


def stage_of(kind: str, store: Store, pack: Pack, encoder: str, changes: Mapping[str, Any]) -> Stage:
    """Return one stage on a pack: of ``pretrain``, or of ``finetune`` from random weights with all annotations.

    Args:
        kind: pretrain or finetune.
        store: a store.
        pack: the pack of both.
        encoder: timm architecture.
        changes: ``method``, ``settings`` of it, ``image_size``, ``batch_size``, ``precision``, ``epochs``; of a
            fine-tuning also ``tuning``, and ``task`` and ``training``, which are settings of these.
    """
    common = {key: changes[key] for key in ("image_size", "batch_size", "precision") if key in changes}
    method, epochs = changes.get("method", "simclr"), changes.get("epochs", 100)
    study = validate_study(
        {
            "study": "benchmark",
            "packs": {"cardiac": {"file": str(pack.path)}},
            "backbones": {"chosen": {"encoder": encoder, "channels": 1}},
            "sources": {"random": "random", "pretrained": ["random", {"pretrain": {"pack": "cardiac"}}]},
            "pretraining": {**common, "methods": {method: changes.get("settings", {})}},
            "tasks": {
                "heart": {
                    "kind": "segmentation",
                    "pack": "cardiac",
                    **changes.get("task", {}),
                    "training": {**common, "epochs": epochs, **changes.get("training", {})},
                }
            },
            "grid": {
                "source": ["random", "pretrained"],
                "method": [method],
                "pretrain_epochs": [epochs],
                "annotations": ["all"],
                "seed": [0],
                "tuning": [changes.get("tuning", "full")],
            },
        }
    )
    stages = build_plan(study, _facts(study, store)).stages.values()
    return next(stage for stage in stages if stage.kind == kind and stage.parent is None)


def whole_epoch(loop: PretrainLoop | FinetuneLoop) -> Callable[[], object]:
    """Return what trains an epoch of a loop from its first step on, each time it is called."""

    def epoch() -> None:
        loop.flight = None
        before = loop.history.step
        loop.train_epoch()
        assert loop.history.step == before + loop.steps_per_epoch

    return epoch


def scaled_arrays(pack: Pack, rows: np.ndarray) -> list[np.ndarray]:
    """Return slices as a careful script would hold them in memory: (H, W) float32, scaled to about [0, 1]."""
    from raysweep.data.slices import scaled_slice

    return [scaled_slice(pack, int(row))[0].numpy() for row in rows]
