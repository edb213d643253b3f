"""Whether intervals cover and tests err as often as they say, on simulated scores whose truth is known."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from raysweep.analysis._statistics import holm, mean_interval, sign_flip_p, standard_error
from raysweep.analysis._tests import friedman_p, independent_t_p, one_sided_t_p, wilcoxon_p
from raysweep.analysis.power_law import NUM_RESAMPLES, _exponent_interval, fit_power_law
from tests.benchmarks.measurement import Measurement

DESCRIPTION = "Coverage of intervals and error rates of tests on simulated studies of known truth."

Array = NDArray[np.float64]
# (seeds, subjects, sd between seeds, between subjects, of the rest): what paired differences of scores look like.
_DESIGNS = (
    (3, 10, 0.005, 0.02, 0.02),
    (3, 10, 0.02, 0.005, 0.02),
    (5, 20, 0.01, 0.02, 0.02),
    (10, 10, 0.01, 0.01, 0.02),
    (10, 50, 0.005, 0.03, 0.02),
    (1, 20, 0.0, 0.03, 0.02),
)
_LAW = (0.1, 0.45, 0.5)
_COUNTS = np.array([1, 3, 7, 15, 30, 75, 150, 300, 749, 1498], np.float64)


def run(quick: bool = False) -> Measurement:
    """Draw studies and count how often the truth is missed."""
    num = 200 if quick else 4000
    rng = np.random.default_rng(1)
    rows = [row for design in _DESIGNS for row in _design_rows(rng, num, design)]
    rows += _pair_rows(rng, num)
    rows += _power_law_rows(rng, num // 4)
    intervals = [row["found"] for row in rows if row["what"].startswith("interval")]
    patients = [row["found"] for row in rows if row["what"].startswith("tests for new patients")]
    return Measurement(
        rows,
        f"Nominal: 0.95 for intervals, at most 0.05 for tests. Intervals of means cover {min(intervals):.3f} to "
        f"{max(intervals):.3f}; tests that speak for new patients err {min(patients):.3f} to {max(patients):.3f} "
        "of the time where that is what they are asked. Asked about new seeds too, they err far more often: why a "
        "difference counts as decided only if the interval over seeds and patients agrees.",
        {
            "draws": num,
            "standard error of a rate of 0.05": float(np.sqrt(0.05 * 0.95 / num)),
            "scores": "normal: seed + subject + rest, with the standard deviations of the row",
            "power law": f"floor, scale, exponent = {_LAW}; {len(_COUNTS)} counts, {NUM_RESAMPLES} resamples, "
            f"{num // 4} draws",
        },
    )


def _draw(rng: np.random.Generator, design: tuple[int, int, float, float, float]) -> Array:
    seeds, subjects, seed_sd, subject_sd, rest = design
    scores: Array = (
        rng.normal(0, seed_sd, (seeds, 1))
        + rng.normal(0, subject_sd, subjects)
        + rng.normal(0, rest, (seeds, subjects))
    )
    return scores


def _design_rows(
    rng: np.random.Generator, num: int, design: tuple[int, int, float, float, float]
) -> Iterator[dict[str, object]]:
    seeds, subjects, seed_sd, subject_sd, rest = design
    hits = decided = equivalent = worse = 0
    margin = 0.01
    for _ in range(num):
        scores = _draw(rng, design)
        interval = mean_interval(scores)
        hits += interval.low <= 0 <= interval.high
        p = sign_flip_p(scores.mean(axis=0), num_flips=999)
        decided += interval.excludes_zero() and p < 0.05
        error = standard_error(scores)
        assert error is not None
        # At the edge of the margin the null holds: the arm is worse by exactly the margin.
        shifted = float(scores.mean()) - margin
        not_worse = one_sided_t_p(shifted, error, -margin)
        worse += not_worse < 0.05
        equivalent += max(not_worse, one_sided_t_p(-shifted, error, -margin)) < 0.05
    name = f"{seeds} seeds x {subjects} subjects; sd {seed_sd}, {subject_sd}, {rest}"
    yield {"what": "interval over seeds and patients covers", "where": name, "nominal": 0.95, "found": hits / num}
    yield {"what": "'decided' without a difference", "where": name, "nominal": 0.05, "found": decided / num}
    yield {"what": "'not worse' while worse by the margin", "where": name, "nominal": 0.05, "found": worse / num}
    yield {"what": "'equivalent' at the margin", "where": name, "nominal": 0.05, "found": equivalent / num}


def _pair_rows(rng: np.random.Generator, num: int) -> Iterator[dict[str, object]]:
    """Tests over subjects: no difference for new patients, seeds fixed; then with seeds that differ."""
    for seed_sd in (0.0, 0.02):
        asked = "new patients" if seed_sd == 0 else "new seeds too"
        for test, function in (("permutation", lambda v: sign_flip_p(v, num_flips=999)), ("Wilcoxon", wilcoxon_p)):
            hits = sum(function(_draw(rng, (3, 20, seed_sd, 0.03, 0.02)).mean(axis=0)) < 0.05 for _ in range(num))
            where = f"{test}, 3 seeds x 20 subjects; sd {seed_sd}, 0.03, 0.02"
            yield {"what": f"tests for {asked} err", "where": where, "nominal": 0.05, "found": hits / num}
    family = wilcoxon = legacy = friedman = 0
    for _ in range(num):
        arms = rng.normal(0, 0.03, (1, 20)) + rng.normal(0, 0.02, (5, 20))
        pairs = [(i, j) for i in range(5) for j in range(i)]
        p = np.array([sign_flip_p(arms[i] - arms[j], num_flips=999) for i, j in pairs])
        family += bool((holm(p) < 0.05).any())
        wilcoxon += bool((holm(np.array([wilcoxon_p(arms[i] - arms[j]) for i, j in pairs])) < 0.05).any())
        friedman += friedman_p(stats.rankdata(-arms.T, axis=1))[1] < 0.05
        runs = rng.normal(0, 0.01, (5, 10))
        legacy += bool((np.array([independent_t_p(runs[i], runs[j]) for i, j in pairs]) < 0.05).any())
    five = "5 equal arms, all pairs"
    yield {"what": "any of Holm's permutation tests errs", "where": five, "nominal": 0.05, "found": family / num}
    yield {"what": "any of Holm's Wilcoxon tests errs", "where": five, "nominal": 0.05, "found": wilcoxon / num}
    yield {"what": "Friedman's test (Iman-Davenport) errs", "where": five, "nominal": 0.05, "found": friedman / num}
    yield {"what": "any legacy t-test errs (uncorrected)", "where": five, "nominal": 0.05, "found": legacy / num}


def _power_law_rows(rng: np.random.Generator, num: int) -> Iterator[dict[str, object]]:
    floor, scale, exponent = _LAW
    error = floor + scale * _COUNTS**-exponent
    for seeds, subjects, seed_sd in ((5, 20, 0.005), (10, 10, 0.01)):
        hits = 0
        for _ in range(num):
            by_seed = rng.normal(0, seed_sd, (len(error), seeds, 1))
            rest = rng.normal(0, 0.01, (len(error), seeds, subjects))
            scores = 1 - error[:, None, None] + rng.normal(0, 0.03, subjects) + by_seed + rest
            _, _, found = fit_power_law(_COUNTS, 1 - scores.mean(axis=(1, 2))[None])
            interval = _exponent_interval(_COUNTS, scores, float(found[0]))
            assert interval is not None
            hits += interval[0] <= exponent <= interval[1]
        where = f"{seeds} seeds x {subjects} subjects, sd between seeds {seed_sd}"
        yield {"what": "exponent's interval covers", "where": where, "nominal": 0.95, "found": hits / num}
