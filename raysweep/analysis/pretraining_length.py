"""Pretraining length: the test score by pretraining epochs, and the fewest epochs within noise of the
best."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from raysweep.analysis._scores import ArmScores, arm_scores, paired
from raysweep.analysis._statistics import mean_interval
from raysweep.analysis._tables import AXES, answer_table
from raysweep.analysis.arms import Setting
from raysweep.results.read import StudyTables

COLUMNS = {
    **AXES,
    "mean": pa.float64(),
    "low": pa.float64(),
    "high": pa.float64(),
    "num_seeds": pa.int64(),
    "best": pa.bool_(),
    "behind_best": pa.float64(),
    "behind_low": pa.float64(),
    "behind_high": pa.float64(),
    "within_noise": pa.bool_(),
    "fewest_within_noise": pa.bool_(),
}


def pretraining_length(tables: StudyTables) -> pa.Table:
    """Return the test score by pretraining epochs of every source, method and annotation count that has
    several lengths.

    ``best`` marks the length with the highest mean. ``behind_best`` is the paired difference (best minus this
    length, by seed and subject) with its 95 % bootstrap interval; a length is ``within_noise`` if that
    interval includes zero, or if it is the best. ``fewest_within_noise`` marks the shortest such length: a
    shorter one is worse than the best as far as these seeds and patients can tell. Being within noise is not
    being equal: few seeds put many lengths within noise.
    """
    runs: dict[tuple[Setting, str, int], list[ArmScores]] = {}
    for entry in arm_scores(tables):
        if entry.arm.pretrain_epochs is not None:
            runs.setdefault((entry.setting, entry.arm.series, entry.annotations), []).append(entry)
    rows: list[dict[str, Any]] = []
    for entries in runs.values():
        if len(entries) > 1:
            rows.extend(_lengths(sorted(entries, key=lambda entry: entry.arm.pretrain_epochs or 0)))
    return answer_table(rows, COLUMNS)


def _lengths(entries: list[ArmScores]) -> list[dict[str, Any]]:
    intervals = [mean_interval(entry.scores, bounds=(0.0, 1.0)) for entry in entries]
    rows: list[dict[str, Any]] = [
        {**entry.key, **interval.__dict__, "num_seeds": len(entry.seeds)}
        for entry, interval in zip(entries, intervals, strict=True)
    ]
    finished = [i for i, entry in enumerate(entries) if entry.scores.size]
    if not finished:
        return rows
    best = max(finished, key=lambda i: intervals[i].mean)
    for i in finished:
        first, second = paired(entries[best], entries[i])
        behind = mean_interval(first - second, bounds=(-1.0, 1.0))
        rows[i] |= {
            "best": i == best,
            "behind_best": behind.mean,
            "behind_low": behind.low,
            "behind_high": behind.high,
            "within_noise": i == best or not behind.excludes_zero(),
        }
    shortest = min(i for i in finished if rows[i]["within_noise"])
    for i in finished:
        rows[i]["fewest_within_noise"] = i == shortest
    return rows
