"""Intervals and tests on (seeds, subjects) arrays; deterministic for given data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
NUM_RESAMPLES = 2000
NUM_FLIPS = 9999
_MAX_EXACT_SUBJECTS = 13
_LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean with its interval; NaN where there is nothing to estimate it from."""

    mean: float
    low: float
    high: float

    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return bool(self.low > 0 or self.high < 0)


def mean_interval(
    scores: Array,
    *,
    level: float = _LEVEL,
    num_resamples: int = NUM_RESAMPLES,
    bounds: tuple[float, float] | None = None,
) -> Interval:
    """Return the mean of ``scores`` (seeds, subjects) and a bootstrap interval for new seeds and patients.

    Seeds and patients are resampled with replacement, a resample's patients being the same for all its seeds,
    since every seed is tested on the same patients. The percentile interval is then widened by sqrt(n / (n -
    1)) on each axis and by Student's t over the normal quantile with Satterthwaite's degrees of freedom,
    because percentiles of few seeds are too narrow. One seed leaves the spread over seeds out; one seed and
    one patient leave no interval.

    Source: Owen 2007, The pigeonhole bootstrap, Annals of Applied Statistics 1(2); Hesterberg 2015, What
    teachers should know about the bootstrap, section 3.3.
    """
    present = np.isfinite(scores)
    if not present.any():
        return Interval(np.nan, np.nan, np.nan)
    mean = float(scores[present].mean())
    factor = widening(scores, level)
    if factor is None:
        return Interval(mean, np.nan, np.nan)
    seeds, subjects = (_weights(n, axis, num_resamples) for axis, n in enumerate(scores.shape))
    sums = ((seeds @ np.where(present, scores, 0.0)) * subjects).sum(axis=1)
    counts = ((seeds @ present.astype(np.float64)) * subjects).sum(axis=1)
    means = sums[counts > 0] / counts[counts > 0]
    tail = (1 - level) / 2
    low, high = mean + factor * (np.quantile(means, [tail, 1 - tail]) - mean)
    if bounds is not None:
        low, high = np.clip([low, high], *bounds)
    return Interval(mean, float(low), float(high))


@dataclass(frozen=True)
class StandardError:
    """The standard error of a mean over seeds and patients, and its degrees of freedom (Satterthwaite)."""

    value: float
    freedom: float


def standard_error(scores: Array) -> StandardError | None:
    """Return the standard error of the mean of ``scores`` (seeds, subjects) for new seeds and patients.

    The variances of the means over seeds and over subjects add up, an axis of one being left out; with both axes that
    counts the residual twice, as the bootstrap of ``mean_interval`` does. None if no axis has two.

    Source: Owen 2007, section 3; Satterthwaite 1946, An approximate distribution of estimates of variance components.
    """
    variance = welch = 0.0
    for axis in (1, 0):
        means = _present_means(scores, axis)
        n = len(means)
        if n > 1:
            part = float(means.var(ddof=1)) / n
            variance += part
            welch += part**2 / (n - 1)
    if max(scores.shape, default=0) < 2:
        return None
    return StandardError(variance**0.5, variance**2 / welch if welch > 0 else np.inf)


def sign_flip_p(differences: Array, *, num_flips: int = NUM_FLIPS) -> float:
    """Return the two-sided sign-flip p that ``differences`` (subjects,) are symmetric about zero.

    All sign patterns are tried up to 13 subjects; beyond that ``num_flips`` random ones, where p is (1 +
    hits) / (1 + flips). NaN with no subject.

    Source: Phipson & Smyth 2010, Permutation P-values should never be zero.
    """
    values = differences[np.isfinite(differences)]
    n = len(values)
    if n == 0:
        return float("nan")
    observed = abs(values.sum())
    # Sums of the same numbers in another order differ in the last bits: they count as equal.
    threshold = observed - 1e-12 * np.abs(values).sum()
    if n <= _MAX_EXACT_SUBJECTS:
        signs = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return float((np.abs(signs @ values) >= threshold).mean())
    hits = int((np.abs(_random_signs(n, num_flips) @ values) >= threshold).sum())
    return (1 + hits) / (1 + num_flips)


def holm(p_values: Array) -> Array:
    """Return Holm's step-down adjusted p values; NaN stays NaN and does not count as a test.

    Source: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    adjusted = np.full(len(p_values), np.nan)
    tested = np.flatnonzero(np.isfinite(p_values))
    order = tested[np.argsort(p_values[tested], kind="stable")]
    steps = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(p_values[order] * steps), 1.0)
    return adjusted


def resampling_weights(num_seeds: int, num_subjects: int, num_resamples: int) -> tuple[Array, Array]:
    """Return (resamples, seeds) and (resamples, subjects) counts of how often each is drawn, as everywhere here."""
    return _weights(num_seeds, 0, num_resamples), _weights(num_subjects, 1, num_resamples)


def widening(scores: Array, level: float) -> float | None:
    """Return the factor that corrects percentiles for few seeds and patients; None if no axis has two."""
    plain = corrected = welch = 0.0
    for axis in (1, 0):
        means = _present_means(scores, axis)
        n = len(means)
        if n < 2:
            continue
        variance = float(means.var()) / n
        plain += variance
        corrected += variance * n / (n - 1)
        welch += (variance * n / (n - 1)) ** 2 / (n - 1)
    if max(scores.shape) < 2:
        return None
    if plain == 0 or welch == 0:
        return 1.0
    quantile = (1 + level) / 2
    student = stats.t.ppf(quantile, corrected**2 / welch) / stats.norm.ppf(quantile)
    return float(student * np.sqrt(corrected / plain))


def _present_means(scores: Array, axis: int) -> Array:
    present = np.isfinite(scores)
    counts = present.sum(axis=axis)
    sums = np.where(present, scores, 0.0).sum(axis=axis)
    means: Array = sums[counts > 0] / counts[counts > 0]
    return means


@lru_cache(maxsize=64)
def _weights(n: int, axis: int, num_resamples: int) -> Array:
    """Return (resamples, n) counts of how often each unit is drawn, the same in every comparison."""
    generator = np.random.default_rng([axis, n, num_resamples])
    return generator.multinomial(n, np.full(n, 1 / n), size=num_resamples).astype(np.float64)


@lru_cache(maxsize=8)
def _random_signs(n: int, num_flips: int) -> Array:
    return np.random.default_rng([n, num_flips]).choice([-1.0, 1.0], size=(num_flips, n))
