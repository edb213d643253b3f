"""Power law: how the error of an arm falls with the annotation count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from raysweep.analysis._scores import ArmScores, arm_scores, common
from raysweep.analysis._statistics import Array, resampling_weights, widening
from raysweep.analysis._tables import AXES, answer_table
from raysweep.analysis.arms import Arm, Setting
from raysweep.results.read import StudyTables

NUM_RESAMPLES = 1000
MIN_COUNTS = 4
KNEE_GAIN = 0.01
_EXPONENTS = np.geomspace(0.02, 3.0, 500)
COLUMNS = {
    **{name: kind for name, kind in AXES.items() if name != "annotations"},
    "num_counts": pa.int64(),
    "floor": pa.float64(),
    "scale": pa.float64(),
    "exponent": pa.float64(),
    "exponent_low": pa.float64(),
    "exponent_high": pa.float64(),
    "knee_annotations": pa.float64(),
    "rms_residual": pa.float64(),
}


def power_law(tables: StudyTables) -> pa.Table:
    """Return, per arm, the fit ``1 - score = floor + scale * annotations ** -exponent``.

    Least squares on the mean scores of the annotation counts that have finished, with floor and scale at least 0
    and the exponent between 0.02 and 3; four counts are needed, null otherwise. The interval of the exponent is the
    95 % bootstrap over seeds and patients common to all counts, widened for few of them as elsewhere; a bound at
    0.02 or 3 means that the data do not bound it. ``knee_annotations`` is the count from which on doubling it gains
    less than 0.01. ``rms_residual`` says how far the means lie from the curve, in units of the score.

    Source: Cortes et al. 1993, Learning curves: asymptotic values and rate of convergence, NeurIPS 6.
    """
    arms: dict[tuple[Setting, Arm], list[ArmScores]] = {}
    for entry in arm_scores(tables):
        arms.setdefault((entry.setting, entry.arm), []).append(entry)
    return answer_table([_fit_arm(entries) for entries in arms.values()], COLUMNS)


def fit_power_law(counts: Array, errors: Array) -> tuple[Array, Array, Array]:
    """Return floor, scale and exponent, each (n,), of the best fit to each row of ``errors`` (n, counts).

    For a given exponent the fit is linear; the exponent is searched on a grid of 500 values.
    """
    best = np.full(len(errors), np.inf)
    floor, scale, exponent = (np.zeros(len(errors)) for _ in range(3))
    mean = errors.mean(axis=1)
    for candidate in _EXPONENTS:
        x = counts**-candidate
        spread = x - x.mean()
        slope = np.maximum((errors @ spread) / (spread @ spread), 0.0)
        intercept = mean - slope * x.mean()
        below = intercept < 0
        slope = np.where(below, np.maximum(errors @ x / (x @ x), 0.0), slope)
        intercept = np.where(below, 0.0, intercept)
        loss = ((errors - intercept[:, None] - slope[:, None] * x) ** 2).sum(axis=1)
        better = loss < best
        best = np.where(better, loss, best)
        floor, scale = np.where(better, intercept, floor), np.where(better, slope, scale)
        exponent = np.where(better, candidate, exponent)
    return floor, scale, exponent


def _fit_arm(entries: list[ArmScores]) -> dict[str, Any]:
    finished = [entry for entry in entries if entry.scores.size]
    by_count = {entry.annotations: entry for entry in finished}
    key = {name: value for name, value in entries[0].key.items() if name != "annotations"}
    row: dict[str, Any] = {**key, "num_counts": len(by_count)}
    if len(by_count) < MIN_COUNTS:
        return row
    counts = np.array(sorted(by_count), np.float64)
    means = np.array([by_count[int(count)].mean for count in counts])
    floor, scale, exponent = (float(value[0]) for value in fit_power_law(counts, 1 - means[None, :]))
    fitted = floor + scale * counts**-exponent
    row |= {"floor": floor, "scale": scale, "exponent": exponent}
    row["rms_residual"] = float(np.sqrt(np.mean((1 - means - fitted) ** 2)))
    if scale > 0:
        row["knee_annotations"] = float((scale * (1 - 2**-exponent) / KNEE_GAIN) ** (1 / exponent))
    interval = _exponent_interval(counts, common([by_count[int(count)] for count in counts]), exponent)
    return row if interval is None else {**row, "exponent_low": interval[0], "exponent_high": interval[1]}


def _exponent_interval(counts: Array, scores: Array, exponent: float) -> tuple[float, float] | None:
    _, num_seeds, num_subjects = scores.shape
    if not scores.size or max(num_seeds, num_subjects) < 2:
        return None
    seeds, subjects = resampling_weights(num_seeds, num_subjects, NUM_RESAMPLES)
    means = np.einsum("rs,csp,rp->rc", seeds, scores, subjects) / (num_seeds * num_subjects)
    _, _, found = fit_power_law(counts, 1 - means)
    factor = widening(_pseudo_scores(scores, means, np.log(found)), 0.95) or 1.0
    # Exponents are positive and skewed: widened around the estimate on the logarithm.
    low, high = np.log(exponent) + factor * (np.quantile(np.log(found), [0.025, 0.975]) - np.log(exponent))
    return float(max(np.exp(low), _EXPONENTS[0])), float(min(np.exp(high), _EXPONENTS[-1]))


def _pseudo_scores(scores: Array, means: Array, logs: Array) -> Array:
    """Return (seeds, subjects) values whose mean moves as the log exponent does, to first order.

    What moves the exponent is not what moves the scores: a patient whom every count finds hard does not, a seed of one
    count does. The slopes are those of the resampled exponents over the resampled ``means``.
    """
    centred = means - means.mean(axis=0)
    slopes = np.linalg.lstsq(centred, logs - logs.mean(), rcond=None)[0]
    pseudo: Array = np.einsum("c,csp->sp", slopes, scores)
    return pseudo
