"""A simulated study with known truth: exact tables of finished, failed and pending cells, without any
training.

Scores follow a power law in the annotation count; a source lowers its deficit, and pretraining lowers it
further with the epochs. Subjects, seeds and slices add normal noise. Counts of pixels are drawn to give each
slice its score.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from raysweep.results.examples import Example, write_examples
from raysweep.results.read import StudyTables
from raysweep.results.write import to_table, write_part
from raysweep.store import Store

Cell = dict[str, Any]
CLASSES = ("right ventricle", "myocardium", "left ventricle")
PRETRAIN_S_PER_EPOCH, FINETUNE_S_PER_EPOCH = 10.0, 1.0
_START = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Effects:
    """The truth that a simulated study is drawn from; scores are 0 to 1."""

    ceiling: float = 0.90
    deficit: float = 0.45
    exponent: float = 0.35
    source_gain: Mapping[str, float] = field(default_factory=dict)
    method_gain: Mapping[str, float] = field(default_factory=dict)
    pretrain_halfway: float = 2.0
    time_constant_epochs: float = 6.0
    subject_sd: float = 0.04
    seed_sd: float = 0.008
    interaction_sd: float = 0.01
    slice_sd: float = 0.02
    curve_sd: float = 0.003

    def score(self, cell: Mapping[str, Any]) -> float:
        """Return the expected test score of a cell."""
        gain = self.source_gain.get(cell["source"], 0.0)
        if cell["pretrain_epochs"] is not None:
            learnt = cell["pretrain_epochs"] / (cell["pretrain_epochs"] + self.pretrain_halfway)
            gain += (1 - gain) * self.method_gain.get(cell["method"], 0.3) * learnt
        return float(self.ceiling - self.deficit * cell["annotations"] ** -self.exponent * (1 - gain))

    def speed(self, cell: Mapping[str, Any]) -> float:
        """Return the time constant of a cell's learning curve, in epochs."""
        slower = 1.0 if cell["pretrain_epochs"] is None else 0.5
        return self.time_constant_epochs * slower * (1 - 0.6 * self.source_gain.get(cell["source"], 0.0))


def simulated_study(
    seed: int = 0,
    sources: Mapping[str, bool] | None = None,
    methods: Sequence[str] = ("byol",),
    pretrain_epochs: Sequence[int] = (1, 6, 25),
    annotations: Sequence[int] = (8, 30, 120),
    seeds: Sequence[int] = (0, 1, 2),
    num_subjects: int = 10,
    slices_per_subject: int = 3,
    epochs: int = 30,
    effects: Effects | None = None,
    metric: str = "dice",
    name: str = "simulated",
    task: str = "acdc",
    pending: Callable[[Cell], bool] = lambda cell: False,
    failed: Callable[[Cell], bool] = lambda cell: False,
    failed_pretraining: Callable[[Cell], bool] = lambda cell: False,
) -> StudyTables:
    """Return the tables of a study; ``sources`` says of each source whether it ends in a pretraining on the
    axes.

    A pretraining of several lengths is one shared run of the longest, per source, method and seed. ``failed`` and
    ``failed_pretraining`` say of a cell whether its fine-tuning, or the pretraining before it, has failed.
    """
    truth = effects or Effects(source_gain={"imagenet": 0.3, "imagenet → acdc": 0.3})
    sources = sources or {"random": False, "imagenet": False, "imagenet → acdc": True}
    rng = np.random.default_rng(seed)
    subject_effects = rng.normal(0, truth.subject_sd, num_subjects)
    seed_effects = {s: rng.normal(0, truth.seed_sd) for s in seeds}
    rows: dict[str, list[Cell]] = {"cells": [], "stages": [], "epochs": [], "cases": []}
    runs: dict[str, Cell] = {}
    for cell in _cells(name, task, sources, methods, pretrain_epochs, annotations, seeds):
        rows["cells"].append(cell)
        if pending(cell):
            continue
        parent = _pretraining(cell, max(pretrain_epochs), runs)
        if parent and failed_pretraining(cell):
            runs[parent] |= {"status": "failed", "error": "StageError: loss is not finite"}
            continue
        ended = _finetuning(cell, parent, epochs, metric)
        rows["stages"].append(ended)
        if failed(cell):
            ended |= {"status": "failed", "error": "RuntimeError: CUDA out of memory", "best_epoch": None}
            continue
        offset = seed_effects[cell["seed"]] + rng.normal(0, truth.seed_sd)
        ended["val_score"] = _add_curve(rows["epochs"], cell, truth, epochs, metric, offset, rng)
        means = subject_effects + offset + rng.normal(0, truth.interaction_sd, num_subjects)
        ended["test_score"] = _add_cases(rows["cases"], cell, truth, means, slices_per_subject, metric, rng)
    rows["stages"] = [*runs.values(), *rows["stages"]]
    return StudyTables(study=name, **{table: to_table(table, values) for table, values in rows.items()})


def several_tasks(num_tasks: int, **options: Any) -> StudyTables:
    """Return the tables of one study of several tasks, each simulated with other patients and seeds of noise."""
    parts = [simulated_study(number, task=f"task{number + 1}", **options) for number in range(num_tasks)]
    names = ("cells", "stages", "epochs", "cases")
    joined = {name: pa.concat_tables([getattr(part, name) for part in parts]).unify_dictionaries() for name in names}
    once = {stage: row for row, stage in enumerate(joined["stages"]["stage"].to_pylist())}  # shared by the tasks
    joined["stages"] = joined["stages"].take(list(once.values()))
    return StudyTables(parts[0].study, **joined)


def simulated_examples(tables: StudyTables, stage: str, num: int = 3, size: int = 64) -> list[Example]:
    """Return small example slices of a finished finetune stage; its error grows as its score falls."""
    scores = {row["stage"]: row["test_score"] for row in tables.stages.to_pylist()}
    if scores.get(stage) is None:
        return []
    shift = round((1 - scores[stage]) * size / 5)
    found = []
    for position in range(num):
        rng = np.random.default_rng(position)
        truth = _heart(size, size // 2 + 2 * position, size // 2)
        prediction = _heart(size, size // 2 + 2 * position + shift, size // 2 - shift)
        image = 50 + 45 * (truth == 3) + 25 * (truth == 2) + 60 * (truth == 1) + rng.normal(0, 9, truth.shape)
        found.append(
            Example(f"patient{position + 1:03}", 0, 4 + position, image.clip(0, 255).astype(np.uint8),
                    truth, prediction, score=scores[stage])
        )  # fmt: skip
    return found


def write_to(store: Store, tables: StudyTables, *, examples: bool = True) -> None:
    """Write the tables as a run would: the cells as one part, the other tables as one part per stage."""
    write_part(store, "cells", tables.study, tables.cells)
    for table in ("stages", "epochs", "cases"):
        rows: dict[str, list[Cell]] = {}
        for row in getattr(tables, table).to_pylist():
            rows.setdefault(row["stage"], []).append(row)
        for stage, part in rows.items():
            write_part(store, table, stage, part)
    for row in tables.stages.to_pylist():
        if examples and row["kind"] == "finetune" and row["status"] == "done":
            write_examples(store, row["stage"], simulated_examples(tables, row["stage"]))


def _cells(
    study: str,
    task: str,
    sources: Mapping[str, bool],
    methods: Sequence[str],
    lengths: Sequence[int],
    annotations: Sequence[int],
    seeds: Sequence[int],
) -> list[Cell]:
    cells = []
    for source, pretrained in sources.items():
        axis = [(m, e) for m in methods for e in lengths] if pretrained else [(None, None)]
        for method, length in axis:
            for count in annotations:
                for seed in seeds:
                    chain = [source] if method is None else [source, method, f"{length}ep"]
                    name = "/".join([*([] if task == "acdc" else [task]), *chain, f"n{count}", f"s{seed}"])
                    lineage = [] if method is None else [_digest(study, source, method, seed)]
                    cells.append(
                        {"study": study, "cell": name, "source": source, "method": method,
                         "pretrain_epochs": length, "annotations": count, "seed": seed, "task": task,
                         "annotations_asked": "all" if count == max(annotations) else str(count),
                         "backbone": "resnet50", "tuning": "full", "stage": _digest(study, name),
                         "lineage": lineage}
                    )  # fmt: skip
    return cells


def _pretraining(cell: Cell, epochs: int, runs: dict[str, Cell]) -> str | None:
    if not cell["lineage"]:
        return None
    stage: str = cell["lineage"][0]
    runs.setdefault(
        stage,
        {"stage": stage, "kind": "pretrain", "status": "done", "method": cell["method"], "pack": "pack",
         "encoder": "resnet50", "seed": cell["seed"], "epochs": epochs, "steps": epochs * 10,
         "images": epochs * 1000, "num_train": 1000, "config": "{}", "attempt": 1, "started_at": _START,
         "wall_s": epochs * PRETRAIN_S_PER_EPOCH, "device": "cpu", "precision": "float32", "threads": 1,
         "host": "node", "versions": "{}"},
    )  # fmt: skip
    return stage


def _finetuning(cell: Cell, parent: str | None, epochs: int, metric: str) -> Cell:
    return {
        "stage": cell["stage"], "kind": "finetune", "status": "done", "task": "segmentation", "pack": "pack",
        "encoder": "resnet50", "parent": parent, "parent_epoch": cell["pretrain_epochs"], "metric": metric,
        "seed": cell["seed"], "epochs": epochs, "steps": epochs * 10, "images": epochs * 160,
        "num_train": cell["annotations"], "best_epoch": epochs, "attempt": 1, "started_at": _START,
        "wall_s": epochs * FINETUNE_S_PER_EPOCH, "device": "cpu", "precision": "float32", "threads": 1,
        "host": "node", "versions": json.dumps({"raysweep": "0.1"}), "config": "{}",
        "train_subset": ["p/0/0"],
    }  # fmt: skip


def _add_curve(
    rows: list[Cell], cell: Cell, truth: Effects, epochs: int, metric: str, offset: float,
    rng: np.random.Generator,
) -> float:  # fmt: skip
    final, speed = truth.score(cell) + offset, truth.speed(cell)
    value = 0.0
    for epoch in range(1, epochs + 1):
        rise = 1 - math.exp(-epoch / speed)
        value = float(np.clip(final * rise + rng.normal(0, truth.curve_sd), 0, 1))
        common = {"stage": cell["stage"], "epoch": epoch, "step": epoch * 10,
                  "elapsed_s": epoch * FINETUNE_S_PER_EPOCH}  # fmt: skip
        rows.append({**common, "split": "train", "metric": "loss", "value": 1 - final * rise})
        rows.append({**common, "split": "val", "metric": metric, "value": value})
    return value


def _add_cases(
    rows: list[Cell], cell: Cell, truth: Effects, subject_offsets: np.ndarray, num_slices: int, metric: str,
    rng: np.random.Generator,
) -> float:  # fmt: skip
    """Draw counts for every slice and class, and return the mean score over slices."""
    slice_means = []
    for subject, subject_offset in enumerate(subject_offsets):
        for number in range(num_slices):
            mean = truth.score(cell) + subject_offset + rng.normal(0, truth.slice_sd)
            present = [c for c in (1, 2, 3) if not (c == 1 and number == 0)]
            counts = {c: _counts(mean, metric, 2000, 60_000) for c in present}
            for index, name in enumerate(("background", *CLASSES)):
                tp, fp, fn, tn = counts.get(index, (58_000, 900, 900, 200) if index == 0 else (0, 0, 0, 60_000))
                total = 2 * tp + fp + fn
                rows.append(
                    {"stage": cell["stage"], "split": "test", "subject": f"patient{subject + 1:03}",
                     "volume": f"patient{subject + 1:03}_frame01", "frame": 0, "slice_number": number,
                     "class_index": index, "class_name": name, "tp": tp, "fp": fp, "fn": fn, "tn": tn,
                     "dice": 2 * tp / total if total else None, "iou": tp / (tp + fp + fn) if total else None}
                )  # fmt: skip
            scores = [_score(counts[c], metric) for c in present]
            slice_means.append(sum(scores) / len(scores))
    return float(np.mean(slice_means))


def _counts(score: float, metric: str, num_truth: int, num_pixels: int) -> tuple[int, int, int, int]:
    """Return tp, fp, fn, tn of a class of ``num_truth`` pixels whose score is nearest to ``score``."""
    bounded = min(max(score, 0.01), 0.99)
    dice = bounded if metric == "dice" else 2 * bounded / (1 + bounded)
    tp = round(num_truth * dice)
    fn = num_truth - tp
    fp = max(round(2 * tp / dice - 2 * tp - fn), 0)
    return tp, fp, fn, num_pixels - tp - fp - fn


def _score(counts: tuple[int, int, int, int], metric: str) -> float:
    tp, fp, fn, _ = counts
    return 2 * tp / (2 * tp + fp + fn) if metric == "dice" else tp / (tp + fp + fn)


def _heart(size: int, row: int, column: int) -> np.ndarray:
    """Return a label image like a short-axis heart slice: a ring around a disc, and a crescent beside it."""
    y, x = np.mgrid[:size, :size]
    distance = np.hypot(y - row, x - column)
    labels = np.zeros((size, size), np.uint8)
    labels[np.hypot((y - row) / 1.2, x - column + size * 0.18) < size * 0.16] = 1
    labels[distance < size * 0.19] = 2
    labels[distance < size * 0.12] = 3
    return labels


def _digest(*parts: object) -> str:
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:16]
