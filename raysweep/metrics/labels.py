"""Scores of label probabilities: areas under curves, accuracy, calibration.

Shapes: N cases, L labels. Truth is 1 or 0, NaN where it is not known; such entries are left out of every score.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

NUM_BINS = 15
"""Bins of equal width that the calibration error compares."""
THRESHOLD = 0.5
"""Probability above which a label that excludes no other counts as predicted."""


def roc_auc(probability: Array, truth: Array) -> float:
    """Return the area under the ROC curve of one label, (N,) and (N,); NaN unless both classes are there.

    It is the share of pairs of a positive and a negative case that are ranked rightly, ties counting half.

    Source: Hanley & McNeil 1982, Radiology 143(1).
    """
    from scipy.stats import rankdata  # takes long to import

    probability, positive = _known(probability, truth)
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    if not num_positive or not num_negative:
        return float("nan")
    rank_sum = float(rankdata(probability)[positive].sum())
    return (rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative)


def average_precision(probability: Array, truth: Array) -> float:
    """Return the area under the precision-recall curve of one label as average precision; NaN unless both classes are.

    The sum over thresholds of precision times the step in recall; cases of equal probability share a threshold.

    Source: Davis & Goadrich 2006, ICML, section 2, without interpolation.
    """
    probability, positive = _known(probability, truth)
    if positive.all() or not positive.any():
        return float("nan")
    order = np.argsort(-probability, kind="stable")
    last_of_tie = np.append(np.diff(probability[order]) != 0, True)
    hits = np.cumsum(positive[order])[last_of_tie]
    taken = np.flatnonzero(last_of_tie) + 1
    return float((np.diff(hits, prepend=0) * hits / taken).sum() / hits[-1])


def is_right(probability: Array, truth: Array, *, exclusive: bool) -> Array:
    """Return (N, L): 1 where a decision is right, 0 where it is wrong, NaN where there is none to judge.

    Of labels that exclude each other the most probable is decided for, and only the entry of the true one is judged.
    """
    if not exclusive:
        right = ((probability > THRESHOLD) == (truth > THRESHOLD)).astype(np.float64)
        return np.where(np.isnan(truth), np.nan, right)
    decided = np.arange(probability.shape[1]) == probability.argmax(1)[:, None]
    return np.where(truth > THRESHOLD, decided.astype(np.float64), np.nan)


def recalls(probability: Array, truth: Array, *, exclusive: bool) -> Array:
    """Return what balanced accuracy averages: recall of each label, (L,), or sensitivity and specificity, (2 L,)."""
    right = is_right(probability, truth, exclusive=exclusive)
    parts = [right] if exclusive else [np.where(truth > THRESHOLD, right, np.nan), np.where(truth > 0.5, np.nan, right)]
    return np.concatenate([_column_means(part) for part in parts])


def balanced_accuracy(probability: Array, truth: Array, *, exclusive: bool) -> float:
    """Return the mean recall of the classes that are there; of independent labels, of presence and absence of each."""
    return nanmean(recalls(probability, truth, exclusive=exclusive))


def accuracy(probability: Array, truth: Array, *, exclusive: bool) -> float:
    """Return the share of decisions that are right."""
    return nanmean(is_right(probability, truth, exclusive=exclusive))


def brier(probability: Array, truth: Array, *, exclusive: bool) -> float:
    """Return the mean squared error of probabilities: summed over labels that exclude each other, else averaged.

    Source: Brier 1950, Monthly Weather Review 78(1), equation 2.
    """
    squared = (probability - truth) ** 2
    return nanmean(squared.sum(1)) if exclusive else nanmean(squared)


def calibration_error(probability: Array, truth: Array, *, exclusive: bool) -> float:
    """Return the expected calibration error over 15 bins of equal width: 0 where probabilities are frequencies.

    Of labels that exclude each other it judges the probability of the one decided for; of others, of each, averaged.

    Source: Guo et al. 2017, arXiv:1706.04599, equation 3.
    """
    if exclusive:
        known = ~np.isnan(truth).any(1)
        decided = probability[known].argmax(1)
        chosen = np.arange(len(decided)), decided
        return _binned_error(probability[known][chosen], truth[known][chosen])
    columns = zip(probability.T, truth.T, strict=True)
    return nanmean(np.array([_binned_error(p[~np.isnan(t)], t[~np.isnan(t)]) for p, t in columns]))


def label_scores(
    probability: Array, truth: Array, names: Sequence[str], scored: Sequence[int], *, exclusive: bool
) -> dict[str, float]:
    """Return every score of (N, L) probabilities by name; one that no case allows is left out.

    ``auc`` and ``auprc`` are means over the scored labels that some cases have and some lack, ``auc_NAME`` and
    ``auprc_NAME`` those of one label. ``accuracy``, ``balanced_accuracy``, ``ece`` and ``brier`` are of the scored
    labels; of labels that exclude each other they are of all, because a decision is between all.
    """
    scores: dict[str, float] = {}
    for measure, area in (("auc", roc_auc), ("auprc", average_precision)):
        found = {names[label]: area(probability[:, label], truth[:, label]) for label in scored}
        scores[measure] = nanmean(np.array(list(found.values())))
        scores |= {f"{measure}_{name}": value for name, value in found.items()}
    judged = list(range(len(names))) if exclusive else list(scored)
    for name, measure_all in DECISIONS.items():
        scores[name] = measure_all(probability[:, judged], truth[:, judged], exclusive=exclusive)
    return {name: value for name, value in scores.items() if not np.isnan(value)}


DECISIONS: Mapping[str, Callable[..., float]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "ece": calibration_error,
    "brier": brier,
}
"""Scores of all labels together, by name."""


def nanmean(values: Array) -> float:
    """Return the mean of what is not NaN; NaN if nothing is."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")


def _known(probability: Array, truth: Array) -> tuple[Array, npt.NDArray[np.bool_]]:
    known = ~np.isnan(truth)
    return probability[known], truth[known] > THRESHOLD


def _column_means(values: Array) -> Array:
    return np.array([nanmean(column) for column in values.T])


def _binned_error(confidence: Array, outcome: Array) -> float:
    if not len(confidence):
        return float("nan")
    bins = np.clip((confidence * NUM_BINS).astype(np.int64), 0, NUM_BINS - 1)
    gaps = np.bincount(bins, confidence, NUM_BINS) - np.bincount(bins, outcome, NUM_BINS)
    return float(np.abs(gaps).sum() / len(confidence))
