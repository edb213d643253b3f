"""Ranking of arms across tasks, or across the test subjects of one task, with critical differences."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import stats

from raysweep.analysis._scores import ArmScores, arm_scores, known_arm
from raysweep.analysis._statistics import Array, holm
from raysweep.analysis._tables import answer_table
from raysweep.analysis._tests import critical_difference, friedman_p, wilcoxon_p
from raysweep.analysis.comparison import ALPHA
from raysweep.results.read import StudyTables

Blocks = Literal["task", "subject"]
Pairs = NDArray[np.bool_]
Rule = Literal["nemenyi", "wilcoxon-holm"]
COLUMNS = {
    "backbone": pa.string(),
    "tuning": pa.string(),
    "task": pa.string(),
    "annotations": pa.int64(),
    "blocks": pa.string(),
    "arm": pa.string(),
    "mean_rank": pa.float64(),
    "num_blocks": pa.int64(),
    "p_friedman": pa.float64(),
    "p_iman_davenport": pa.float64(),
    "critical_difference": pa.float64(),
    "groups": pa.list_(pa.int64()),
}


@dataclass(frozen=True)
class _Table:
    """Scores to rank: one row a block, one column an arm; NaN where an arm has none."""

    key: dict[str, Any]
    arms: tuple[str, ...]
    scores: Array


def ranking(
    tables: StudyTables,
    blocks: Blocks = "task",
    arms: Sequence[str] | None = None,
    rule: Rule = "nemenyi",
) -> pa.Table:
    """Return the average rank of every arm, 1 being the best, with Friedman's test and who differs from whom.

    With ``blocks='task'`` every task of a backbone and a tuning is a block, at its largest annotation count that
    has finished for all arms: does the order of arms hold across tasks? With ``'subject'`` every test subject is a
    block, mean over seeds, at each task and annotation count: does it hold across patients? Arms without a score in
    every block keep their row with null ranks, and take no part.

    Two arms differ, by ``rule``, if their mean ranks lie at least Nemenyi's ``critical_difference`` apart, or if
    Wilcoxon's signed-rank test over blocks, Holm-corrected over all pairs, has p < 0.05. ``groups`` are the numbers
    of the groups of arms that do not differ, as the bars of a critical-difference diagram: an arm in no common group
    with another differs from it. Where Friedman's test (Iman and Davenport's form) is not significant nothing
    differs, and all arms are one group.

    Source: Demsar 2006, Statistical comparisons of classifiers over multiple data sets, JMLR 7; Benavoli et al. 2016,
    Should we really use post-hoc tests based on mean-ranks?, JMLR 17 (for ``wilcoxon-holm``).
    """
    entries = arm_scores(tables)
    if arms is not None:
        chosen = {known_arm(tables, entries, label) for label in arms}
        entries = [entry for entry in entries if entry.arm.label in chosen]
    found = _by_task(entries) if blocks == "task" else _by_subject(entries)
    return answer_table([{**row, "blocks": blocks} for table in found for row in _rank(table, rule)], COLUMNS)


def cliques(differ: Pairs) -> list[tuple[int, ...]]:
    """Return the maximal runs of arms, in order of rank, of which no two differ; ``differ`` is (arms, arms) bool.

    Runs of one arm are left out.
    """
    found: list[tuple[int, ...]] = []
    for first in range(len(differ)):
        last = first
        while last + 1 < len(differ) and not differ[first : last + 2, first : last + 2].any():
            last += 1
        if last > first and (not found or found[-1][-1] < last):
            found.append(tuple(range(first, last + 1)))
    return found


def _by_task(entries: Sequence[ArmScores]) -> list[_Table]:
    found = []
    for backbone, tuning in dict.fromkeys((e.setting.backbone, e.setting.tuning) for e in entries):
        own = [e for e in entries if (e.setting.backbone, e.setting.tuning) == (backbone, tuning)]
        labels = tuple(dict.fromkeys(e.arm.label for e in own))
        rows = []
        for task in dict.fromkeys(e.setting.task for e in own):
            rows.append(_largest_finished([e for e in own if e.setting.task == task], labels))
        key = {"backbone": backbone, "tuning": tuning}
        found.append(_Table(key, labels, np.array(rows, np.float64).reshape(-1, len(labels))))
    return found


def _largest_finished(entries: Sequence[ArmScores], labels: Sequence[str]) -> list[float]:
    """Return the arms' means at the largest count that has the most arms finished."""
    counts: dict[int, dict[str, float]] = {}
    for entry in entries:
        if entry.scores.size:
            counts.setdefault(entry.annotations, {})[entry.arm.label] = entry.mean
    if not counts:
        return [np.nan] * len(labels)
    means = counts[max(counts, key=lambda count: (len(counts[count]), count))]
    return [means.get(label, np.nan) for label in labels]


def _by_subject(entries: Sequence[ArmScores]) -> list[_Table]:
    found = []
    for setting, count in dict.fromkeys((e.setting, e.annotations) for e in entries):
        own = [e for e in entries if (e.setting, e.annotations) == (setting, count)]
        subjects = sorted({subject for e in own for subject in e.subjects})
        scores = np.full((len(subjects), len(own)), np.nan)
        for column, entry in enumerate(own):
            for subject, value in zip(entry.subjects, _means(entry.scores), strict=True):
                scores[subjects.index(subject), column] = value
        key = {**setting.__dict__, "annotations": count}
        found.append(_Table(key, tuple(e.arm.label for e in own), scores))
    return found


def _means(scores: Array) -> Array:
    counts = np.isfinite(scores).sum(axis=0)
    sums = np.nansum(scores, axis=0)
    means: Array = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return means


def _rank(table: _Table, rule: Rule) -> list[dict[str, Any]]:
    there = np.isfinite(table.scores)
    complete = np.flatnonzero(there.sum(axis=0) == there.any(axis=1).sum()) if there.any() else np.array([], int)
    scores = table.scores[there.any(axis=1)][:, complete]
    rows: list[dict[str, Any]] = [{**table.key, "arm": label} for label in table.arms]
    num_blocks, num_arms = scores.shape
    if num_arms < 2 or num_blocks < 2:
        return rows
    # Scores that differ by rounding alone are ties.
    ranks = stats.rankdata(-scores.round(12), axis=1)
    p_friedman, p_iman = friedman_p(ranks)
    means = ranks.mean(axis=0)
    order = np.argsort(means, kind="stable")
    gap = critical_difference(num_arms, num_blocks)
    differ = _nemenyi(means[order], gap) if rule == "nemenyi" else _wilcoxon_holm(scores[:, order])
    groups = cliques(differ if p_iman < ALPHA else np.zeros_like(differ))
    for position, column in enumerate(order):
        rows[complete[column]] |= {
            "mean_rank": float(means[column]),
            "num_blocks": num_blocks,
            "p_friedman": p_friedman,
            "p_iman_davenport": p_iman,
            "critical_difference": gap if rule == "nemenyi" else None,
            "groups": [number for number, group in enumerate(groups, start=1) if position in group],
        }
    return rows


def _nemenyi(means: Array, gap: float) -> Pairs:
    differ: Pairs = np.abs(means[:, None] - means[None, :]) >= gap
    return differ


def _wilcoxon_holm(scores: Array) -> Pairs:
    num_arms = scores.shape[1]
    pairs = list(itertools.combinations(range(num_arms), 2))
    adjusted = holm(np.array([wilcoxon_p(scores[:, i] - scores[:, j]) for i, j in pairs], np.float64))
    differ = np.zeros((num_arms, num_arms), bool)
    for (i, j), p in zip(pairs, adjusted, strict=True):
        differ[i, j] = differ[j, i] = p < ALPHA
    return differ
