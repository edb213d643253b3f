"""Stability: how far the seeds of an arm lie apart while it trains."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from raysweep.analysis._tables import AXES, answer_table
from raysweep.analysis.arms import Arm, Setting
from raysweep.results.read import StudyTables

EPOCHS = {
    **AXES,
    "epoch": pa.int64(),
    "mean": pa.float64(),
    "sd": pa.float64(),
    "num_seeds": pa.int64(),
}
SUMMARY = {
    **AXES,
    "mean_sd": pa.float64(),
    "final_sd": pa.float64(),
    "first_epoch": pa.int64(),
    "last_epoch": pa.int64(),
    "num_seeds": pa.int64(),
}
_CURVES = """
    SELECT t.task, t.backbone, t.tuning, t.source, t.method, t.pretrain_epochs, t.annotations, e.epoch,
           list(e.value ORDER BY t.seed, e.value) AS values
    FROM (SELECT DISTINCT task, backbone, tuning, source, method, pretrain_epochs, annotations, seed, stage, metric
          FROM trials WHERE status = 'done') t
         JOIN epochs e ON e.stage = t.stage AND e.split = 'val' AND e.metric = t.metric
    WHERE e.value IS NOT NULL
    GROUP BY ALL
"""


def stability(tables: StudyTables) -> pa.Table:
    """Return the spread over seeds of the validation score, by arm, annotation count and epoch.

    ``sd`` is the standard deviation over the finished seeds (divisor n - 1) of the score of that epoch; null with
    one seed.
    """
    return answer_table([row for rows in _by_arm(tables).values() for row in rows], EPOCHS)


def stability_summary(tables: StudyTables) -> pa.Table:
    """Return the area under the spread curve by arm and annotation count.

    ``mean_sd`` is the area under ``stability``'s sd over epochs (trapezoids) divided by the epochs it spans: the
    average spread during training. ``final_sd`` is that of the last epoch. Only epochs that every finished seed of
    the arm has enter; null with one seed.
    """
    return answer_table([_summarise(rows) for rows in _by_arm(tables).values()], SUMMARY)


def _by_arm(tables: StudyTables) -> dict[Any, list[dict[str, Any]]]:
    cells = tables.cells.select(["task", "backbone", "tuning", "source", "method", "pretrain_epochs", "annotations"])
    order: dict[Any, list[dict[str, Any]]] = {}
    for cell in cells.to_pylist():
        order.setdefault((Setting.of(cell), cell["annotations"], Arm.of(cell)), [])
    for row in sorted(tables.query(_CURVES).to_pylist(), key=lambda row: row["epoch"]):
        values = row["values"]
        arm = Arm.of(row)
        order[Setting.of(row), row["annotations"], arm].append(
            {
                **row,
                "arm": arm.label,
                "mean": float(np.mean(values)),
                "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None,
                "num_seeds": len(values),
            }
        )
    return {key: rows for key, rows in order.items() if rows}


def _summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    num_seeds = max(row["num_seeds"] for row in rows)
    complete = [row for row in rows if row["num_seeds"] == num_seeds]
    first, last = complete[0], complete[-1]
    summary = {**first, "first_epoch": first["epoch"], "last_epoch": last["epoch"], "num_seeds": num_seeds}
    if num_seeds < 2:
        return {**summary, "mean_sd": None, "final_sd": None}
    epochs, spread = ([row[name] for row in complete] for name in ("epoch", "sd"))
    span = epochs[-1] - epochs[0]
    mean_sd = float(np.trapezoid(spread, epochs) / span) if span else spread[0]
    return {**summary, "mean_sd": mean_sd, "final_sd": spread[-1]}
