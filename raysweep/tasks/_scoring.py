"""Scoring of predicted masks: counts, overlap, outlines, volumes; rows of the cases table and the split's score.

Shapes: B batch, K classes of the network's output, H, W of a slice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from raysweep.metrics.overlap import absent, dice, iou, size_error
from raysweep.metrics.surfaces import outline_distances
from raysweep.settings import Settings

if TYPE_CHECKING:
    from raysweep.data.pack import Pack

Array = NDArray[np.float64]
MetricName = Literal["dice", "iou", "nsd"]
OVERLAPS = {"dice": dice, "iou": iou}


class SegmentationEvaluation(Settings):
    """How a segmentation is predicted and scored. The defaults are raysweep's own protocol.

    Kalapos & Gyires-Toth 2022, as published: ``metric: iou`` and ``evaluation: {pad_to_px: 224, score_padding: true,
    score_background: true, absent: one}``. Hosseinzadeh Taher et al. 2021, as published: ``output: sigmoid``, ``metric:
    dice`` and the default threshold.
    """

    pad_to_px: int = Field(0, ge=0)
    """Slices are padded bottom-right with zeros to a multiple of the encoder's stride, and at least to this side."""
    score_padding: bool = False
    """Whether the padding is scored, as background."""
    window_px: int | None = Field(None, ge=32)
    """Side of a sliding window for slices that are larger; null predicts whole slices."""
    overlap: float = Field(0.5, ge=0, lt=1)
    """Share of its side by which a window overlaps the next; predictions blend with Gaussian weights."""
    threshold: float = Field(0.5, gt=0, lt=1)
    """Probability above which a pixel belongs to a structure, where each has a sigmoid of its own."""
    score_background: bool = False
    """Whether background is a class among others in the score."""
    absent: Literal["skip", "one", "zero"] = "skip"
    """Score of a class that is in neither mask of a case: none, 1 or 0."""
    average: Literal["slice", "volume"] = "slice"
    """Cases that the score averages over: slices, or volumes with the counts of their slices added up."""
    nsd_mm: tuple[float, ...] = ()
    """Tolerances in mm of the normalised surface Dice; with any, it and HD95 of every slice are kept."""
    missed_hd95: Literal["diagonal", "null"] = "diagonal"
    """Hausdorff distance where one of the masks is empty: the slice's diagonal, or none, which flatters what misses."""


@dataclass(frozen=True)
class Case:
    """One slice with its masks."""

    row: int
    counts: NDArray[np.int64]
    """(K, 4): true positives, false positives, false negatives, true negatives."""
    hd95_mm: Array
    """(K,), NaN where there is none."""
    nsd: Array
    """(K, tolerances), NaN where there is none."""


@dataclass
class Scoring:
    """Collects the slices of a split.

    ``classes`` are the classes that the K channels stand for, as indices into the pack's class names.
    """

    pack: Pack
    metric: MetricName
    settings: SegmentationEvaluation
    classes: Sequence[int]
    cases: list[Case] = field(default_factory=list)

    def add(
        self,
        row: int,
        counts: NDArray[np.int64],
        prediction: NDArray[np.bool_] | None = None,
        truth: NDArray[np.bool_] | None = None,
    ) -> float | None:
        """Add a slice, with masks (K, H, W) where outlines are to be measured; return its score, if it has one."""
        shape = (len(self.classes), len(self.settings.nsd_mm))
        hd95, nsd = np.full(shape[0], np.nan), np.full(shape, np.nan)
        if self.settings.nsd_mm and prediction is not None and truth is not None:
            for channel, label in enumerate(self.classes):
                if label > 0:
                    hd95[channel], nsd[channel] = self._outlines(row, prediction[channel], truth[channel])
        self.cases.append(Case(row, counts, hd95, nsd))
        return _mean(self._scores(self.cases[-1]))

    def _outlines(self, row: int, prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> tuple[float, Array]:
        tolerances = self.settings.nsd_mm
        nothing = np.full(len(tolerances), np.nan)
        if not prediction.any() and not truth.any():
            return np.nan, nothing
        spacing = (float(self.pack.index.spacing_mm[row][0]), float(self.pack.index.spacing_mm[row][1]))
        found = outline_distances(prediction, truth, spacing)
        if found is not None:
            return found.hausdorff(), np.array([found.surface_dice(tolerance) for tolerance in tolerances])
        diagonal = float(np.hypot(*(np.array(truth.shape) * spacing)))
        return diagonal if self.settings.missed_hd95 == "diagonal" else np.nan, np.zeros(len(tolerances))

    def _scores(self, case: Case) -> Array:
        """Return what each class adds to the case's score, (K,), NaN where it adds nothing."""
        scores = _measured(self.metric, case).copy()
        scores[absent(case.counts)] = {"skip": np.nan, "one": 1.0, "zero": 0.0}[self.settings.absent]
        scores[~self._scored] = np.nan
        return scores

    @property
    def _scored(self) -> NDArray[np.bool_]:
        return np.array([label > 0 or self.settings.score_background for label in self.classes])

    def units(self) -> list[Case]:
        """Return what the score averages over: slices, or volumes with the counts of their slices added up."""
        if self.settings.average == "slice":
            return self.cases
        members: dict[tuple[str, int], list[Case]] = {}
        for case in self.cases:
            key = str(self.pack.index.volume[case.row]), int(self.pack.index.frame[case.row])
            members.setdefault(key, []).append(case)
        shape = (len(self.classes), len(self.settings.nsd_mm))
        no_outlines = np.full(shape[0], np.nan), np.full(shape, np.nan)
        return [
            Case(slices[0].row, np.sum([case.counts for case in slices], 0), *no_outlines)
            for slices in members.values()
        ]

    def score(self) -> float:
        """Return the mean over cases of the mean over their scored classes; 0 if no case has any."""
        means = [_mean(self._scores(case)) for case in self.units()]
        return float(np.mean([mean for mean in means if mean is not None] or [0.0]))

    def metrics(self) -> dict[str, float]:
        """Return means over cases by class, without those where it is absent: of the metric, HD95 and surface Dice."""
        cases = self.units()
        found = self._by_class(self.metric, np.stack([_measured(self.metric, case) for case in cases]))
        if not self.settings.nsd_mm:
            return found
        found |= self._by_class("hd95_mm", np.stack([case.hd95_mm for case in self.cases]))
        for position, tolerance in enumerate(self.settings.nsd_mm):
            name = f"nsd_{tolerance:g}mm"
            found |= self._by_class(name, np.stack([case.nsd[:, position] for case in self.cases]))
        return found

    def _by_class(self, name: str, values: Array) -> dict[str, float]:
        means = {
            f"{name}_{self.pack.class_names[label]}": _mean(values[:, channel])
            for channel, label in enumerate(self.classes)
            if label > 0 or (self.settings.score_background and name == self.metric)
        }
        return {key: mean for key, mean in means.items() if mean is not None}

    def rows(self, split: str) -> list[Mapping[str, Any]]:
        """Return the rows of the cases table: of every slice, and of every volume where those are scored."""
        of_slices = self.settings.average == "slice"
        rows = [row for case in self.cases for row in self._case_rows(case, split, "slice", adds=of_slices)]
        for case in [] if of_slices else self.units():
            rows += self._case_rows(case, split, "volume", adds=True)
        return rows

    def _case_rows(self, case: Case, split: str, unit: str, *, adds: bool) -> list[Mapping[str, Any]]:
        index = self.pack.index
        common = {
            "split": split,
            "unit": unit,
            "subject": str(index.subject[case.row]),
            "volume": str(index.volume[case.row]),
            "frame": int(index.frame[case.row]),
            "slice_number": int(index.slice_number[case.row]) if unit == "slice" else None,
        }
        measured = {"dice": dice(case.counts), "iou": iou(case.counts), "size_error": size_error(case.counts)}
        measured |= {"hd95_mm": case.hd95_mm}
        scores = self._scores(case) if adds else np.full(len(self.classes), np.nan)
        return [
            {
                **common,
                "class_index": label,
                "class_name": self.pack.class_names[label],
                **dict(zip(("tp", "fp", "fn", "tn"), case.counts[channel].tolist(), strict=True)),
                **{name: _nullable(values[channel]) for name, values in measured.items()},
                "nsd": None if np.isnan(case.nsd[channel]).all() else case.nsd[channel].tolist(),
                "scored": bool(self._scored[channel]),
                "score": _nullable(scores[channel]),
            }
            for channel, label in enumerate(self.classes)
        ]


def _measured(metric: MetricName, case: Case) -> Array:
    return case.nsd[:, 0] if metric == "nsd" else OVERLAPS[metric](case.counts)


def _mean(values: Array) -> float | None:
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else None


def _nullable(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
