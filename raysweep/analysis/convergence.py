"""Convergence: epochs and seconds until the validation score reaches a target."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa

from raysweep.analysis._scores import arm_scores, by_count, known_arm
from raysweep.analysis._statistics import mean_interval
from raysweep.analysis._tables import AXES, answer_table
from raysweep.analysis.arms import Arm, Setting
from raysweep.results.read import StudyTables

FRACTIONS = (0.95, 0.99)
COLUMNS = {
    "cell": pa.string(),
    **AXES,
    "seed": pa.int64(),
    "target": pa.string(),
    "fraction": pa.float64(),
    "threshold": pa.float64(),
    "epoch": pa.int64(),
    "elapsed_s": pa.float64(),
    "censored": pa.bool_(),
    "last_epoch": pa.int64(),
    "final": pa.float64(),
}
SUMMARY = {
    **AXES,
    "target": pa.string(),
    "fraction": pa.float64(),
    "median_epoch": pa.float64(),
    "median_elapsed_s": pa.float64(),
    "num_cells": pa.int64(),
    "num_censored": pa.int64(),
}
SPEED_UP = {
    **AXES,
    "reference": pa.string(),
    "target": pa.string(),
    "fraction": pa.float64(),
    "speed_up": pa.float64(),
    "low": pa.float64(),
    "high": pa.float64(),
    "bound": pa.string(),
    "num_seeds": pa.int64(),
    "num_censored": pa.int64(),
    "num_reference_censored": pa.int64(),
}
_CURVES = """
    SELECT t.cell, t.task, t.backbone, t.tuning, t.source, t.method, t.pretrain_epochs, t.annotations, t.seed,
           list(e.epoch ORDER BY e.epoch) AS epochs, list(e.value ORDER BY e.epoch) AS values,
           list(e.elapsed_s ORDER BY e.epoch) AS seconds
    FROM trials t JOIN epochs e ON e.stage = t.stage AND e.split = 'val' AND e.metric = t.metric
    WHERE t.status = 'done' AND e.epoch > 0 AND e.value IS NOT NULL
    GROUP BY ALL
"""


def convergence(tables: StudyTables) -> pa.Table:
    """Return, per finished cell and target, the first epoch whose validation score is at least the threshold.

    The score is the stage's metric on the validation split, and a final score is that of the last epoch
    validated. Threshold: 95 % and 99 % of a final score, which for target ``best`` is the highest mean over
    seeds among the arms at that annotation count, and for target ``own`` the cell's own. ``elapsed_s`` is
    training time so far. Where the threshold is not reached by ``last_epoch`` the row is ``censored`` and
    epoch and seconds are null: they are at least as large as the run was long. Epochs are as fine as the
    validation interval of the study.
    """
    by_cell = {curve["cell"]: curve for curve in tables.query(_CURVES).to_pylist()}
    curves = [by_cell[name] for name in tables.cells["cell"].to_pylist() if name in by_cell]
    best = _best_finals(curves)
    rows: list[dict[str, Any]] = []
    for curve in curves:
        finals = {"best": best[Setting.of(curve), curve["annotations"]], "own": curve["values"][-1]}
        for target, final in finals.items():
            rows.extend(_reach(curve, target, fraction, fraction * final) for fraction in FRACTIONS)
    return answer_table(rows, COLUMNS)


def convergence_summary(tables: StudyTables) -> pa.Table:
    """Return the median over seeds of ``convergence`` by arm and annotation count.

    A censored cell counts as later than every other, so the median is null where half of the cells or more
    are censored.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in convergence(tables).to_pylist():
        key = (Setting.of(row), Arm.of(row), row["annotations"], row["target"], row["fraction"])
        groups.setdefault(key, []).append(row)
    return answer_table([_summarise(rows) for rows in groups.values()], SUMMARY)


def speed_up(
    tables: StudyTables, reference: str | None = None, target: str = "best", fraction: float = 0.95
) -> pa.Table:
    """Return how many times sooner than a reference each arm converges, by annotation count.

    Per seed, the epochs the reference needs over the epochs the arm needs (see ``convergence`` for ``target`` and
    ``fraction``); ``speed_up`` is their geometric mean over the seeds both have, with the 95 % bootstrap interval of
    ``mean_interval`` on the logarithm. A censored cell counts with the last epoch it ran, which makes the result a
    bound: ``at least`` where only the reference is censored, ``at most`` where only the arm is, and null (``unknown``)
    where both are. Without a ``reference`` the first arm of the study is it.

    Raises:
        QueryError: if there is no such arm.
    """
    entries = arm_scores(tables)
    if reference is not None:
        known_arm(tables, entries, reference)
    reached: dict[Any, dict[int, dict[str, Any]]] = {}
    for row in convergence(tables).to_pylist():
        if row["target"] == target and row["fraction"] == fraction:
            key = (Setting.of(row), row["annotations"], row["arm"])
            reached.setdefault(key, {})[row["seed"]] = row
    rows = []
    for (setting, count), group in by_count(entries).items():
        base = reference or group[0].arm.label
        rows += [
            {
                **entry.key,
                "reference": base,
                "target": target,
                "fraction": fraction,
                **_faster(reached.get((setting, count, entry.arm.label), {}), reached.get((setting, count, base), {})),
            }
            for entry in group
            if entry.arm.label != base
        ]
    return answer_table(rows, SPEED_UP)


def _faster(own: dict[int, dict[str, Any]], reference: dict[int, dict[str, Any]]) -> dict[str, Any]:
    seeds = sorted(own.keys() & reference.keys())
    pairs = [(own[seed], reference[seed]) for seed in seeds]
    censored = [sum(pair[i]["censored"] for pair in pairs) for i in (0, 1)]
    row = {"num_seeds": len(seeds), "num_censored": censored[0], "num_reference_censored": censored[1]}
    if not seeds or all(censored):
        return {**row, "bound": "unknown" if seeds else None}
    ratios = [[math.log(_epochs(r) / _epochs(o))] for o, r in pairs]
    interval = mean_interval(np.array(ratios))
    bound = "at most" if censored[0] else "at least" if censored[1] else "estimate"
    values = {"speed_up": interval.mean, "low": interval.low, "high": interval.high}
    return {**row, **{name: float(np.exp(value)) for name, value in values.items()}, "bound": bound}


def _epochs(row: dict[str, Any]) -> int:
    return int(row["last_epoch"] if row["censored"] else row["epoch"])


def _best_finals(curves: list[dict[str, Any]]) -> dict[tuple[Setting, int], float]:
    finals: dict[tuple[Setting, int], dict[Arm, list[float]]] = {}
    for curve in curves:
        group = finals.setdefault((Setting.of(curve), curve["annotations"]), {})
        group.setdefault(Arm.of(curve), []).append(curve["values"][-1])
    return {key: max(float(np.mean(values)) for values in arms.values()) for key, arms in finals.items()}


def _reach(curve: dict[str, Any], target: str, fraction: float, threshold: float) -> dict[str, Any]:
    reached = np.flatnonzero(np.asarray(curve["values"]) >= threshold)
    first = int(reached[0]) if len(reached) else None
    return {
        **curve,
        "arm": Arm.of(curve).label,
        "target": target,
        "fraction": fraction,
        "threshold": threshold,
        "epoch": None if first is None else curve["epochs"][first],
        "elapsed_s": None if first is None else curve["seconds"][first],
        "censored": first is None,
        "last_epoch": curve["epochs"][-1],
        "final": curve["values"][-1],
    }


def _summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        **rows[0],
        "median_epoch": _median([row["epoch"] for row in rows]),
        "median_elapsed_s": _median([row["elapsed_s"] for row in rows]),
        "num_cells": len(rows),
        "num_censored": sum(row["censored"] for row in rows),
    }


def _median(values: list[float | None]) -> float | None:
    median = float(np.median([np.inf if value is None else value for value in values]))
    return median if np.isfinite(median) else None
