"""Equivalence: whether an arm is no worse than another by more than a margin, and whether they are as good as equal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from raysweep.analysis._scores import ArmScores, arm_scores, by_count, known_arm, paired
from raysweep.analysis._statistics import holm, mean_interval, standard_error
from raysweep.analysis._tables import SETTING, answer_table
from raysweep.analysis._tests import one_sided_t_p
from raysweep.analysis.comparison import ALPHA
from raysweep.errors import QueryError
from raysweep.results.read import StudyTables

COLUMNS = {
    **SETTING,
    "annotations": pa.int64(),
    "arm": pa.string(),
    "reference": pa.string(),
    "margin": pa.float64(),
    "difference": pa.float64(),
    "low": pa.float64(),
    "high": pa.float64(),
    "p_not_worse": pa.float64(),
    "p_equivalent": pa.float64(),
    "p_not_worse_holm": pa.float64(),
    "p_equivalent_holm": pa.float64(),
    "verdict": pa.string(),
}


def equivalence(
    tables: StudyTables,
    reference: str | None = None,
    margin: float = 0.01,
    arms: Sequence[str] | None = None,
) -> pa.Table:
    """Return, for every arm and annotation count, whether it is within ``margin`` of the reference.

    ``difference`` is arm minus reference, paired by seed and subject, with its 90 % bootstrap interval over
    seeds and patients: the two one-sided tests at 5 % are what that interval shows. ``p_not_worse`` tests that
    the arm is worse by the margin or more, ``p_equivalent`` that it is worse or better by the margin or more;
    both are t-tests with the standard error over seeds and patients. The ``_holm`` columns correct them over the
    arms of a count. ``verdict``, from these: ``equivalent``, ``not worse``, or ``open`` where neither is shown.
    The margin is in units of the score: 0.01 is one point. Without a ``reference`` each count's arm with the
    highest mean is taken; picking it from the same scores favours it a little.

    Raises:
        QueryError: if the margin is not positive, or there is no such arm.

    Source: Schuirmann 1987, A comparison of the two one-sided tests procedure, J. Pharmacokinet. Biopharm. 15(6).
    """
    if margin <= 0:
        raise QueryError(f"margin {margin!r}: it must be above 0; 0.01 is one point")
    entries = arm_scores(tables)
    for label in (*(arms or ()), *([] if reference is None else [reference])):
        known_arm(tables, entries, label)
    if arms is not None:
        entries = [entry for entry in entries if entry.arm.label in {*arms, reference}]
    rows: list[dict[str, Any]] = []
    for group in by_count(entries).values():
        finished = [entry for entry in group if entry.scores.size]
        labels = {entry.arm.label: entry for entry in group}
        chosen = labels.get(reference) if reference else max(finished, key=lambda entry: entry.mean, default=None)
        if chosen is not None:
            rows.extend(_compare_group([entry for entry in group if entry is not chosen], chosen, margin))
    return answer_table(rows, COLUMNS)


def _compare_group(group: Sequence[ArmScores], reference: ArmScores, margin: float) -> list[dict[str, Any]]:
    rows = [_compare(entry, reference, margin) for entry in group]
    for name in ("p_not_worse", "p_equivalent"):
        for row, p in zip(rows, holm(np.array([row[name] for row in rows], np.float64)), strict=True):
            row[f"{name}_holm"] = float(p)
    for row in rows:
        row["verdict"] = _verdict(row)
    return rows


def _compare(entry: ArmScores, reference: ArmScores, margin: float) -> dict[str, Any]:
    scores, others = paired(entry, reference)
    differences = scores - others
    interval = mean_interval(differences, level=1 - 2 * ALPHA, bounds=(-1.0, 1.0))
    error = standard_error(differences) if np.isfinite(differences).any() else None
    not_worse = float("nan") if error is None else one_sided_t_p(interval.mean, error, -margin)
    not_better = float("nan") if error is None else one_sided_t_p(-interval.mean, error, -margin)
    return {
        **entry.setting.__dict__,
        "annotations": entry.annotations,
        "arm": entry.arm.label,
        "reference": reference.arm.label,
        "margin": margin,
        "difference": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "p_not_worse": not_worse,
        "p_equivalent": max(not_worse, not_better),
    }


def _verdict(row: dict[str, Any]) -> str | None:
    if np.isnan(row["difference"]):
        return None
    if row["p_equivalent_holm"] < ALPHA:
        return "equivalent"
    return "not worse" if row["p_not_worse_holm"] < ALPHA else "open"
