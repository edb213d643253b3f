"""Subject scores: the one definition of a score that every analysis starts from.

The score of a subject in a stage is the mean over the subject's test cases (slices, or volumes where the task
scores those) of the case's mean over the classes that add to the score: ``cases.score``, the stage's own metric
with absent classes as its task treats them. A case without any is left out. ``stages.test_score`` is the mean over
cases, whichever subject they belong to; the analyses average over subjects, because patients, not slices, are the
independent units that intervals and tests resample.

The area under the ROC curve ranks all cases against each other and is no such mean. There a subject's score is its
pseudo-value of the jackknife (see ``metrics.jackknife``), whose mean over subjects is the stage's score, so that
intervals and tests speak of new patients too.

Other metrics of classifications, such as average precision, have no value for a subject. There ``stages.test_score``
stands as the score of one subject named ``ALL_SUBJECTS``: intervals then speak of new seeds, not of new
patients, and tests compare seeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raysweep.analysis._label_scores import auc_by_subject
from raysweep.analysis.arms import Arm, Setting
from raysweep.errors import QueryError, did_you_mean
from raysweep.results.read import StudyTables

CASE_METRICS = ("dice", "iou")
"""Metrics that stages of schema version 2 and older have, whose cases lack ``score``."""
RANKING_METRIC = "auc"
"""Metric whose subject scores are pseudo-values."""
ALL_SUBJECTS = "(all)"
MISSING = ("failed", "skipped", "stopped", "not needed", "pending")
"""Why a cell has no score: the statuses of the trials view other than done."""
_COMPUTED: WeakKeyDictionary[StudyTables, list[ArmScores]] = WeakKeyDictionary()
_CASE = ["stage", "subject", "volume", "frame", "slice_number"]
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
    missing: Mapping[str, int]
    """Status -> cells that have it, of those without a score."""

    @property
    def mean(self) -> float:
        """Mean over seeds and subjects; NaN if nothing has finished."""
        present = self.scores[np.isfinite(self.scores)]
        return float(present.mean()) if present.size else float("nan")

    @property
    def num_subjects(self) -> int | None:
        """Number of test subjects with a score; None where a score belongs to no subject."""
        return None if self.subjects == (ALL_SUBJECTS,) else len(self.subjects)

    @property
    def seed_means(self) -> NDArray[np.float64]:
        """Mean over subjects of every seed that has a score, (seeds,)."""
        kept = np.isfinite(self.scores).any(axis=1) if self.scores.size else np.zeros(0, bool)
        means: NDArray[np.float64] = np.nanmean(self.scores[kept], axis=1) if kept.any() else np.zeros(0)
        return means

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
    """Return one row per finished finetune stage and subject: ``stage``, ``subject``, ``score``."""
    stages = _done_by_metric(tables)
    cases = tables.cases.filter(pc.equal(_text(tables.cases, "split"), split))
    parts = [_means_of_cases(_scored_rows(cases, stages)), _ranked(cases, stages.get(RANKING_METRIC, []))]
    found = {stage for part in parts for stage in part["stage"].to_pylist()}
    others = [
        stage for metric, ids in stages.items() if metric not in CASE_METRICS for stage in ids if stage not in found
    ]
    parts.append(_whole_stages(tables, others))
    return pa.concat_tables(parts).sort_by([("stage", "ascending"), ("subject", "ascending")])


def arm_scores(tables: StudyTables) -> list[ArmScores]:
    """Return every arm at every annotation count, by setting and count, arms in the study's order.

    It is computed once for the same tables: every analysis starts from it.
    """
    if tables not in _COMPUTED:
        _COMPUTED[tables] = _arm_scores(tables)
    return list(_COMPUTED[tables])


def _arm_scores(tables: StudyTables) -> list[ArmScores]:
    by_stage: dict[str, dict[str, float]] = {}
    for row in subject_scores(tables).to_pylist():
        by_stage.setdefault(row["stage"], {})[row["subject"]] = row["score"]
    groups: dict[tuple[Setting, int, Arm], list[dict[str, Any]]] = {}
    order: dict[Any, int] = {}
    for cell in in_study_order(tables, tables.trials()):
        setting, arm = Setting.of(cell), Arm.of(cell)
        for value in (setting, arm):
            order.setdefault(value, len(order))
        groups.setdefault((setting, cell["annotations"], arm), []).append(cell)
    ordered = sorted(groups, key=lambda key: (order[key[0]], key[1], order[key[2]]))
    return [_collect(*key, groups[key], by_stage) for key in ordered]


def in_study_order(tables: StudyTables, trials: pa.Table) -> list[dict[str, Any]]:
    """Return rows of the trials view in the order of the study's cells."""
    order = {name: position for position, name in enumerate(tables.cells["cell"].to_pylist())}
    return sorted(trials.to_pylist(), key=lambda row: order[row["cell"]])


def known_arm(tables: StudyTables, entries: Iterable[ArmScores], label: str) -> str:
    """Return the label of an arm that the study has.

    Raises:
        QueryError: if it has none of that label, with the nearest one.
    """
    known = list(dict.fromkeys(entry.arm.label for entry in entries))
    if label not in known:
        raise QueryError(
            f"study {tables.study!r} has no arm {label!r}.{did_you_mean(label, known)} "
            f"Arms: {', '.join(known) or 'none'}."
        )
    return label


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


def common(entries: Sequence[ArmScores]) -> NDArray[np.float64]:
    """Return scores (entries, seeds, subjects) on the seeds and subjects that all entries have, none missing."""
    seeds = [seed for seed in entries[0].seeds if all(seed in entry.seeds for entry in entries)]
    subjects = [subject for subject in entries[0].subjects if all(subject in entry.subjects for entry in entries)]
    scores = np.stack([_select(entry, seeds, subjects) for entry in entries])
    complete: NDArray[np.float64] = scores[:, :, np.isfinite(scores).all(axis=(0, 1))]
    return complete


def _select(entry: ArmScores, seeds: list[int], subjects: list[str]) -> NDArray[np.float64]:
    rows = [entry.seeds.index(seed) for seed in seeds]
    columns = [entry.subjects.index(subject) for subject in subjects]
    return entry.scores[np.ix_(rows, columns)]


def _collect(
    setting: Setting,
    annotations: int,
    arm: Arm,
    cells: list[dict[str, Any]],
    by_stage: dict[str, dict[str, float]],
) -> ArmScores:
    status = [cell["status"] for cell in cells]
    # Two annotation counts as asked (120 and all) may be one stage: it is one observation.
    found = {c["seed"]: by_stage[c["stage"]] for c in cells if c["stage"] in by_stage}
    seeds = sorted(found)
    subjects = sorted({subject for scores in found.values() for subject in scores})
    metrics = [c["metric"] for c in cells if c["stage"] in by_stage]
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
        missing={why: status.count(why) for why in MISSING},
    )


def _done_by_metric(tables: StudyTables) -> dict[str, list[str]]:
    stages: dict[str, list[str]] = {}
    for row in tables.stages.select(["stage", "kind", "status", "metric"]).to_pylist():
        if row["kind"] == "finetune" and row["status"] == "done":
            stages.setdefault(row["metric"], []).append(row["stage"])
    return stages


def _scored_rows(cases: pa.Table, stages: Mapping[str, Sequence[str]]) -> pa.Table:
    """Return what each row of the cases adds to its stage's score, with the columns that name a case."""
    done = pa.array([stage for ids in stages.values() for stage in ids], pa.string())
    parts = [_named(cases, cases["score"], pc.is_in(cases["stage"], value_set=done))]
    has_score = pc.unique(parts[0]["stage"])
    for metric in CASE_METRICS:
        older = [stage for stage in stages.get(metric, ()) if stage not in set(has_score.to_pylist())]
        of_classes = pc.and_(
            pc.is_in(cases["stage"], value_set=pa.array(older, pa.string())), pc.greater(cases["class_index"], 0)
        )
        parts.append(_named(cases, cases[metric], of_classes))
    return pa.concat_tables(parts)


def _named(cases: pa.Table, score: pa.ChunkedArray, chosen: pa.ChunkedArray) -> pa.Table:
    keys = {name: _text(cases, name) for name in _CASE}
    return pa.table({**keys, "score": score}).filter(pc.and_(chosen, pc.fill_null(pc.is_finite(score), False)))


def _means_of_cases(rows: pa.Table) -> pa.Table:
    # One thread keeps the order of summation, and with it the last bit, the same in every run.
    return _mean_by(_mean_by(rows, _CASE), ["stage", "subject"]).cast(_SUBJECT_SCORES)


def _ranked(cases: pa.Table, stages: Sequence[str]) -> pa.Table:
    """Return the pseudo-values of the area under the ROC curve of stages that have them."""
    rows = [
        {"stage": stage, "subject": subject, "score": score}
        for stage, scores in auc_by_subject(cases, stages)
        for subject, score in scores.items()
    ]
    return pa.Table.from_pylist(rows, schema=_SUBJECT_SCORES)


def _whole_stages(tables: StudyTables, stages: list[str]) -> pa.Table:
    rows = tables.stages.filter(pc.is_in(tables.stages["stage"], value_set=pa.array(stages, pa.string())))
    rows = rows.filter(pc.is_finite(rows["test_score"]))
    subjects = pa.array([ALL_SUBJECTS] * rows.num_rows, pa.string())
    return pa.Table.from_arrays([rows["stage"], subjects, rows["test_score"]], schema=_SUBJECT_SCORES)


def _mean_by(table: pa.Table, keys: list[str]) -> pa.Table:
    grouped = table.group_by(keys, use_threads=False).aggregate([("score", "mean")])
    return grouped.select([*keys, "score_mean"]).rename_columns([*keys, "score"])


def _text(table: pa.Table, name: str) -> pa.ChunkedArray:
    column = table[name]
    return column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column
