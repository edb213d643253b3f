"""Online probes: what an encoder's frozen features already know, measured on the val split without training it.

Cells are drawn by a generator of the probe's own, the same ones for every encoder, so that a probe changes no bit of
the training around it and two encoders differ by their features alone.

Shapes: N train samples, M val samples, D features, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from raysweep.data.augment import apply, keep_whole
from raysweep.data.pack import Pack
from raysweep.data.slices import mask_of, normalised, scaled_slices, shapes_of
from raysweep.methods import collapse_metrics
from raysweep.settings import Normalisation
from raysweep.sources.encoder import Encoder
from raysweep.stages.frozen_classifiers import accuracy, knn_shares, label_logits, linear_scores, mean_auc, mean_dice
from raysweep.stages.progress import Beat, no_beat
from raysweep.stages.runtime import Runtime

RECIPE = 2
"""Version of the procedure, raised when an encoder's scores change: those of two versions do not compare."""
MAX_SLICES = 1024
"""Slices of each split that a probe takes at most, evenly spread over it."""
MAX_CELLS = {"train": 8192, "val": 8192}
"""Cells of feature maps that a probe of masks takes at most from each split, of the train split as many of each class.

Five draws of 2048 cells, whatever their class, gave the linear probe of one random network a Dice of 0.250 with a
standard deviation of 0.015, more than a short training moves it; 2048 with as many of each class 0.277 and 0.003; 8192
of these 0.300 and 0.002.
"""
_BATCH = 64
_MAX_GRID = 28


@dataclass(frozen=True)
class Cells:
    """Cells of a split that a probe takes, N of them, in the order of slices, rows and columns."""

    numbers: NDArray[np.int64]
    """Their places among all cells of the split."""
    classes: Tensor
    """(N,) int64, the most frequent class of each cell's pixels."""
    weights: Tensor
    """(N,) float32, what each stands for: as drawn, classes weigh as the square roots of their frequencies."""


class Probes:
    """Measures encoders on one pack: by masks and by labels if it has them, and always by effective rank."""

    def __init__(
        self,
        pack: Pack,
        image_size: int,
        normalisation: Normalisation,
        runtime: Runtime,
        beat: Beat = no_beat,
        held_out: tuple[str, ...] = ("val",),
        draw: int = 0,
    ) -> None:
        self.pack = pack
        self.image_size = image_size
        self.normalisation = normalisation
        self.runtime = runtime
        self.beat = beat
        self.draw = draw
        self.splits = {"train": ("train",), "val": held_out}
        self._drawn: dict[tuple[str, int, int], Cells] = {}
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
        rows, index = np.concatenate([self.pack.select(split=one) for one in self.splits[split]]), self.pack.index
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
        (known, learnt), (asked, hidden) = (self._cells(encoder, split) for split in ("train", "val"))
        num_classes, truth = len(self.pack.class_names), hidden.classes
        one_hot, weights = (x.to(known.device) for x in (F.one_hot(learnt.classes, num_classes), learnt.weights))
        found = {
            "knn": knn_shares(known, one_hot * weights[:, None], asked),
            "linear": linear_scores(known, one_hot, asked, weights),
        }
        return {f"{name}_dice": mean_dice(scores.argmax(1).cpu(), truth, num_classes) for name, scores in found.items()}

    def _cells(self, encoder: Encoder, split: str) -> tuple[Tensor, Cells]:
        """Return the features (N, D) of cells of a split, and these cells; other cells are never kept."""
        rows = self._rows(split, "masks")
        features, first = [], 0
        for part in _parts(rows):
            maps = _grids(self._run(encoder, part))
            cells = self._draw(split, rows, *maps[0].shape[2:])
            last = first + len(part) * maps[0].shape[2:].numel()
            here = cells.numbers[(cells.numbers >= first) & (cells.numbers < last)] - first
            features.append(_describe_cells(maps, torch.from_numpy(here).to(maps[0].device)))
            first = last
        return torch.cat(features), cells

    def _draw(self, split: str, rows: NDArray[np.int64], height: int, width: int) -> Cells:
        """Return the cells of a grid to take of a split; masks are read once, however many encoders are probed."""
        key = split, height, width
        if key not in self._drawn:
            num_classes = len(self.pack.class_names)
            classes = torch.cat([self._classes(part, height, width) for part in _parts(rows)])
            self._drawn[key] = _draw_cells(classes, num_classes, MAX_CELLS[split], self.draw, balanced=split == "train")
        return self._drawn[key]

    def _classes(self, rows: NDArray[np.int64], height: int, width: int) -> Tensor:
        """Return the class of every cell of some slices, (N,) int64."""
        self.beat()
        whole, masks = keep_whole(shapes_of(self.pack, rows)), [mask_of(self.pack, int(row)) for row in rows]
        _, labels = apply(scaled_slices(self.pack, rows), whole, self.image_size, masks=masks)
        return _most_frequent(labels, len(self.pack.class_names), height, width).flatten()


def _draw_cells(classes: Tensor, num_classes: int, most: int, seed: int = 0, *, balanced: bool) -> Cells:
    """Return at most so many of (N,) cells drawn at random: as many of each class while there are, or whatever.

    Weights lie half way, on a log scale, between the classes' frequencies, under which background wins nearly every
    vote, and equal weight, under which it wins too few: Dice is best in between.
    """
    order = np.random.default_rng(seed).permutation(len(classes))
    if balanced:
        rank = np.empty(len(classes), np.int64)  # of each cell among those of its class
        for label in range(num_classes):
            of_class = order[classes.numpy()[order] == label]
            rank[of_class] = np.arange(len(of_class))
        order = order[np.argsort(rank[order], kind="stable")]
    numbers = np.sort(order[:most])
    chosen = classes[torch.from_numpy(numbers)]
    counts, drawn = (torch.bincount(x, minlength=num_classes).clamp(min=1).float() for x in (classes, chosen))
    return Cells(numbers, chosen, (counts.sqrt() / drawn)[chosen])


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
