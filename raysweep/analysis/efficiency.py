"""Efficiency: what a score costs, and which arms nobody beats at their price."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from raysweep.analysis._scores import ArmScores, arm_scores, by_count, in_study_order
from raysweep.analysis._tables import AXES, answer_table
from raysweep.analysis.arms import Arm, Setting
from raysweep.analysis.cost import chain_seconds
from raysweep.results.read import StudyTables

COLUMNS = {
    **AXES,
    "mean": pa.float64(),
    "hours": pa.float64(),
    "pretrain_hours": pa.float64(),
    "score_per_hour": pa.float64(),
    "device": pa.string(),
    "on_front": pa.bool_(),
    "num_cells": pa.int64(),
}


def efficiency(tables: StudyTables) -> pa.Table:
    """Return, by arm and annotation count, the mean test score and the hours that one cell of it takes.

    ``hours`` is the mean over finished cells of the time of a cell's whole chain, as someone would pay who wants
    this arm alone: its fine-tuning, and each pretraining up to the epoch used; of that ``pretrain_hours`` is
    pretraining. Hours are of one device of the kind named; where stages ran on several kinds ``device`` is null and
    hours should not be compared. ``score_per_hour`` is score over hours. ``on_front`` marks the Pareto front of a
    setting and count: no other arm there scores at least as high in fewer hours, or higher in as many. Differences
    of scores on the front may be noise: see ``comparison``. Times of weights that were downloaded are not known.
    """
    times: dict[Any, list[tuple[float, float]]] = {}
    devices: dict[Any, set[str]] = {}
    stages = {row["stage"]: row for row in tables.stages.to_pylist()}
    for cell in in_study_order(tables, tables.trials()):
        chain = [*(cell["lineage"] or ()), cell["stage"]]
        if any(s not in stages or stages[s]["status"] != "done" for s in chain):
            continue
        seconds = chain_seconds(chain, stages)
        key = (Setting.of(cell), Arm.of(cell), cell["annotations"])
        times.setdefault(key, []).append((sum(seconds), sum(seconds[:-1])))
        devices.setdefault(key, set()).update(stages[s]["device"] or "unknown" for s in chain)
    rows = []
    for group in by_count(arm_scores(tables)).values():
        own = [_row(e, times.get(_key(e), []), devices.get(_key(e), set())) for e in group]
        _mark_front(own)
        rows.extend(own)
    return answer_table(rows, COLUMNS)


def _key(entry: ArmScores) -> tuple[Setting, Arm, int]:
    return entry.setting, entry.arm, entry.annotations


def _row(entry: ArmScores, times: list[tuple[float, float]], devices: set[str]) -> dict[str, Any]:
    row: dict[str, Any] = {**entry.key, "num_cells": len(times)}
    if not times:
        return row
    total, pretraining = np.mean(times, axis=0) / 3600
    return {
        **row,
        "mean": entry.mean,
        "hours": float(total),
        "pretrain_hours": float(pretraining),
        "score_per_hour": entry.mean / float(total) if total > 0 else None,
        "device": devices.pop() if len(devices) == 1 else None,
    }


def _mark_front(rows: list[dict[str, Any]]) -> None:
    known = [row for row in rows if row.get("hours") is not None]
    for row in known:
        row["on_front"] = not any(
            other["hours"] <= row["hours"]
            and other["mean"] >= row["mean"]
            and (other["hours"] < row["hours"] or other["mean"] > row["mean"])
            for other in known
        )
