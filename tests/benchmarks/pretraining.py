"""Every pretraining method on synthetic cardiac slices: what frozen features know before and after."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from scipy.stats import spearmanr

from raysweep import registry
from raysweep.planning import Stage, build_plan
from raysweep.results.read import store_tables
from raysweep.settings import CONVOLUTIONAL, Augmentation
from raysweep.stages.run import run_stage
from raysweep.store import Store
from raysweep.study.load import validate_study
from raysweep.sweep import _facts
from tests.benchmarks.measurement import Measurement

DESCRIPTION = "Linear and nearest-neighbour probes of every pretraining method against the encoder it started from."

STORE = "RAYSWEEP_BENCHMARK_STORE"
"""Folder of a store that keeps what is trained, so that an interrupted measurement goes on where it was."""
SEEDS = (0, 1)
_BATCH, _IMAGE_PX = 16, 64
_EPOCHS, _LONGER = 6, {"mae": 15, "simmim": 15, "i-jepa": 15}
_PRECISIONS = {CONVOLUTIONAL: "bfloat16", "transformer": "float32"}  # whichever is faster on a CPU that has both
PATIENTS = 100
_PACK = {"slices": 3, "frames": 2, "size_px": [72, 88], "cine": False}
_ENCODERS = {
    "convolutional": {"encoder": "test_resnet", "channels": 1},
    "transformer": {"encoder": "test_vit", "channels": 1, "options": {"patch_size": 8}},
}
_OPTIMISATION = {"optimiser": "adamw", "lr": 2e-3, "weight_decay": 0.01, "warmup_epochs": 1, "clip_norm": 3.0}
_WIDTHS = {"hidden_features": 512, "output_features": 128, "predictor_features": 128, "num_prototypes": 256}
_WIDTHS |= {"decoder_features": 64, "decoder_depth": 2, "decoder_heads": 4, "predictor_depth": 2, "predictor_heads": 4}
_WIDTHS |= {"num_small_crops": 2, "bottleneck_features": 128}
# Defaults are for hundreds of epochs on slices of 224 pixels; here there are some 200 steps on slices of 64.
_MOMENTUM = {"tau_start": 0.9, "tau_end": 0.99}  # an average over ten steps, where 0.99 takes 100 and 0.999 1000
_LEAST_CROP = 0.3  # of a slice of 64 pixels a crop of 8 % is 18 pixels wide: a piece of tissue, without a heart
_SMALL_CROP = (0.15, 0.4)
_OF_METHODS: dict[str, dict[str, Any]] = {
    "simmim": {"mask_px": 8},  # one patch; squares of 32 pixels would leave two by two
    "mae": {"mask_share": 0.6},  # a quarter of 64 patches is too few to tell where the heart is
    "ibot": {"hidden_features": 128},  # the head runs on every patch and would take most of the time
    "dinov2": {"hidden_features": 128},
    "supervised": {"learn": "masks"},
}

Probed = tuple[dict[str, float], dict[str, float], float]
"""Probes before and after a pretraining, and the seconds of its fastest epoch."""


def run(quick: bool = False) -> Measurement:
    """Pretrain with every method from random weights, and probe before and after."""
    seeds = SEEDS[:1] if quick else SEEDS
    names = ["simclr", "mae"] if quick else registry.names("methods")
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(os.environ.get(STORE, folder))).prepare()
        runs: dict[str, list[Probed]] = {name: [] for name in names}
        for seed in seeds:
            for name in names:
                runs[name].append(probe_before_and_after(name, seed, 1 if quick else epochs_of(name), store))
                print(seed, name, runs[name][-1], file=sys.stderr, flush=True)
    return measurement_of(runs)


def measurement_of(runs: Mapping[str, Sequence[Probed]]) -> Measurement:
    """Return the table of what was probed, by method, and what it says."""
    rows = [_row(name, some) for name, some in runs.items() if some]
    return Measurement(rows, _finding(rows), _setup())


def _finding(rows: list[dict[str, Any]]) -> str:
    both = [row["method"] for row in rows if min(row["linear gain"], row["kNN gain"]) > 0]
    failing = {probe: [row["method"] for row in rows if row[f"{probe} gain"] <= 0] for probe in ("linear", "kNN")}
    better = {probe: len(rows) - len(names) for probe, names in failing.items()}
    said = [f"{probe}: {', '.join(names)}" for probe, names in failing.items() if names]
    return (
        f"Of {len(rows)} methods {better['kNN']} raise the Dice of the nearest neighbours on held-out patients, "
        f"{better['linear']} that of the linear probe, {len(both)} both."
        + (f" Not better than the random encoder by the {'; by the '.join(said)}." if said else "")
        + _cost_finding(rows)
    )


def _cost_finding(rows: list[dict[str, Any]]) -> str:
    """Say how well declared costs order the measured seconds."""
    same = [row for row in rows if row["encoder"] == CONVOLUTIONAL]
    if len(same) < 3:
        return ""
    agreement = spearmanr([row["cost"] for row in same], [row["s/epoch"] for row in same]).statistic
    return f" Declared cost and measured seconds of convolutional encoders: rank correlation {agreement:.2f}."


def _setup() -> dict[str, str]:
    return {
        "data": f"synthetic-cardiac, {PATIENTS} patients, 3 slices, end diastole and end systole; trained on "
        "480 slices of 80 patients, probed on 60 of 10 others",
        "training": f"{_EPOCHS} epochs ({max(_LONGER.values())} where a transformer predicts hidden patches), "
        f"{_IMAGE_PX} pixels, batches of {_BATCH}; one optimiser for all (AdamW 0.002, weight decay 0.01, 1 epoch of "
        "warm-up, cosine, clipped at 3), narrow heads, 2 small crops, momentum from 0.9 to 0.99, crops of at least "
        f"{_LEAST_CROP:.0%} of a slice ({_SMALL_CROP[0]:.0%} to {_SMALL_CROP[1]:.0%} if small), and what the file of "
        "the benchmark says of single methods; all else each method's defaults. Supervised learns the masks that are "
        "probed, the others never see them",
        "encoders": "test_resnet, or test_vit with patches of 8 where a method needs a transformer",
        "probes": "cells of a 16 x 16 grid (test_vit: 8 x 8), described by the feature maps from there on, each of "
        "the most frequent class of its pixels: logistic regression, and 20 nearest neighbours, from 2048 cells to "
        "8192 of held-out patients; mean Dice over three foreground classes",
        "limits": "some 200 steps on 480 slices are few. A linear probe of all maps of a random convolutional network "
        "already finds much, and in trials one such network scored 0.18 to 0.29 by the cells it learnt from, more than "
        "training moves it: small linear gains and losses say nothing. Neighbours, which weigh all features alike, "
        "tell the encoders apart. Features of small transformers that predict hidden patches have few dimensions after "
        "so few steps (see rank), so that their cosines hardly differ",
        "random": "the very encoder a run started from, probed the same way",
        "+-": "standard error of the gain over seeds (of weights, order and augmentation), where there are several",
        "rank": "effective rank of pooled features of the val split, of 96 dimensions (test_vit: 64)",
        "cost": "declared arithmetic of a step relative to supervised training",
        "s/epoch": "seconds of the fastest epoch on one core of a shared machine; bfloat16, test_vit float32",
    }


def epochs_of(name: str) -> int:
    """Return the epochs that a method is given: more where a transformer predicts hidden patches."""
    return _LONGER.get(name, _EPOCHS)


def _row(name: str, runs: Sequence[Probed]) -> dict[str, Any]:
    row: dict[str, Any] = {"method": name, "encoder": _encoder_of(name), "seeds": len(runs)}
    for probe, metric in (("linear", "linear_dice"), ("kNN", "knn_dice")):
        gains = [after[metric] - before[metric] for before, after, _ in runs]
        row[f"{probe} random"] = mean(before[metric] for before, _, _ in runs)
        row[f"{probe} pretrained"] = mean(after[metric] for _, after, _ in runs)
        row[f"{probe} gain"] = mean(gains)
        row[f"{probe} +-"] = stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else ""
    cost = registry.load("methods", name).METHOD.cost
    return {**row, "rank": mean(after["rank_me"] for _, after, _ in runs), "cost": cost, "s/epoch": runs[0][2]}


def _encoder_of(name: str) -> str:
    types = registry.load("methods", name).METHOD.encoder_types
    return CONVOLUTIONAL if CONVOLUTIONAL in types else "transformer"


def probe_before_and_after(name: str, seed: int, epochs: int, store: Store, patients: int = PATIENTS) -> Probed:
    """Return what a pretraining changes; it is trained unless the store has it."""
    stage = stage_of(name, seed, epochs, store, patients)
    if stage.id not in store.ledger():
        for _ in run_stage(stage, store, threads=1, attempt=1):
            pass
    rows = [row for row in store_tables(store)["epochs"].to_pylist() if row["stage"] == stage.id]
    probed = {
        when: {r["metric"]: r["value"] for r in rows if (r["epoch"], r["split"]) == (when, "val")}
        for when in (0, epochs)
    }
    elapsed_s = [row["elapsed_s"] for row in rows if row["split"] == "train" and row["metric"] == "loss"]
    return probed[0], probed[epochs], min(after - before for before, after in pairwise((0.0, *elapsed_s)))


def settings_of(name: str) -> dict[str, Any]:
    """Return what a method is trained with here, beside its defaults."""
    defaults = registry.load("methods", name).METHOD.Settings()
    fields = dict(defaults)
    settings = {key: value for key, value in (_WIDTHS | _MOMENTUM).items() if key in fields}
    settings |= {key: changed for key, value in fields.items() if (changed := _larger_crops(key, value))}
    return settings | {"optimisation": _OPTIMISATION} | _OF_METHODS.get(name, {})


def _larger_crops(key: str, value: Any) -> Any:
    """Return what a group of settings changes to, so that its crops still show a heart; None for other settings."""
    if key == "small_crop_scale":
        return _SMALL_CROP
    if isinstance(value, Augmentation):
        least, most = value.crop_scale
        return {"crop_scale": _SMALL_CROP if most < 0.5 else (max(least, _LEAST_CROP), most)}
    inner = getattr(value, "augmentation", None)
    return {"augmentation": _larger_crops("augmentation", inner)} if isinstance(inner, Augmentation) else None


def stage_of(name: str, seed: int, epochs: int, store: Store, patients: int = PATIENTS) -> Stage:
    """Return the pretraining of a method."""
    study = validate_study(
        {
            "study": "probes",
            "packs": {"cardiac": {"dataset": "synthetic-cardiac", "options": {**_PACK, "patients": patients}}},
            "backbones": {"small": _ENCODERS[_encoder_of(name)]},
            "sources": {"pretrained": ["random", {"pretrain": {"pack": "cardiac"}}]},
            "pretraining": {
                "image_size": _IMAGE_PX,
                "batch_size": _BATCH,
                "precision": _PRECISIONS[_encoder_of(name)],
                "seed": seed,
                "methods": {name: settings_of(name)},
            },
            "tasks": {"labels": {"kind": "classification", "pack": "cardiac", "training": {"image_size": 32}}},
            "grid": {
                "source": ["pretrained"],
                "method": [name],
                "pretrain_epochs": [epochs],
                "annotations": [1],
                "seed": [0],
            },
        }
    )
    plan = build_plan(study, _facts(study, store))
    return next(stage for stage in plan.stages.values() if stage.kind == "pretrain")
