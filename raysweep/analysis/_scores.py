"""Subject scores: the one definition of a score that every analysis starts from.

The score of a subject in a stage is the mean over the subject's test slices of the slice's mean over
foreground classes. A class that is in neither mask has no score and is left out; so is a slice without any.
The score is the stage's own ``metric`` (dice or iou). ``stages.test_score`` is the mean over slices,
whichever subject they belong to; the analyses average over subjects, because patients, not slices, are the
independent units that intervals and tests resample.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raysweep.analysis.arms import Arm, Setting
from raysweep.errors import QueryError
from raysweep.results.read import StudyTables

CASE_METRICS = ("dice", "iou")
_SLICE = ["stage", "subject", "volume", "frame", "slice_number"]
_SUBJECT_SCORES = pa.schema([("stage", pa.string()), ("subject", pa.string()), ("score", pa.float64())])


@dataclass(frozen=True)
class ArmScores:
    """An arm at one annotation count.

    ``scores`` is (seeds, subjects) float64, 0 to 1, NaN where a subject has none; the counts are of cells.
    """

    setting: Setting
    arm: Arm
    annotations: int
    metric: str | None
    seeds: tuple[int, ...]
    subjects: tuple[str, ...]
    scores: NDArray[np.float64]
    num_pending: int
    num_failed: int

    @property
    def key(self) -> dict[str, Any]:
        """The columns that name this entry in a table of answers."""
        return {
            **self.setting.__dict__,
            **self.arm.__dict__,
            "arm": self.arm.label,
            "annotations": self.annotations,
        }


def subject_scores(tables: StudyTables, split: str = "test") -> pa.Table:
    """Return one row per finished finetune stage and subject: ``stage``, ``subject``, ``score``.

    Raises:
        QueryError: if a stage's metric is not a score that ``cases`` holds.
    """
    stages = _done_by_metric(tables)
    cases = tables.cases.filter(
        pc.and_(pc.equal(_text(tables.cases, "split"), split), pc.greater(tables.cases["class_index"], 0))
    )
    parts = []
    for metric, ids in sorted(stages.items()):
        rows = cases.filter(pc.is_in(cases["stage"], value_set=pa.array(ids, pa.string())))
        keys = {name: _text(rows, name) for name in _SLICE}
        parts.append(pa.table({**keys, "score": rows[metric]}).filter(pc.is_finite(rows[metric])))
    if not parts:
        return pa.schema([("stage", pa.string()), ("subject", pa.string()), ("score", pa.float64())]).empty_table()
    # One thread keeps the order of summation, and with it the last bit, the same in every run.
    slices = _mean_by(pa.concat_tables(parts), _SLICE)
    return _mean_by(slices, ["stage", "subject"]).sort_by([("stage", "ascending"), ("subject", "ascending")])


def arm_scores(tables: StudyTables) -> list[ArmScores]:
    """Return every arm at every annotation count, by setting and count, arms in the study's order."""
    by_stage: dict[str, dict[str, float]] = {}
    for row in subject_scores(tables).to_pylist():
        by_stage.setdefault(row["stage"], {})[row["subject"]] = row["score"]
    stages = {row["stage"]: row for row in tables.stages.select(["stage", "status", "metric"]).to_pylist()}
    groups: dict[tuple[Setting, int, Arm], list[dict[str, Any]]] = {}
    order: dict[Any, int] = {}
    for cell in tables.cells.to_pylist():
        setting, arm = Setting.of(cell), Arm.of(cell)
        for value in (setting, arm):
            order.setdefault(value, len(order))
        groups.setdefault((setting, cell["annotations"], arm), []).append(cell)
    ordered = sorted(groups, key=lambda key: (order[key[0]], key[1], order[key[2]]))
    return [_collect(*key, groups[key], stages, by_stage) for key in ordered]


def by_count(entries: Iterable[ArmScores]) -> dict[tuple[Setting, int], list[ArmScores]]:
    """Return the entries that may be compared with each other, by setting and annotation count."""
    groups: dict[tuple[Setting, int], list[ArmScores]] = {}
    for entry in entries:
        groups.setdefault((entry.setting, entry.annotations), []).append(entry)
    return groups


def paired(first: ArmScores, second: ArmScores) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the scores of two entries on the seeds and subjects they share, each (seeds, subjects)."""
    seeds = [seed for seed in first.seeds if seed in second.seeds]
    subjects = [subject for subject in first.subjects if subject in second.subjects]
    return _select(first, seeds, subjects), _select(second, seeds, subjects)


def _select(entry: ArmScores, seeds: list[int], subjects: list[str]) -> NDArray[np.float64]:
    rows = [entry.seeds.index(seed) for seed in seeds]
    columns = [entry.subjects.index(subject) for subject in subjects]
    return entry.scores[np.ix_(rows, columns)]


def _collect(
    setting: Setting,
    annotations: int,
    arm: Arm,
    cells: list[dict[str, Any]],
    stages: dict[str, dict[str, Any]],
    by_stage: dict[str, dict[str, float]],
) -> ArmScores:
    status = [stages[c["stage"]]["status"] if c["stage"] in stages else "pending" for c in cells]
    # Two annotation counts as asked (120 and all) may be one stage: it is one observation.
    found = {c["seed"]: by_stage[c["stage"]] for c in cells if c["stage"] in by_stage}
    seeds = sorted(found)
    subjects = sorted({subject for scores in found.values() for subject in scores})
    metrics = [stages[c["stage"]]["metric"] for c in cells if c["stage"] in by_stage]
    return ArmScores(
        setting=setting,
        arm=arm,
        annotations=annotations,
        metric=metrics[0] if metrics else None,
        seeds=tuple(seeds),
        subjects=tuple(subjects),
        scores=np.array([[found[s].get(p, np.nan) for p in subjects] for s in seeds], np.float64).reshape(
            len(seeds), len(subjects)
        ),
        num_pending=status.count("pending"),
        num_failed=status.count("failed"),
    )


def _done_by_metric(tables: StudyTables) -> dict[str, list[str]]:
    stages: dict[str, list[str]] = {}
    for row in tables.stages.select(["stage", "kind", "status", "metric"]).to_pylist():
        if row["kind"] == "finetune" and row["status"] == "done":
            stages.setdefault(row["metric"], []).append(row["stage"])
    if unknown := sorted(str(metric) for metric in stages if metric not in CASE_METRICS):
        raise QueryError(
            f"study {tables.study!r} scores stages by {', '.join(unknown)}; the analysis knows "
            f"{' and '.join(CASE_METRICS)}. Query the cases table with SQL instead."
        )
    return stages


def _mean_by(table: pa.Table, keys: list[str]) -> pa.Table:
    grouped = table.group_by(keys, use_threads=False).aggregate([("score", "mean")])
    return grouped.select([*keys, "score_mean"]).rename_columns([*keys, "score"])


def _text(table: pa.Table, name: str) -> pa.ChunkedArray:
    column = table[name]
    return column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column
