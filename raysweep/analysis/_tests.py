"""Tests and effect sizes on paired scores; all two-sided unless they say otherwise."""

from __future__ import annotations

import numpy as np
from scipy import stats

from raysweep.analysis._statistics import Array, StandardError


def wilcoxon_p(differences: Array) -> float:
    """Return the p of Wilcoxon's signed-rank test that ``differences`` (n,) are symmetric about zero.

    Zeros are left out, as Wilcoxon did; exact up to 50 values without ties. NaN with no value, 1 if all are zero.

    Source: Wilcoxon 1945, Individual comparisons by ranking methods.
    """
    values = differences[np.isfinite(differences)]
    if not values.size:
        return float("nan")
    return float(stats.wilcoxon(values).pvalue) if np.any(values) else 1.0


def independent_t_p(first: Array, second: Array) -> float:
    """Return the p of Student's t-test of two independent samples with equal variances; NaN with too few values."""
    if min(len(first), len(second)) < 1 or len(first) + len(second) < 3:
        return float("nan")
    if np.ptp(first) == np.ptp(second) == 0:
        return 1.0 if first[0] == second[0] else 0.0
    return float(stats.ttest_ind(first, second).pvalue)


def one_sided_t_p(mean: float, error: StandardError, bound: float) -> float:
    """Return the p that a mean is at most ``bound``, from its standard error."""
    if error.value == 0:
        return 0.0 if mean > bound else 1.0
    return float(stats.t.sf((mean - bound) / error.value, error.freedom))


def standardised_mean(differences: Array) -> float:
    """Return Cohen's d of paired differences (n,): their mean over their standard deviation; NaN with fewer than two.

    Source: Cohen 1988, Statistical Power Analysis for the Behavioral Sciences, section 2.3.5 (d_z).
    """
    values = differences[np.isfinite(differences)]
    if len(values) < 2:
        return float("nan")
    spread = values.std(ddof=1)
    return float(values.mean() / spread) if spread > 0 else float("nan")


def probability_of_improvement(first: Array, second: Array) -> float:
    """Return how likely ``first`` beats ``second`` on a subject, both (seeds, subjects), each with a seed of its own.

    All pairs of seeds are compared on every subject, ties counting half, and subjects averaged. NaN with no pair.

    Source: Agarwal et al. 2021, Deep RL at the edge of the statistical precipice, section 4.3, with subjects as tasks.
    """
    gaps = first[:, None, :] - second[None, :, :]
    present = np.isfinite(gaps)
    wins = np.where(present, (np.sign(np.where(present, gaps, 0.0)) + 1) / 2, 0.0).sum(axis=(0, 1))
    counts = present.sum(axis=(0, 1))
    return float((wins[counts > 0] / counts[counts > 0]).mean()) if counts.any() else float("nan")


def friedman_p(ranks: Array) -> tuple[float, float]:
    """Return the p of Friedman's test and of Iman and Davenport's correction, for (blocks, arms) ranks.

    NaN for fewer than two arms or blocks.

    Source: Demsar 2006, Statistical comparisons of classifiers over multiple data sets, section 3.2.2.
    """
    n, k = ranks.shape
    if n < 2 or k < 2:
        return float("nan"), float("nan")
    # Ties lower the variance of ranks: 12 / (k (k + 1)) is what it is without them (Conover 1999, section 5.8).
    spread = float(((ranks - (k + 1) / 2) ** 2).sum())
    if spread == 0:
        return 1.0, 1.0
    means = ranks.mean(axis=0)
    chi2 = n**2 * (k - 1) * float(((means - (k + 1) / 2) ** 2).sum()) / spread
    p_chi2 = float(stats.chi2.sf(chi2, k - 1))
    rest = n * (k - 1) - chi2
    if rest <= 0:
        return p_chi2, 0.0
    return p_chi2, float(stats.f.sf((n - 1) * chi2 / rest, k - 1, (k - 1) * (n - 1)))


def critical_difference(num_arms: int, num_blocks: int, alpha: float = 0.05) -> float:
    """Return Nemenyi's critical difference of average ranks.

    Source: Demsar 2006, section 3.2.2: q sqrt(k (k + 1) / 6 N) with q the studentised range over sqrt(2).
    """
    q = stats.studentized_range.ppf(1 - alpha, num_arms, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(num_arms * (num_arms + 1) / (6 * num_blocks)))


def interquartile_mean(scores: Array) -> float:
    """Return the mean of the middle half of scores; NaN with none.

    Source: Agarwal et al. 2021, section 4.3.
    """
    values = scores[np.isfinite(scores)]
    return float(stats.trim_mean(values, 0.25)) if values.size else float("nan")
