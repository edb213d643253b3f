"""Every pretraining method on synthetic cardiac slices: what frozen features know before and after."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from raysweep import registry
from raysweep.settings import CONVOLUTIONAL
from raysweep.store import Store
from tests.benchmarks.measurement import Measurement
from tests.benchmarks.pretraining_runs import (
    BATCH,
    IMAGE_PX,
    PATIENTS,
    Probed,
    encoder_of,
    epochs_of,
    probe_pretraining,
)

DESCRIPTION = "Linear and nearest-neighbour probes of every pretraining method against the encoder it started from."

STORE = "RAYSWEEP_BENCHMARK_STORE"
"""Folder of a store that keeps what is trained, so that an interrupted measurement goes on where it was."""
SEEDS = (1, 2, 3)
"""Each has patients of its own; settings were chosen on those of seed 0."""
PROBES = {"linear": "linear_dice", "kNN": "knn_dice"}


def run(quick: bool = False) -> Measurement:
    """Pretrain with every method from random weights, and probe before and after."""
    seeds = SEEDS[:1] if quick else SEEDS
    names = ["simclr", "mae"] if quick else registry.names("methods")
    with tempfile.TemporaryDirectory() as folder:
        store = Store(os.environ.get(STORE, folder)).prepare()
        runs: dict[str, list[Probed]] = {name: [] for name in names}
        for seed in seeds:
            for name in names:
                runs[name].append(probe_pretraining(name, seed, store, epochs=1 if quick else None))
                print(seed, name, runs[name][-1], file=sys.stderr, flush=True)
    return measurement_of(runs)


def measurement_of(runs: Mapping[str, Sequence[Probed]]) -> Measurement:
    """Return the table of what was probed, by method, and what it says."""
    rows = [_row(name, some) for name, some in runs.items() if some]
    left_out = [name for name, some in runs.items() if not some]
    unmeasured = f" Not measured: {', '.join(left_out)}." if left_out else ""
    finding = _finding(rows) + _as_built_finding(runs) + unmeasured
    return Measurement(rows, finding, _setup())


def _finding(rows: list[dict[str, Any]]) -> str:
    both = [row["method"] for row in rows if min(row["linear gain"], row["kNN gain"]) > 0]
    failing = {probe: [row["method"] for row in rows if row[f"{probe} gain"] <= 0] for probe in PROBES}
    unsure = {
        probe: [row["method"] for row in rows if 0 < row[f"{probe} gain"] < _least(row, probe)] for probe in PROBES
    }
    better = {probe: len(rows) - len(names) for probe, names in failing.items()}
    return (
        f"Of {len(rows)} methods {better['kNN']} raise the Dice of the nearest neighbours on held-out patients, "
        f"{better['linear']} that of the linear probe, {len(both)} both."
        + _said("Not better than the random encoder", failing)
        + _said("Better by less than two standard errors", unsure)
    )


def _least(row: Mapping[str, Any], probe: str) -> float:
    """Return the gain from which on it is two standard errors; 0 for a single seed."""
    return 2 * float(row[f"{probe} +-"] or 0)


def _said(what: str, methods: Mapping[str, Sequence[str]]) -> str:
    parts = [f"{probe}: {', '.join(names)}" for probe, names in methods.items() if names]
    return f" {what} by the {'; by the '.join(parts)}." if parts else ""


def _as_built_finding(runs: Mapping[str, Sequence[Probed]]) -> str:
    """Say what the statistics of normalisation layers alone bring a random network."""
    same = [some[0] for name, some in runs.items() if some and encoder_of(name) == CONVOLUTIONAL]
    if not same:
        return ""
    built, random = same[0].as_built, same[0].random
    return (
        " Statistics of the train split alone, without any training, move the random convolutional network of the "
        f"first seed from {built['linear_dice']:.3f} to {random['linear_dice']:.3f} (linear) and from "
        f"{built['knn_dice']:.3f} to {random['knn_dice']:.3f} (kNN): gains are counted from there."
    )


def _setup() -> dict[str, str]:
    return {
        "data": f"synthetic-cardiac, {PATIENTS} patients, 3 slices, end diastole and end systole; trained on "
        f"{PATIENTS * 8 // 10} of them, probed on the {PATIENTS * 2 // 10} of the val and the test split",
        "training": f"60 steps an epoch, {IMAGE_PX} pixels, batches of {BATCH}, narrow heads; AdamW, momentum, crops "
        "and what single methods need stand with their reasons in tests/benchmarks/pretraining_runs.py, all else is "
        "each method's default. Supervised learns the masks that are probed, the others never see them",
        "encoders": "test_resnet; test_vit with patches of 8 pixels where a method needs a transformer, of 4 for MAE; "
        "for I-JEPA a DINOv3 of test_vit's width, depth and patches. On test_vit under twenty settings (rates of 1e-4 "
        "to 2e-3, slower and faster teachers, narrower predictors, other blocks, patches of 4, 40 epochs) the linear "
        "probe of I-JEPA gained up to 0.18 on the patients of seed 0, the neighbours never more than 0.003",
        "random": "the very weights a run started from, batch normalisation having the statistics of the train split; "
        "as built, without them, features nearly coincide, and whatever passes slices through the network in training "
        "mode repairs that, whether it learns or not",
        "probes": "those of every pretrain stage: cells of a 16 x 16 grid (8 x 8 for patches of 8), described by the "
        "feature maps from there on, each of the most frequent class of its pixels; logistic regression, and 20 "
        "nearest neighbours by cosine, from 8192 cells, as many of each class, to 8192 of held-out patients; mean "
        "Dice over three foreground classes",
        "noise of the probes": "each is the mean over 3 draws of cells, to learn from and to ask for, the same draws "
        "for all encoders; a gain of one draw had a standard deviation over 4 draws of 0.007 and 0.008 (linear) and of "
        "0.012 and 0.007 (kNN) for simclr and moco-v3",
        "tried and left": "twice the learning rate: some runs gained as much, others lost up to 0.02 by the "
        "neighbours, with half the effective rank. 2048 cells whatever their class: for one set of cells to ask for, "
        "a standard deviation of 0.015 over those to learn from, against 0.002 to 0.006. A penalty chosen on "
        "held-out train patients: jumps between neighbouring penalties moved Dice by 0.016. Standardised features "
        "for the neighbours: random encoders gain 0.04 to 0.08, trained ones little, and it is not the usual "
        "protocol. The finest map alone: training for invariance to intensity lowers what it knows",
        "patients": "each seed has 200 of its own. Settings, and which methods train longer, were chosen with these "
        "probes on the patients of seed 0, which this table leaves out. Some runs on those of seeds 1 and 2 came "
        "before, none on those of seed 3: Barlow Twins at twice the rate, whose neighbours lost; InfoMin with settings "
        "under which its loss ended at chance; iBOT with fewer hidden patches (kNN -0.005); I-JEPA on test_vit (kNN "
        "-0.042). What replaced them was found on seed 0, the last two with other weights too before they ran on these",
        "limits": "a few tries a method, more for some than for others: the table shows that a method learns, not "
        "which learns best. Gains of 0.01 to 0.02 are weak evidence",
        "+-": "standard error of the gain over seeds (of patients, weights, order and augmentation)",
        "rank": "effective rank of pooled features of held-out slices, of 96 dimensions (transformers: 64)",
        "cost": "declared arithmetic of a step relative to supervised training, at default settings; the contract "
        "tests hold it to counted operations",
        "s/epoch": "seconds of the fastest epoch on a shared core, with fewer small crops than by default: no measure "
        "of cost; bfloat16, transformers float32",
    }


def _row(name: str, runs: Sequence[Probed]) -> dict[str, Any]:
    row: dict[str, Any] = {"method": name, "encoder": encoder_of(name), "epochs": epochs_of(name), "seeds": len(runs)}
    for probe, metric in PROBES.items():
        gains = [run.gain(metric) for run in runs]
        row[f"{probe} random"] = mean(run.random[metric] for run in runs)
        row[f"{probe} pretrained"] = mean(run.trained[metric] for run in runs)
        row[f"{probe} gain"] = mean(gains)
        row[f"{probe} +-"] = stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else ""
    cost = registry.load("methods", name).METHOD.cost
    return {**row, "rank": mean(run.trained["rank_me"] for run in runs), "cost": cost, "s/epoch": runs[0].epoch_s}
