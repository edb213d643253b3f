"""Online probes: what an encoder's frozen features already know, measured on the val split without training it.

Nothing here is random, so a probe changes no bit of the training around it.

Shapes: N train samples, M val samples, D features, K classes.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax
from scipy.stats import rankdata
from torch import Tensor

from raysweep.data.augment import apply, keep_whole
from raysweep.data.pack import Pack
from raysweep.data.slices import mask_of, normalised, scaled_slices, shapes_of
from raysweep.methods import collapse_metrics
from raysweep.settings import Normalisation
from raysweep.sources.encoder import Encoder
from raysweep.stages.progress import Beat, no_beat
from raysweep.stages.runtime import Runtime

MAX_SLICES = 1024
"""Slices of each split that a probe takes at most, evenly spread over it."""
MAX_CELLS = {"train": 2048, "val": 8192}
"""Cells of feature maps that a probe of masks takes at most from each split, evenly spread over it."""
_ASKED_AT_ONCE = 1024
_BATCH = 64
_NUM_NEIGHBOURS, _TEMPERATURE = 20, 0.07
_RIDGE, _MAX_ITERATIONS, _MIN_STD = 1e-2, 50, 1e-6
_MAX_GRID = 28


class Probes:
    """Measures encoders on one pack: by masks if it has them, else by labels, and always by effective rank."""

    def __init__(
        self,
        pack: Pack,
        image_size: int,
        normalisation: Normalisation,
        runtime: Runtime,
        beat: Beat = no_beat,
    ) -> None:
        self.pack = pack
        self.image_size = image_size
        self.normalisation = normalisation
        self.runtime = runtime
        self.beat = beat
        self.by_masks = len(pack.class_names) > 1 and all(len(self._rows(s, "masks")) for s in ("train", "val"))
        self.by_labels = bool(pack.label_names) and all(len(self._rows(s, "labels")) > 1 for s in ("train", "val"))

    def measure(self, encoder: Encoder) -> dict[str, float]:
        """Return scores of an encoder's frozen features, and leave its mode as it was.

        ``knn_dice`` and ``linear_dice``: cells of a grid of up to 28 x 28, each described by all feature maps from that
        grid's down to the coarsest and classified as the most frequent class of its pixels; mean Dice over foreground
        classes. ``knn_accuracy`` and ``linear_accuracy`` (or ``knn_auc`` and
        ``linear_auc`` where labels do not exclude each other): pooled features, labels of slices. ``rank_me``: the
        effective rank of pooled features.
        """
        training = encoder.training
        encoder.eval()
        with torch.no_grad():  # not inference_mode: what a network caches in it cannot be trained on afterwards
            scores = self._rank(encoder)
            if self.by_masks:
                scores |= self._masks(encoder)
            if self.by_labels:
                scores |= self._labels(encoder)
        encoder.train(training)
        return scores

    def _rows(self, split: str, kind: str | None = None) -> NDArray[np.int64]:
        rows, index = self.pack.select(split=split), self.pack.index
        if kind == "masks":
            rows = rows[index.mask_position[rows] >= 0]
        elif kind == "labels":
            rows = rows[~np.isnan(index.labels[rows]).any(1)]
        return _evenly(rows, MAX_SLICES)

    def _rank(self, encoder: Encoder) -> dict[str, float]:
        rows = self._rows("val")
        if len(rows) < 2:
            return {}
        return {"rank_me": float(collapse_metrics(self._pooled(encoder, rows))["effective_rank"])}

    def _pooled(self, encoder: Encoder, rows: NDArray[np.int64]) -> Tensor:
        return torch.cat([self._run(encoder, part)[-1].mean((2, 3)).float().cpu() for part in _parts(rows)])

    def _run(self, encoder: Encoder, rows: NDArray[np.int64]) -> list[Tensor]:
        self.beat()
        whole = keep_whole(shapes_of(self.pack, rows))
        slices = apply(scaled_slices(self.pack, rows), whole, self.image_size, device=self.runtime.device)
        with self.runtime.autocast():
            return encoder.feature_maps(normalised(slices, self.normalisation))

    def _labels(self, encoder: Encoder) -> dict[str, float]:
        rows = {split: self._rows(split, "labels") for split in ("train", "val")}
        features = {split: self._pooled(encoder, chosen) for split, chosen in rows.items()}
        truth = {split: torch.from_numpy(self.pack.index.labels[chosen]).float() for split, chosen in rows.items()}
        exclusive = all(bool((values.sum(1) == 1).all()) and values.shape[1] > 1 for values in truth.values())
        metric = "accuracy" if exclusive else "auc"
        score = accuracy if exclusive else mean_auc
        predicted = {
            "knn": knn_shares(features["train"], truth["train"], features["val"]),
            "linear": (linear_scores if exclusive else label_logits)(
                features["train"], truth["train"], features["val"]
            ),
        }
        return {f"{name}_{metric}": score(values, truth["val"]) for name, values in predicted.items()}

    def _masks(self, encoder: Encoder) -> dict[str, float]:
        features, truth = zip(*(self._cells(encoder, split) for split in ("train", "val")), strict=True)
        num_classes = len(self.pack.class_names)
        one_hot = F.one_hot(truth[0], num_classes).float()
        # Half way, on a log scale, between the classes' frequencies, under which background wins nearly every vote, and
        # equal weight, under which it wins too few: Dice is best in between.
        weights = one_hot.mean(0).clamp(min=1 / len(one_hot)).rsqrt()
        return {
            "knn_dice": mean_dice(
                knn_shares(features[0], one_hot * weights, features[1]).argmax(1), truth[1], num_classes
            ),
            "linear_dice": mean_dice(
                linear_scores(features[0], one_hot, features[1], weights[truth[0]]).argmax(1), truth[1], num_classes
            ),
        }

    def _cells(self, encoder: Encoder, split: str) -> tuple[Tensor, Tensor]:
        """Return the features (N, D) of cells of a split, and their classes (N,); other cells are never kept."""
        rows = self._rows(split, "masks")
        features, classes = [], []
        for first, part in zip(range(0, len(rows), _BATCH), _parts(rows), strict=True):
            maps = _grids(self._run(encoder, part))
            grid = maps[0].shape[2:]
            chosen = _evenly(np.arange(len(rows) * grid.numel()), MAX_CELLS[split]) - first * grid.numel()
            cells = torch.from_numpy(chosen[(chosen >= 0) & (chosen < len(part) * grid.numel())])
            whole = keep_whole(shapes_of(self.pack, part))
            masks = [mask_of(self.pack, int(row)) for row in part]
            _, labels = apply(scaled_slices(self.pack, part), whole, self.image_size, masks=masks)
            features.append(_describe_cells(maps, cells.to(maps[0].device)).cpu())
            classes.append(_most_frequent(labels, len(self.pack.class_names), *grid).flatten()[cells])
        return torch.cat(features), torch.cat(classes)


def _grids(maps: list[Tensor]) -> list[Tensor]:
    """Return the feature maps on grids of up to 28 cells a side, finest first, or the last one."""
    return [m for m in maps if m.shape[2] <= _MAX_GRID] or maps[-1:]


def _describe_cells(maps: list[Tensor], cells: Tensor) -> Tensor:
    """Return what each map has at some cells, (N, D): (N,) numbers of cells on the first map's grid, row by row.

    Source: Hariharan et al. 2015, arXiv:1411.5752, "hypercolumns".
    """
    rows, columns = maps[0].shape[2:]
    which, y, x = cells // (rows * columns), cells // columns % rows, cells % columns
    found = [m[which, :, y * m.shape[2] // rows, x * m.shape[3] // columns].float() for m in maps]
    # Each map weighs as much as any other in a distance, however many channels it has.
    return torch.cat([F.normalize(m, dim=1) for m in found], 1)


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

    Fitted by L-BFGS on standardised features with a penalty of 0.005 on squared coefficients: a convex problem, so
    there is no learning rate or seed to get wrong.

    Args:
        known: features of train samples.
        shares: the class of each train sample, one-hot.
        asked: features of val samples.
        weights: (N,) weights of train samples; None for equal ones.
    """
    x, y = known.double().numpy(), shares.double().numpy()
    w = np.ones(len(x)) if weights is None else weights.double().numpy()
    w = w / w.sum()
    mean = w @ x
    std = np.sqrt(w @ (x - mean) ** 2).clip(_MIN_STD)
    z = np.hstack(((x - mean) / std, np.ones((len(x), 1))))
    penalty = np.full((z.shape[1], 1), _RIDGE)
    penalty[-1] = 0  # not on the intercept

    def objective(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        coefficients = flat.reshape(-1, y.shape[1])
        log_p = log_softmax(z @ coefficients, axis=1)
        loss = -(w[:, None] * y * log_p).sum() + (penalty * coefficients**2).sum() / 2
        return loss, (z.T @ (w[:, None] * (np.exp(log_p) - y)) + penalty * coefficients).ravel()

    start = np.zeros(z.shape[1] * y.shape[1])
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": _MAX_ITERATIONS})
    scaled = np.hstack(((asked.double().numpy() - mean) / std, np.ones((len(asked), 1))))
    return torch.from_numpy(scaled @ found.x.reshape(-1, y.shape[1])).float()


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
    areas = []
    for score, label in zip(scores.T.numpy(), truth.T.numpy() > 0.5, strict=True):
        positives, negatives = int(label.sum()), int((~label).sum())
        if positives and negatives:
            ranks = rankdata(score)
            areas.append((ranks[label].sum() - positives * (positives + 1) / 2) / (positives * negatives))
    return float(np.mean(areas)) if areas else 0.5


def mean_dice(predicted: Tensor, truth: Tensor, num_classes: int) -> float:
    """Return the Dice coefficient of (M,) classes over all samples, averaged over the foreground classes present."""
    scores = []
    for label in range(1, num_classes):
        ours, theirs = predicted == label, truth == label
        if total := int(ours.sum() + theirs.sum()):
            scores.append(2 * int((ours & theirs).sum()) / total)
    return float(np.mean(scores)) if scores else 0.0


def _most_frequent(labels: Tensor, num_classes: int, rows: int, columns: int) -> Tensor:
    """Return the most frequent class of each cell, (B, rows, columns), of (B, S, S) labels."""
    one_hot = F.one_hot(labels, num_classes).movedim(-1, 1).float()
    return F.adaptive_avg_pool2d(one_hot, (rows, columns)).argmax(1)


def _evenly(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return at most so many of the rows, evenly spread."""
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]


def _parts(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [rows[first : first + _BATCH] for first in range(0, len(rows), _BATCH)]
