"""Every pretraining method on synthetic cardiac slices: what frozen features know before and after."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from raysweep import registry
from raysweep.planning import Stage, build_plan
from raysweep.results.read import store_tables
from raysweep.settings import CONVOLUTIONAL
from raysweep.stages.run import run_stage
from raysweep.store import Store
from raysweep.study.load import validate_study
from raysweep.sweep import _facts
from tests.benchmarks.measurement import Measurement

DESCRIPTION = "Linear and nearest-neighbour probes of every pretraining method against the encoder it started from."

_BATCH, _IMAGE_PX, _SEEDS = 16, 32, (0,)
_EPOCHS, _LONGER = 10, {"mae": 30, "simmim": 30, "i-jepa": 30}
_IMAGE_SIZES = {"spark": 64}
_PACK = {"patients": 60, "slices": 3, "frames": 2, "size_px": [72, 88], "cine": False}
_ENCODERS = {
    "convolutional": {"encoder": "test_resnet", "channels": 1},
    "transformer": {"encoder": "test_vit", "channels": 1, "options": {"patch_size": 4}},
}
_OPTIMISATION = {"optimiser": "adamw", "lr": 2e-3, "weight_decay": 0.01, "warmup_epochs": 1, "clip_norm": 3.0}
_WIDTHS = {"hidden_features": 512, "output_features": 128, "predictor_features": 128, "num_prototypes": 256}
_WIDTHS |= {"decoder_features": 64, "decoder_depth": 2, "decoder_heads": 4, "predictor_depth": 2, "predictor_heads": 4}
_WIDTHS |= {"num_small_crops": 2, "bottleneck_features": 128}


def run(quick: bool = False) -> Measurement:
    """Pretrain with every method from random weights, and probe before and after."""
    seeds = _SEEDS[:1] if quick else _SEEDS
    names = ["simclr", "mae"] if quick else registry.names("methods")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder)).prepare()
        for name in names:
            epochs = 1 if quick else epochs_of(name)
            rows.append(_row(name, epochs, [probe_before_and_after(name, seed, epochs, store) for seed in seeds]))
            print(rows[-1], file=sys.stderr, flush=True)
    better = {probe: sum(row[f"{probe} gain"] > 0 for row in rows) for probe in ("linear", "kNN")}
    weak = [row["method"] for row in rows if min(row["linear gain"], row["kNN gain"]) <= 0]
    return Measurement(
        rows,
        f"Of {len(rows)} methods {better['linear']} raise the Dice of the linear probe and {better['kNN']} that of the "
        f"nearest neighbours on held-out patients, averaged over {len(seeds)} seed{'s' * (len(seeds) > 1)}."
        + (f" Not in both: {', '.join(weak)}." if weak else ""),
        {
            "data": f"synthetic-cardiac, {_PACK['patients']} patients, 3 slices, end diastole and end systole; "
            "trained on slices as they are, probes on the val split's patients",
            "training": f"{_EPOCHS} epochs (30 where hidden patches of a transformer are learnt), "
            f"{_IMAGE_PX} pixels (spark 64, since it hides squares of 32), batches of {_BATCH}; one optimiser for all "
            "(AdamW 0.002, weight decay 0.01, 1 epoch of warm-up, cosine, clipped at 3), narrow heads, 2 small crops; "
            "all else each method's defaults. Supervised learns the masks that are probed, the others never see them",
            "encoders": "test_resnet, or test_vit with patches of 4 where a method needs a transformer",
            "probes": "cells of a 16 x 16 grid (test_vit: 8 x 8), described by the feature maps from there on, each of "
            "the most frequent class of its pixels: logistic regression, and 20 nearest neighbours; mean Dice over "
            "three foreground classes",
            "random": "the very encoder a run started from, probed the same way",
            "rank": "effective rank of pooled features of the val split, of 96 dimensions (test_vit: 64)",
            "seconds": "of training, one core, mean over seeds; float32",
        },
    )


def epochs_of(name: str) -> int:
    """Return the epochs that a method is given: three times as many where a transformer learns hidden patches."""
    return _LONGER.get(name, _EPOCHS)


def _row(name: str, epochs: int, runs: list[tuple[dict[str, float], dict[str, float], float]]) -> dict[str, Any]:
    def average(which: int, metric: str) -> float:
        return mean(run[which][metric] for run in runs)

    row: dict[str, Any] = {"method": name, "encoder": _encoder_of(name), "epochs": epochs}
    for probe, metric in (("linear", "linear_dice"), ("kNN", "knn_dice")):
        row[f"{probe} random"] = average(0, metric)
        row[f"{probe} pretrained"] = average(1, metric)
        row[f"{probe} gain"] = average(1, metric) - average(0, metric)
        row[f"{probe} least gain"] = min(after[metric] - before[metric] for before, after, _ in runs)
    return {**row, "rank": average(1, "rank_me"), "seconds": mean(run[2] for run in runs)}


def _encoder_of(name: str) -> str:
    types = registry.load("methods", name).METHOD.encoder_types
    return CONVOLUTIONAL if CONVOLUTIONAL in types else "transformer"


def probe_before_and_after(
    name: str, seed: int, epochs: int, store: Store
) -> tuple[dict[str, float], dict[str, float], float]:
    """Return the probes before and after one pretraining, and its seconds."""
    (stage,) = _stages(name, seed, epochs, store)
    for _ in run_stage(stage, store, threads=1, attempt=1):
        pass
    rows = [row for row in store_tables(store)["epochs"].to_pylist() if row["stage"] == stage.id]
    probed = {
        when: {r["metric"]: r["value"] for r in rows if (r["epoch"], r["split"]) == (when, "val")}
        for when in (0, epochs)
    }
    return probed[0], probed[epochs], max(row["elapsed_s"] for row in rows if row["split"] == "train")


def _stages(name: str, seed: int, epochs: int, store: Store) -> Iterator[Stage]:
    fields = registry.load("methods", name).METHOD.Settings.model_fields
    settings = {key: value for key, value in _WIDTHS.items() if key in fields}
    settings |= {"optimisation": _OPTIMISATION} | ({"learn": "masks"} if name == "supervised" else {})
    study = validate_study(
        {
            "study": "probes",
            "packs": {"cardiac": {"dataset": "synthetic-cardiac", "options": _PACK}},
            "backbones": {"small": _ENCODERS[_encoder_of(name)]},
            "sources": {"pretrained": ["random", {"pretrain": {"pack": "cardiac"}}]},
            "pretraining": {
                "image_size": _IMAGE_SIZES.get(name, _IMAGE_PX),
                "batch_size": _BATCH,
                "precision": "float32",
                "seed": seed,
                "methods": {name: settings},
            },
            "tasks": {"heart": {"kind": "segmentation", "pack": "cardiac", "training": {"image_size": 32}}},
            "grid": {
                "source": ["pretrained"],
                "method": [name],
                "pretrain_epochs": [epochs],
                "annotations": [1],
                "seed": [0],
            },
        }
    )
    torch.manual_seed(0)
    plan = build_plan(study, _facts(study, store))
    return (stage for stage in plan.stages.values() if stage.kind == "pretrain")
