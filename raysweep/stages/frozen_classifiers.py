"""Classifiers of frozen features, nearest neighbours and logistic regression, and what their answers are worth.

Shapes: N known samples, M asked samples, D features, K classes, L labels.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize
from torch import Tensor

from raysweep.metrics.labels import roc_auc

_ASKED_AT_ONCE = 1024
_NUM_NEIGHBOURS, _TEMPERATURE = 20, 0.07
_RIDGE, _MAX_ITERATIONS, _MIN_STD = 1e-2, 50, 1e-6
_LEAST_GAIN = 1e-8
"""Relative fall of the loss below which a fit is over; single precision has no more to give."""


def knn_shares(known: Tensor, shares: Tensor, asked: Tensor) -> Tensor:
    """Return the mean shares (M, K) of the 20 most similar known samples (N, D), weighted by exp(cosine / 0.07).

    Source: Wu et al. 2018, arXiv:1805.01978, section 3.4.
    """
    known, found = F.normalize(known, dim=1), []
    for part in torch.split(F.normalize(asked, dim=1), _ASKED_AT_ONCE):
        nearest = (part @ known.T).topk(min(_NUM_NEIGHBOURS, len(known)), dim=1)
        weights = (nearest.values / _TEMPERATURE).softmax(1)
        found.append((weights[..., None] * shares[nearest.indices]).sum(1))
    return torch.cat(found)


def linear_scores(known: Tensor, shares: Tensor, asked: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return what logistic regression from known (N, D) features to shares (N, K) gives for asked ones, (M, K) logits.

    Fitted on standardised features with a penalty of 0.005 on squared coefficients: a convex problem, so there is no
    learning rate or seed to get wrong. Products run where the features are; the fit takes some 20 of them.

    Args:
        known: features of train samples.
        shares: the class of each train sample, one-hot.
        asked: features of val samples.
        weights: (N,) weights of train samples; None for equal ones.
    """
    x, y = known.float(), shares.to(known.device, torch.float32)
    w = torch.ones(len(x), device=x.device) if weights is None else weights.to(x)
    w = w / w.sum()
    mean = w @ x
    std = (w @ (x - mean).square()).sqrt().clamp(min=_MIN_STD)
    coefficients = _fit_logistic(_with_intercept((x - mean) / std), y, w[:, None])
    return (_with_intercept((asked.float() - mean) / std) @ coefficients).cpu()


def _with_intercept(x: Tensor) -> Tensor:
    return torch.cat((x, x.new_ones(len(x), 1)), 1)


def _fit_logistic(z: Tensor, y: Tensor, w: Tensor) -> Tensor:
    """Return the coefficients (D, K) of penalised logistic regression, the last row the intercept.

    L-BFGS in coordinates in which the loss curves alike in all directions, as far as the features' covariance says it:
    features that go together, as those of one network do, otherwise take four times as many iterations.

    Args:
        z: (N, D) features, the last one constant.
        y: (N, K) shares.
        w: (N, 1) weights, which sum to 1.
    """
    shape = z.shape[1], y.shape[1]
    penalty = np.full(shape[0], _RIDGE)
    penalty[-1] = 0  # not on the intercept
    curvature = ((w * z).T @ z).double().cpu().numpy() / 4  # no probability varies by more than a quarter
    factor = cholesky(curvature + np.diag(penalty + _MIN_STD))

    def coefficients(flat: NDArray[np.float64]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = solve_triangular(factor, flat.reshape(shape))
        return found

    def objective(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        c = coefficients(flat)
        log_p = (z @ torch.from_numpy(c).to(z)).log_softmax(1)
        loss = -float((w * y * log_p).sum()) + float((penalty[:, None] * c**2).sum()) / 2
        slope = (z.T @ (w * (log_p.exp() - y))).double().cpu().numpy() + penalty[:, None] * c
        return loss, solve_triangular(factor, slope, trans="T").ravel()

    options = {"maxiter": _MAX_ITERATIONS, "ftol": _LEAST_GAIN}
    found = minimize(objective, np.zeros(shape[0] * shape[1]), jac=True, method="L-BFGS-B", options=options)
    return torch.from_numpy(coefficients(found.x)).to(z)


def label_logits(known: Tensor, labels: Tensor, asked: Tensor) -> Tensor:
    """Return the logits (M, L) of labels (N, L) that do not exclude each other, each by a regression of its own."""
    columns = []
    for label in labels.T:
        logits = linear_scores(known, torch.stack((1 - label, label), 1), asked)
        columns.append(logits[:, 1] - logits[:, 0])
    return torch.stack(columns, 1)


def accuracy(scores: Tensor, truth: Tensor) -> float:
    """Return the share of samples whose highest score is that of their class; both are (M, K)."""
    return float((scores.argmax(1) == truth.argmax(1)).float().mean())


def mean_auc(scores: Tensor, truth: Tensor) -> float:
    """Return the area under the ROC curve, averaged over the labels that some samples have and some lack."""
    columns = zip(scores.T.double().numpy(), truth.T.double().numpy(), strict=True)
    areas = np.array([roc_auc(score, label) for score, label in columns])
    return float(np.nanmean(areas)) if not np.isnan(areas).all() else 0.5


def mean_dice(predicted: Tensor, truth: Tensor, num_classes: int) -> float:
    """Return the Dice coefficient of (M,) classes over all samples, averaged over the foreground classes present."""
    scores = []
    for label in range(1, num_classes):
        ours, theirs = predicted == label, truth == label
        if total := int(ours.sum() + theirs.sum()):
            scores.append(2 * int((ours & theirs).sum()) / total)
    return float(np.mean(scores)) if scores else 0.0
