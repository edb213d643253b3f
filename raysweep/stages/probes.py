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

RECIPE = 3
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


_NO_CELLS = Cells(np.empty(0, np.int64), torch.empty(0, dtype=torch.int64), torch.empty(0))


@dataclass(frozen=True)
class Read:
    """What an encoder makes of the slices of a split; what no probe needs has no rows."""

    ranked: Tensor
    """(R, D) pooled features of the slices whose rank is taken."""
    labelled: Tensor
    """(N, D) pooled features of slices with labels."""
    labels: Tensor
    """(N, L) float32."""
    described: Tensor
    """(M, D) features of cells."""
    cells: Cells


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
            read = {split: self._read(encoder, split) for split in self.splits}
            scores = self._rank(read["val"])
            if self.by_masks:
                scores |= self._masks(read)
            if self.by_labels:
                scores |= self._labels(read)
        encoder.train(training)
        return scores

    def _rows(self, split: str, kind: str | None = None) -> NDArray[np.int64]:
        rows = np.sort(np.concatenate([self.pack.select(split=one) for one in self.splits[split]]))
        index = self.pack.index
        if kind == "masks":
            rows = rows[index.mask_position[rows] >= 0]
        elif kind == "labels":
            rows = rows[~np.isnan(index.labels[rows]).any(1)]
        return _evenly(rows, MAX_SLICES)

    def _read(self, encoder: Encoder, split: str) -> Read:
        """Pass every slice that a probe of a split needs through the encoder, once; cells not taken are never kept."""
        of_masks, of_labels, of_rank = (
            self._rows(split, kind) if needed else np.empty(0, np.int64)
            for kind, needed in (("masks", self.by_masks), ("labels", self.by_labels), (None, split == "val"))
        )
        rows = np.unique(np.concatenate((of_masks, of_labels, of_rank)))
        pooled, described, first, cells = [], [], 0, _NO_CELLS
        for part in _parts(rows):
            maps = self._run(encoder, part)
            pooled.append(maps[-1].mean((2, 3)).float().cpu())
            if (with_masks := np.isin(part, of_masks)).any():
                grids = [m[torch.from_numpy(with_masks).to(m.device)] for m in _grids(maps)]
                cells = self._draw(split, of_masks, *grids[0].shape[2:])
                last = first + len(grids[0]) * grids[0].shape[2:].numel()
                here = cells.numbers[(cells.numbers >= first) & (cells.numbers < last)] - first
                described.append(_describe_cells(grids, torch.from_numpy(here).to(grids[0].device)))
                first = last
        features = torch.cat(pooled) if pooled else torch.empty(0)
        return Read(
            ranked=features[np.searchsorted(rows, of_rank)],
            labelled=features[np.searchsorted(rows, of_labels)],
            labels=torch.from_numpy(self.pack.index.labels[of_labels]).float(),
            described=torch.cat(described) if described else torch.empty(0),
            cells=cells,
        )

    def _run(self, encoder: Encoder, rows: NDArray[np.int64]) -> list[Tensor]:
        self.beat()
        whole = keep_whole(shapes_of(self.pack, rows))
        slices = apply(scaled_slices(self.pack, rows), whole, self.image_size, device=self.runtime.device)
        with self.runtime.autocast():
            return encoder.feature_maps(normalised(slices, self.normalisation))

    def _rank(self, held_out: Read) -> dict[str, float]:
        if len(held_out.ranked) < 2:
            return {}
        return {"rank_me": float(collapse_metrics(held_out.ranked)["effective_rank"])}

    def _labels(self, read: dict[str, Read]) -> dict[str, float]:
        known, asked = read["train"], read["val"]
        exclusive = all(bool((x.labels.sum(1) == 1).all()) and x.labels.shape[1] > 1 for x in (known, asked))
        metric, score = ("accuracy", accuracy) if exclusive else ("auc", mean_auc)
        by_regression = linear_scores if exclusive else label_logits
        predicted = {
            "knn": knn_shares(known.labelled, known.labels, asked.labelled),
            "linear": by_regression(known.labelled, known.labels, asked.labelled),
        }
        return {f"{name}_{metric}": score(values, asked.labels) for name, values in predicted.items()}

    def _masks(self, read: dict[str, Read]) -> dict[str, float]:
        (known, learnt), (asked, hidden) = ((read[split].described, read[split].cells) for split in ("train", "val"))
        num_classes, truth = len(self.pack.class_names), hidden.classes
        one_hot, weights = (x.to(known.device) for x in (F.one_hot(learnt.classes, num_classes), learnt.weights))
        found = {
            "knn": knn_shares(known, one_hot * weights[:, None], asked),
            "linear": linear_scores(known, one_hot, asked, weights),
        }
        return {f"{name}_dice": mean_dice(scores.argmax(1).cpu(), truth, num_classes) for name, scores in found.items()}

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
