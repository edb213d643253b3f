"""Comparison of arms: paired differences with intervals and corrected tests, at every annotation count."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa

from raysweep.analysis import _tests
from raysweep.analysis._scores import ArmScores, arm_scores, by_count, known_arm, paired
from raysweep.analysis._statistics import Array, Interval, holm, mean_interval, sign_flip_p
from raysweep.analysis._tables import SETTING, answer_table
from raysweep.errors import QueryError, did_you_mean
from raysweep.results.read import StudyTables

ALPHA = 0.05
Test = Literal["permutation", "wilcoxon", "legacy"]
COLUMNS = {
    **SETTING,
    "annotations": pa.int64(),
    "arm": pa.string(),
    "other": pa.string(),
    "difference": pa.float64(),
    "low": pa.float64(),
    "high": pa.float64(),
    "effect_size": pa.float64(),
    "probability_of_improvement": pa.float64(),
    "num_seeds": pa.int64(),
    "num_subjects": pa.int64(),
    "test": pa.string(),
    "p": pa.float64(),
    "p_holm": pa.float64(),
    "decided": pa.bool_(),
}


def comparison(
    tables: StudyTables,
    reference: str | None = None,
    arms: Sequence[str] | None = None,
    test: Test = "permutation",
) -> pa.Table:
    """Return the paired difference ``arm - other`` in test score, for every pair at every annotation count.

    ``arms`` are the labels of the arms to compare, all by default. Correcting over fewer pairs finds more, so
    name the arms that the question is about, before looking at scores. ``reference`` is an arm's label: only
    pairs with it as ``other`` are compared. Differences are paired by seed and test subject, on those both
    arms have. ``low`` and ``high`` are the 95 % bootstrap interval over seeds and patients. ``effect_size`` is
    Cohen's d_z over subjects; ``probability_of_improvement`` how likely the arm beats the other on a subject,
    each with a seed of its own.

    ``p`` is, by ``test``, the sign-flip ``permutation`` test or ``wilcoxon``'s signed-rank test over subjects,
    each subject's difference averaged over seeds (over seeds where the score has no subjects). ``p_holm``
    corrects it over the pairs of the same annotation count and setting. These tests speak for new patients
    with the weights of these runs; the interval also for new seeds. So a difference is ``decided`` only if the
    interval excludes zero and p_holm is below 0.05; null where the arms share no finished cell.

    ``legacy`` is the practice of Hosseinzadeh Taher et al. 2021: Student's t-test of the runs' mean scores as
    two independent samples, neither paired nor corrected; ``decided`` then means p < 0.05 and nothing more.

    Raises:
        QueryError: if no arm has the label ``reference`` or one of ``arms``, or there is no such test.

    Source: Good 2005, Permutation, Parametric and Bootstrap Tests of Hypotheses; Wilcoxon 1945; Holm 1979.
    """
    if test not in get_args(Test):
        raise QueryError(f"there is no test {test!r}.{did_you_mean(test, get_args(Test))} Tests: {', '.join(_TESTS)}.")
    entries = arm_scores(tables)
    for label in (*(arms or ()), *([] if reference is None else [reference])):
        known_arm(tables, entries, label)
    if arms is not None:
        entries = [entry for entry in entries if entry.arm.label in {*arms, reference}]
    rows: list[dict[str, Any]] = []
    for group in by_count(entries).values():
        rows.extend(_compare_group(group, reference, test))
    return answer_table(rows, COLUMNS)


def by_unit(differences: Array) -> Array:
    """Return the differences of the units a test may exchange: subjects, or seeds where there is one subject."""
    axis = 0 if differences.shape[1:] != (1,) else 1
    present = np.isfinite(differences)
    counts = present.sum(axis=axis)
    sums = np.where(present, differences, 0.0).sum(axis=axis)
    means: Array = sums[counts > 0] / counts[counts > 0]
    return means


def _permutation(first: ArmScores, second: ArmScores, differences: Array) -> float:
    return sign_flip_p(by_unit(differences))


def _wilcoxon(first: ArmScores, second: ArmScores, differences: Array) -> float:
    return _tests.wilcoxon_p(by_unit(differences))


def _legacy(first: ArmScores, second: ArmScores, differences: Array) -> float:
    return _tests.independent_t_p(first.seed_means, second.seed_means)


_TESTS: Mapping[str, Callable[[ArmScores, ArmScores, Array], float]] = {
    "permutation": _permutation,
    "wilcoxon": _wilcoxon,
    "legacy": _legacy,
}


def _compare_group(group: Sequence[ArmScores], reference: str | None, test: Test) -> list[dict[str, Any]]:
    if reference is None:
        pairs = list(itertools.combinations(group, 2))
    else:
        pairs = [(e, r) for r in group if r.arm.label == reference for e in group if e is not r]
    rows = [_compare(first, second, test) for first, second in pairs]
    adjusted = holm(np.array([row["p"] for row in rows], np.float64))
    for row, p_holm in zip(rows, adjusted, strict=True):
        row["p_holm"] = float(p_holm)
        row["decided"] = None if np.isnan(p_holm) else _is_decided(row, test)
    return rows


def _is_decided(row: Mapping[str, Any], test: Test) -> bool:
    if test == "legacy":
        return bool(row["p"] < ALPHA)
    return Interval(row["difference"], row["low"], row["high"]).excludes_zero() and bool(row["p_holm"] < ALPHA)


def _compare(first: ArmScores, second: ArmScores, test: Test) -> dict[str, Any]:
    scores, others = paired(first, second)
    differences = scores - others
    interval = mean_interval(differences, bounds=(-1.0, 1.0))
    return {
        **first.setting.__dict__,
        "annotations": first.annotations,
        "arm": first.arm.label,
        "other": second.arm.label,
        "difference": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "effect_size": _tests.standardised_mean(by_unit(differences)),
        "probability_of_improvement": _tests.probability_of_improvement(scores, others),
        "num_seeds": scores.shape[0],
        "num_subjects": None if first.num_subjects is None else scores.shape[1],
        "test": test,
        "p": _TESTS[test](first, second, differences),
    }
