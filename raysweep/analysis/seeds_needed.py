"""How many more seeds, or test subjects, would decide a comparison that is open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import stats

from raysweep.analysis._scores import arm_scores, paired
from raysweep.analysis._statistics import Array
from raysweep.analysis._tables import SETTING, answer_table
from raysweep.analysis.arms import Setting
from raysweep.analysis.comparison import ALPHA, comparison
from raysweep.results.read import StudyTables

POWER = 0.8
_MAX = 1000
COLUMNS = {
    **SETTING,
    "annotations": pa.int64(),
    "arm": pa.string(),
    "other": pa.string(),
    "difference": pa.float64(),
    "seed_sd": pa.float64(),
    "subject_sd": pa.float64(),
    "residual_sd": pa.float64(),
    "num_seeds": pa.int64(),
    "num_subjects": pa.int64(),
    "seeds_needed": pa.int64(),
    "subjects_needed": pa.int64(),
}


@dataclass(frozen=True)
class Components:
    """Variances of a paired difference: between seeds, between subjects, and what is left."""

    seed: float
    subject: float
    residual: float


def seeds_needed(tables: StudyTables, arms: Sequence[str] | None = None) -> pa.Table:
    """Return, for every open comparison, the seeds and the test subjects in all that would decide it.

    A comparison is open where ``comparison`` does not decide it. If the true difference is the one observed, a
    study with ``seeds_needed`` seeds and the present subjects finds it significant in four cases of five, at 5 %
    divided by the pairs compared at that annotation count, and has subjects enough for the permutation test to say
    so; ``subjects_needed`` is the same for subjects with the present seeds. Null where 1000 would not be enough: of
    seeds, that means that the subjects limit the answer; of both, that the difference is next to nothing. The
    observed difference is itself uncertain, so these are orders of magnitude. Needs two seeds and two subjects;
    null otherwise.

    Source: Searle, Casella & McCulloch 1992, Variance Components, section 4.3 (two-way crossed, ANOVA estimates).
    """
    entries = {(entry.setting, entry.annotations, entry.arm.label): entry for entry in arm_scores(tables)}
    pairs = [row for row in comparison(tables, arms=arms).to_pylist() if row["decided"] is not None]
    rows = []
    for row in pairs:
        if row["decided"]:
            continue
        place = (Setting.of(row), row["annotations"])
        first, second = paired(entries[(*place, row["arm"])], entries[(*place, row["other"])])
        num_pairs = sum((Setting.of(other), other["annotations"]) == place for other in pairs)
        rows.append({**row, **_needed(first - second, abs(row["difference"]), ALPHA / num_pairs)})
    return answer_table(rows, COLUMNS)


def components(differences: Array) -> Components | None:
    """Return the variance components of complete (seeds, subjects) differences; None with fewer than two of either."""
    complete = differences[:, np.isfinite(differences).all(axis=0)]
    num_seeds, num_subjects = complete.shape
    if num_seeds < 2 or num_subjects < 2:
        return None
    rows, columns, mean = complete.mean(axis=1), complete.mean(axis=0), complete.mean()
    rest = complete - rows[:, None] - columns[None, :] + mean
    residual = float((rest**2).sum() / ((num_seeds - 1) * (num_subjects - 1)))
    seed = max(0.0, float(rows.var(ddof=1)) - residual / num_subjects)
    subject = max(0.0, float(columns.var(ddof=1)) - residual / num_seeds)
    return Components(seed, subject, residual)


def _needed(differences: Array, size: float, alpha: float) -> dict[str, Any]:
    found = components(differences)
    if found is None:
        return {}
    num_seeds, num_subjects = differences.shape
    return {
        "seed_sd": found.seed**0.5,
        "subject_sd": found.subject**0.5,
        "residual_sd": found.residual**0.5,
        "seeds_needed": _fewest([(n, num_subjects) for n in range(2, _MAX + 1)], found, size, alpha, 0),
        "subjects_needed": _fewest([(num_seeds, n) for n in range(2, _MAX + 1)], found, size, alpha, 1),
    }


def _fewest(designs: list[tuple[int, int]], found: Components, size: float, alpha: float, axis: int) -> int | None:
    seeds, subjects = (np.array([design[i] for design in designs], np.float64) for i in (0, 1))
    seed_part = (found.seed + found.residual / subjects) / seeds
    subject_part = (found.subject + found.residual / seeds) / subjects
    variance = seed_part + subject_part
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = variance**2 / (seed_part**2 / (seeds - 1) + subject_part**2 / (subjects - 1))
    freedom = np.where(np.isfinite(freedom), freedom, np.inf)
    reach = (stats.t.ppf(1 - alpha / 2, freedom) + stats.t.ppf(POWER, freedom)) * np.sqrt(variance)
    can_decide = 2.0 ** (1 - subjects) < alpha  # the permutation test of n subjects has no smaller p
    enough = np.flatnonzero((reach <= size) & can_decide)
    return designs[int(enough[0])][axis] if len(enough) else None
