"""Comparison of arms: paired differences with intervals and corrected tests, at every annotation count."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from raysweep.analysis._scores import ArmScores, arm_scores, by_count, paired
from raysweep.analysis._statistics import Interval, holm, mean_interval, sign_flip_p
from raysweep.analysis._tables import SETTING, answer_table
from raysweep.errors import QueryError, did_you_mean
from raysweep.results.read import StudyTables

ALPHA = 0.05
COLUMNS = {
    **SETTING,
    "annotations": pa.int64(),
    "arm": pa.string(),
    "other": pa.string(),
    "difference": pa.float64(),
    "low": pa.float64(),
    "high": pa.float64(),
    "num_seeds": pa.int64(),
    "num_subjects": pa.int64(),
    "p": pa.float64(),
    "p_holm": pa.float64(),
    "decided": pa.bool_(),
}


def comparison(tables: StudyTables, reference: str | None = None, arms: Sequence[str] | None = None) -> pa.Table:
    """Return the paired difference ``arm - other`` in test score, for every pair at every annotation count.

    ``arms`` are the labels of the arms to compare, all by default. Correcting over fewer pairs finds more, so
    name the arms that the question is about, before looking at scores. ``reference`` is an arm's label: only
    pairs with it as ``other`` are compared. Differences are paired by seed and test subject, on those both
    arms have. ``low`` and ``high`` are the 95 % bootstrap interval over seeds and patients. ``p`` is the
    sign-flip permutation test over subjects, each subject's difference averaged over seeds; ``p_holm``
    corrects it over the pairs of the same annotation count and setting. The test speaks for new patients with
    the weights of these runs; the interval also for new seeds. So a difference is ``decided`` only if the
    interval excludes zero and p_holm is below 0.05; null where the arms share no finished cell.

    Raises:
        QueryError: if no arm has the label ``reference`` or one of ``arms``.

    Source: Good 2005, Permutation, Parametric and Bootstrap Tests of Hypotheses; Holm 1979.
    """
    entries = arm_scores(tables)
    known = list(dict.fromkeys(entry.arm.label for entry in entries))
    for label in (*(arms or ()), *([] if reference is None else [reference])):
        if label not in known:
            raise QueryError(
                f"study {tables.study!r} has no arm {label!r}.{did_you_mean(label, known)} "
                f"Arms: {', '.join(known) or 'none'}."
            )
    if arms is not None:
        entries = [entry for entry in entries if entry.arm.label in {*arms, reference}]
    rows: list[dict[str, Any]] = []
    for group in by_count(entries).values():
        rows.extend(_compare_group(group, reference))
    return answer_table(rows, COLUMNS)


def _compare_group(group: Sequence[ArmScores], reference: str | None) -> list[dict[str, Any]]:
    if reference is None:
        pairs = list(itertools.combinations(group, 2))
    else:
        pairs = [(e, r) for r in group if r.arm.label == reference for e in group if e is not r]
    rows = [_compare(first, second) for first, second in pairs]
    adjusted = holm(np.array([row["p"] for row in rows], np.float64))
    for row, p_holm in zip(rows, adjusted, strict=True):
        row["p_holm"] = float(p_holm)
        interval = Interval(row["difference"], row["low"], row["high"])
        row["decided"] = None if np.isnan(p_holm) else interval.excludes_zero() and bool(p_holm < ALPHA)
    return rows


def _compare(first: ArmScores, second: ArmScores) -> dict[str, Any]:
    scores, others = paired(first, second)
    differences = scores - others
    interval = mean_interval(differences, bounds=(-1.0, 1.0))
    present = np.isfinite(differences)
    counts = present.sum(axis=0)
    by_subject = np.where(present, differences, 0.0).sum(axis=0)[counts > 0] / counts[counts > 0]
    return {
        **first.setting.__dict__,
        "annotations": first.annotations,
        "arm": first.arm.label,
        "other": second.arm.label,
        "difference": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "num_seeds": scores.shape[0],
        "num_subjects": scores.shape[1],
        "p": sign_flip_p(by_subject),
    }
