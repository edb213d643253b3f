"""Scores that are no mean over cases, taken apart into one number a subject by the jackknife.

An area under the ROC curve ranks all cases against each other, so no subject has one. The pseudo-value of subject i
among n is the score of all plus (n - 1) times what leaving i out costs on average less what leaving i out costs. Their
mean is the score itself, and they behave like independent scores of subjects, so intervals and tests that resample or
exchange subjects hold for such scores as they hold for means. A pseudo-value alone may leave the range from 0 to 1.

Source: Efron 1982, The Jackknife, the Bootstrap and Other Resampling Plans, chapter 4; Dorfman, Berbaum & Metz 1992,
Investigative Radiology 27(9), who compare readers (here: seeds) and cases by pseudo-values of the area under the curve;
centred on the score as in Hillis, Obuchowski, Schartz & Berbaum 2005, Statistics in Medicine 24(10).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]


def auc_without_each(probability: Array, positive: npt.NDArray[np.bool_], subject: Codes, num_subjects: int) -> Array:
    """Return the area under the ROC curve of one label without each subject in turn, (num_subjects,).

    Args:
        probability: (N,) of the cases whose truth is known.
        positive: (N,) their truth.
        subject: (N,) whose case it is, from 0 to num_subjects - 1.
        num_subjects: subjects in all, some perhaps without a case of this label.

    Returns:
        NaN where no positive or no negative case is left.
    """
    wins = _wins(probability, positive)
    with_subject = np.bincount(subject, wins, num_subjects) - _own_pairs(probability, positive, subject, num_subjects)
    pairs = wins[positive].sum() - with_subject
    left = [kind.sum() - np.bincount(subject[kind], minlength=num_subjects) for kind in (positive, ~positive)]
    possible = (left[0] * left[1]).astype(np.float64)
    return _ratio(pairs, possible)


def pseudo_values(score: float, without_each: Array) -> Array:
    """Return one number a subject whose mean is ``score``, given the score without each of two or more subjects."""
    values: Array = score + (len(without_each) - 1) * (without_each.mean() - without_each)
    return values


def _ratio(numerator: Array, denominator: Array) -> Array:
    ratio: Array = np.divide(numerator, denominator, out=np.full(len(numerator), np.nan), where=denominator > 0)
    return ratio


def _wins(probability: Array, positive: npt.NDArray[np.bool_]) -> Array:
    """Return for each case the cases of the other kind that it is ranked rightly against, ties counting half."""
    wins = np.empty(len(probability))
    of_positive, of_negative = np.sort(probability[positive]), np.sort(probability[~positive])
    asked = probability[positive]
    below = np.searchsorted(of_negative, asked, "left") + np.searchsorted(of_negative, asked, "right")
    wins[positive] = below / 2
    asked = probability[~positive]
    below = np.searchsorted(of_positive, asked, "left") + np.searchsorted(of_positive, asked, "right")
    wins[~positive] = len(of_positive) - below / 2
    return wins


def _own_pairs(probability: Array, positive: npt.NDArray[np.bool_], subject: Codes, num_subjects: int) -> Array:
    """Return the pairs won within each subject, which summing over its positive and negative cases counts twice."""
    own = np.zeros(num_subjects)
    numbers = [np.bincount(subject[kind], minlength=num_subjects) for kind in (positive, ~positive)]
    mixed = np.flatnonzero((numbers[0] > 0) & (numbers[1] > 0))
    order = np.argsort(subject, kind="stable")
    ends = np.cumsum(numbers[0] + numbers[1])
    for code in mixed.tolist():
        mine = order[ends[code] - numbers[0][code] - numbers[1][code] : ends[code]]
        own[code] = _wins(probability[mine], positive[mine])[positive[mine]].sum()
    return own
