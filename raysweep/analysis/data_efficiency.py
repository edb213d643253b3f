"""Data efficiency: the test score of every arm by annotation count, and the fewest annotations that are
enough."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from raysweep.analysis._scores import MISSING, ArmScores, arm_scores, common, paired
from raysweep.analysis._statistics import Interval, mean_interval
from raysweep.analysis._tables import AXES, answer_table
from raysweep.analysis.arms import Arm, Setting
from raysweep.results.read import StudyTables


def _column(why: str) -> str:
    return f"num_{why.replace(' ', '_')}"


SCORES = {
    **AXES,
    "metric": pa.string(),
    "mean": pa.float64(),
    "low": pa.float64(),
    "high": pa.float64(),
    "num_seeds": pa.int64(),
    "num_subjects": pa.int64(),
    **{_column(why): pa.int64() for why in MISSING},
}
AREA = {
    **{name: kind for name, kind in AXES.items() if name != "annotations"},
    "area": pa.float64(),
    "low": pa.float64(),
    "high": pa.float64(),
    "num_counts": pa.int64(),
    "num_missing": pa.int64(),
}
NEEDED = {
    **{name: kind for name, kind in AXES.items() if name != "annotations"},
    "full_annotations": pa.int64(),
    "full_mean": pa.float64(),
    "within": pa.float64(),
    "fewest": pa.int64(),
    "fewest_sure": pa.int64(),
}


def data_efficiency(tables: StudyTables) -> pa.Table:
    """Return the mean test score by arm and annotation count, with a 95 % interval.

    The mean is over seeds and test subjects; a subject's score is the mean over its slices of the mean over
    the foreground classes present (``stages.test_score`` weighs slices equally instead). The interval is a
    bootstrap over seeds and patients and holds for new seeds and new patients of the same kind; with one seed
    it holds for that seed alone. Unfinished grid points keep their row, with nulls and the number of cells
    pending, failed, skipped, stopped by
    the study's scheduler, and not needed.

    Source: Owen 2007, The pigeonhole bootstrap; Hesterberg 2015, What teachers should know about the
    bootstrap.
    """
    rows = []
    for entry in arm_scores(tables):
        interval = mean_interval(entry.scores, bounds=(0.0, 1.0))
        rows.append(
            {
                **entry.key,
                "metric": entry.metric,
                **interval.__dict__,
                "num_seeds": len(entry.seeds),
                "num_subjects": entry.num_subjects,
                **{_column(why): count for why, count in entry.missing.items()},
            }
        )
    return answer_table(rows, SCORES)


def annotations_needed(tables: StudyTables, within: float = 0.05) -> pa.Table:
    """Return, per arm, the fewest annotations whose score is within a share of the arm's full-data score.

    Full data is the arm's largest annotation count of the study. ``fewest`` is the smallest count from which
    on every mean is at least (1 - within) times the full-data mean; ``fewest_sure`` asks the same of the low
    end of the 95 % interval of ``score - (1 - within) * full-data score``, paired by seed and subject. Counts
    that have not run are passed over. Null where full data have not run, and where only full data are enough
    the answer is the full count.
    """
    arms: dict[tuple[Setting, Arm], list[ArmScores]] = {}
    for entry in arm_scores(tables):
        arms.setdefault((entry.setting, entry.arm), []).append(entry)
    return answer_table([_needed(entries, within) for entries in arms.values()], NEEDED)


def area_under_curve(tables: StudyTables) -> pa.Table:
    """Return, per arm, the area under the score over the logarithm of the annotation count.

    Trapezoids between the counts, divided by the span of log counts: the mean score over all scales of annotation,
    0 to 1. The interval is the 95 % bootstrap over the seeds and patients that all counts have. Areas compare only
    between arms that span the same counts: where some of the study's counts have not run, ``area`` is null and
    ``num_missing`` says how many. Null also with one count.
    """
    arms: dict[tuple[Setting, Arm], list[ArmScores]] = {}
    for entry in arm_scores(tables):
        arms.setdefault((entry.setting, entry.arm), []).append(entry)
    spans: dict[Setting, set[int]] = {}
    for setting, arm in arms:
        spans.setdefault(setting, set()).update(entry.annotations for entry in arms[setting, arm])
    return answer_table([_area(entries, spans[key[0]]) for key, entries in arms.items()], AREA)


def _area(entries: list[ArmScores], counts: set[int]) -> dict[str, Any]:
    finished = {entry.annotations: entry for entry in entries if entry.scores.size}
    row = {**entries[0].key, "num_counts": len(counts), "num_missing": len(counts - finished.keys())}
    if len(counts) < 2 or row["num_missing"]:
        return row
    logs = np.log(sorted(counts))
    widths = np.diff(logs)
    weights = (np.append(widths, 0) + np.insert(widths, 0, 0)) / (2 * (logs[-1] - logs[0]))
    ordered = common([finished[count] for count in sorted(counts)])
    # The area is linear in the scores: every seed and subject has one, and they are resampled like any score.
    return {**row, **_renamed(mean_interval(np.einsum("c,csp->sp", weights, ordered), bounds=(0.0, 1.0)))}


def _renamed(interval: Interval) -> dict[str, float]:
    return {"area": interval.mean, "low": interval.low, "high": interval.high}


def _needed(entries: list[ArmScores], within: float) -> dict[str, Any]:
    """``entries`` are one arm at rising annotation counts."""
    full = entries[-1]
    key = {name: value for name, value in full.key.items() if name != "annotations"}
    row = {**key, "full_annotations": full.annotations, "within": within}
    if not full.scores.size:
        return row
    fewest = sure = full.annotations
    still_fewest = still_sure = True
    for entry in reversed([e for e in entries[:-1] if e.scores.size]):
        few, many = paired(entry, full)
        margin = mean_interval(few - (1 - within) * many)
        still_fewest = still_fewest and margin.mean >= 0
        still_sure = still_sure and margin.low >= 0
        fewest = entry.annotations if still_fewest else fewest
        sure = entry.annotations if still_sure else sure
    return {**row, "full_mean": mean_interval(full.scores).mean, "fewest": fewest, "fewest_sure": sure}
