"""Aggregates across tasks: the interquartile mean of an arm's runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from raysweep.analysis._scores import ArmScores, arm_scores
from raysweep.analysis._statistics import NUM_RESAMPLES, Array
from raysweep.analysis._tables import ARM, answer_table
from raysweep.analysis._tests import interquartile_mean
from raysweep.results.read import StudyTables

COLUMNS = {
    "backbone": pa.string(),
    "tuning": pa.string(),
    **ARM,
    "annotations_asked": pa.string(),
    "interquartile_mean": pa.float64(),
    "low": pa.float64(),
    "high": pa.float64(),
    "num_tasks": pa.int64(),
    "num_runs": pa.int64(),
}


def interquartile_means(tables: StudyTables) -> pa.Table:
    """Return the interquartile mean of every arm's runs over tasks and seeds, by annotation count as asked.

    A run's score is its mean over test subjects. The middle half of all runs of an arm is averaged: less moved by one
    odd run than the mean, and less wasteful than the median. The 95 % percentile bootstrap draws runs within each
    task, so it speaks for new seeds on these tasks; null with fewer than two runs in every task. Tasks in which the
    arm has no finished run are missing from ``num_tasks``, and arms that lack a task should not be compared.

    Source: Agarwal et al. 2021, Deep RL at the edge of the statistical precipice, sections 4.1 and 4.3.
    """
    asked: dict[Any, str] = {}
    for cell in tables.cells.to_pylist():
        asked.setdefault((cell["task"], cell["annotations"]), cell["annotations_asked"])
    groups: dict[Any, list[ArmScores]] = {}
    for entry in arm_scores(tables):
        key = (entry.setting.backbone, entry.setting.tuning, entry.arm, asked[entry.setting.task, entry.annotations])
        groups.setdefault(key, []).append(entry)
    return answer_table([_aggregate(entries, key[3]) for key, entries in groups.items()], COLUMNS)


def _aggregate(entries: list[ArmScores], asked: str) -> dict[str, Any]:
    runs = [entry.seed_means for entry in entries if entry.scores.size]
    row = {
        **entries[0].key,
        "annotations_asked": asked,
        "num_tasks": len(runs),
        "num_runs": sum(map(len, runs)),
    }
    if not runs:
        return row
    row["interquartile_mean"] = interquartile_mean(np.concatenate(runs))
    if max(map(len, runs)) > 1:
        row["low"], row["high"] = _interval(runs)
    return row


def _interval(runs: list[Array]) -> tuple[float, float]:
    generator = np.random.default_rng([len(runs), *map(len, runs)])
    drawn = np.concatenate(
        [task[generator.integers(0, len(task), (NUM_RESAMPLES, len(task)))] for task in runs], axis=1
    )
    cut = drawn.shape[1] // 4
    means = np.sort(drawn, axis=1)[:, cut : drawn.shape[1] - cut].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
