"""Classification: a linear head on the pooled encoder; areas under curves, accuracy and calibration per label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from raysweep.data.label_policies import resolve_labels
from raysweep.errors import PackError, did_you_mean
from raysweep.lazy import F, torch
from raysweep.metrics.labels import is_right, label_scores
from raysweep.settings import Augmentation, LabelRange, Settings, Training, Uncertain, Unknown, later
from raysweep.tasks._label_cases import UnitScope, case_rows, units_of
from raysweep.tasks._task import Evaluation, Predict, Task, TaskSettings

if TYPE_CHECKING:
    from raysweep.data.pack import Pack
    from raysweep.sources.encoder import Encoder

_EVALUATION_BATCH = 32
_RESIZE = 8 / 7


class ClassificationEvaluation(Settings):
    """How slices are predicted and scored. The defaults are those of Hosseinzadeh Taher et al. 2021 in validation."""

    crops: Literal["whole", "centre", "ten"] = "centre"
    """whole: the slice resized to the square of training.image_size; centre: its centre, resized first; ten: the mean
    over its corners, its centre and their mirror images, as Hosseinzadeh Taher et al. 2021 test."""
    resize_px: int | None = Field(None, ge=32)
    """Shorter side of a slice before it is cropped; null for 8/7 of training.image_size, as 256 for 224."""
    unit: UnitScope = "slice"
    """What is scored: slices, or volumes or subjects with the mean of their slices' probabilities."""


class ClassificationSettings(TaskSettings):
    """Settings of a classification task. Augmentation and cropping follow Hosseinzadeh Taher et al. 2021.

    Their CheXpert task: ``uncertain: lsr-ones``, ``unknown: zeros``, ``score_labels`` of five, ``evaluation: {crops:
    ten}``.
    """

    metric: Literal["auc", "auprc", "accuracy", "balanced_accuracy"] = "auc"
    """Score: auc and auprc are means over the scored labels that some test cases have and some lack."""
    output: Literal["auto", "softmax", "sigmoid"] = "auto"
    """softmax: exactly one label applies; sigmoid: any number do. auto: as the pack's labels are."""
    uncertain: Uncertain = "ignore"
    """What training makes of labels that the annotator was unsure of; they are never scored."""
    unknown: Unknown = "ignore"
    """What becomes of labels that nothing is known of: left out of training and scores, or taken as absent in both."""
    smoothing: LabelRange | None = later(None)
    """Range of the random numbers that lsr-ones and lsr-zeros draw; null for 0.55 to 0.85 and 0 to 0.3."""
    score_labels: tuple[str, ...] = ()
    """Labels that count in the score; empty for all. The network learns all."""
    training: Training = Training(
        augmentation=Augmentation(crop_scale=(0.08, 1.0), rotation_deg=7.0, jitter_p=0.0, blur_p=0.0)
    )
    """How the task trains."""
    evaluation: ClassificationEvaluation = ClassificationEvaluation()
    """How slices are predicted and scored."""

    @property
    def resize_px(self) -> int:
        """Shorter side of a slice before it is cropped, in pixels."""
        asked = self.evaluation.resize_px
        return round(self.training.image_size * _RESIZE) if asked is None else asked

    @model_validator(mode="after")
    def _crop_fits(self) -> ClassificationSettings:
        if self.resize_px < self.training.image_size:
            raise ValueError(
                f"evaluation.resize_px is {self.resize_px}; it must be at least training.image_size, "
                f"{self.training.image_size}"
            )
        return self


class Classification(Task):
    """A linear classifier of whole slices around the pretrained encoder.

    Source: Hosseinzadeh Taher et al. 2021, arXiv:2108.05930, section 3 and their public code, for the protocol.
    """

    Settings = ClassificationSettings
    recipe = 1
    settings: ClassificationSettings

    def build(self, encoder: Encoder) -> torch.nn.Module:
        """Put a linear layer on the encoder itself."""
        from raysweep.tasks._classifier import Classifier

        self.exclusive = _is_exclusive(self.settings, self.pack)
        self.targets = torch.from_numpy(
            resolve_labels(
                self.pack.index.labels,
                self.settings.uncertain,
                self.settings.unknown,
                smoothing=self.settings.smoothing,
            )
        )
        return Classifier(encoder, len(self.pack.label_names))

    def encoder_module(self) -> torch.nn.Module:
        """Return the encoder inside the network."""
        return self.network.get_submodule("encoder")

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the labels."""
        return self.pack.label_names

    @classmethod
    def check_pack(cls, pack: Pack, settings: ClassificationSettings) -> None:
        """Check that a pack has labels in every split, those to be scored among them, some present and some absent."""
        if not pack.label_names:
            raise PackError(f"{pack.path} has no labels of whole slices; classification needs some")
        for name in settings.score_labels:
            if name not in pack.label_names:
                raise PackError(
                    f"{pack.path} has no label {name!r} (score_labels).{did_you_mean(name, pack.label_names)} "
                    f"Its labels: {', '.join(pack.label_names)}"
                )
        if settings.output == "softmax" and pack.label_kind == "multi-label":
            raise PackError(f"{pack.path} has labels that do not exclude each other: set output to sigmoid, or auto")
        for split in ("train", "val", "test"):
            _check_split(pack, settings, split)

    def labels_of(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """Return labels (B, L) from 0 to 1, NaN where one is left out."""
        return self.targets[torch.from_numpy(rows)]

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy of (B, L) logits against (B, L) labels: mean over slices, or over known labels."""
        logits = output.float()
        known = ~target.isnan()
        truth = target.nan_to_num(0.0)
        if self.exclusive:
            whole = known.all(1, keepdim=True)
            return -(truth * logits.log_softmax(1) * whole).sum() / whole.sum().clamp_min(1)
        losses = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        return (losses * known).sum() / known.sum().clamp_min(1)

    def whole_loss(self, rows: NDArray[np.int64], predict: Predict) -> float:
        """Return the mean loss of slices, each the mean over its views."""
        from raysweep.tasks._classifier import test_views

        total, settings = 0.0, self.settings
        for batch, slices in self._slices(rows):
            views = test_views(slices, settings.evaluation.crops, settings.resize_px, settings.training.image_size)
            target = self.targets[torch.from_numpy(batch)]
            losses = [float(self.loss(logits, target.to(logits.device))) for logits in map(predict, views)]
            total += sum(losses) / len(losses) * len(batch)
        return total / len(rows)

    def evaluate(self, rows: NDArray[np.int64], predict: Predict, split: str, num_examples: int = 0) -> Evaluation:
        """Score slices, or the volumes or subjects they belong to; no examples are kept."""
        units = units_of(self.pack, rows, _truth(self.pack, self.settings, rows), self.settings.evaluation.unit)
        of_slices = self._probabilities(rows, predict)
        probability = np.stack([of_slices[unit.members].mean(0) for unit in units])
        truth = np.stack([unit.truth for unit in units])
        scored = _scored(self.pack, self.settings)
        names = self.pack.label_names
        scores = label_scores(probability, truth, names, scored, exclusive=self.exclusive)
        if self.settings.metric not in scores:
            raise PackError(f"{self.pack.path}: the {split} split allows no {self.settings.metric}: {scores}")
        cases = case_rows(self.pack, units, probability, split, scored, self._judge(probability, truth))
        return Evaluation(scores[self.settings.metric], scores, cases, notes=_notes(names, scored, truth, split))

    def _judge(self, probability: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Return what each case and label adds to the score, (N, L), where that is a mean over cases."""
        if self.settings.metric != "accuracy":
            return None
        return is_right(probability, truth, exclusive=self.exclusive)

    def _probabilities(self, rows: NDArray[np.int64], predict: Predict) -> NDArray[np.float64]:
        """Return the probabilities (N, L) of slices, each the mean over its views."""
        from raysweep.tasks._classifier import test_views

        settings = self.settings
        position = {int(row): place for place, row in enumerate(rows)}
        found = np.empty((len(rows), len(self.pack.label_names)))
        for batch, slices in self._slices(rows):
            views = test_views(slices, settings.evaluation.crops, settings.resize_px, settings.training.image_size)
            mean = torch.stack([self._probability(predict(view)) for view in views]).mean(0)
            found[[position[int(row)] for row in batch]] = mean.numpy()
        return found

    def _slices(self, rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], torch.Tensor]]:
        """Yield rows and their scaled slices (B, C, H, W), in batches of one shape."""
        from raysweep.data.slices import same_shape_batches, scaled_batch

        for batch in same_shape_batches(self.pack, rows, _EVALUATION_BATCH):
            yield batch, scaled_batch(self.pack, batch)

    def _probability(self, logits: torch.Tensor) -> torch.Tensor:
        logits = logits.cpu().double()
        return logits.softmax(1) if self.exclusive else logits.sigmoid()


def _is_exclusive(settings: ClassificationSettings, pack: Pack) -> bool:
    return pack.label_kind == "multi-class" if settings.output == "auto" else settings.output == "softmax"


def _scored(pack: Pack, settings: ClassificationSettings) -> list[int]:
    """Return the indices of the labels that count in the score."""
    chosen = settings.score_labels or pack.label_names
    return [label for label, name in enumerate(pack.label_names) if name in chosen]


def _truth(pack: Pack, settings: ClassificationSettings, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return what scores compare with, (N, L): 1, 0, or NaN where a label is unknown or uncertain."""
    return resolve_labels(pack.index.labels[rows], "ignore", settings.unknown).astype(np.float64)


def _check_split(pack: Pack, settings: ClassificationSettings, split: str) -> None:
    rows = pack.select(split=split, annotated=True)
    if not len(rows):
        raise PackError(
            f"{pack.path} has no annotated slice in its {split} split; classification needs all three splits"
        )
    uncertain = settings.uncertain if split == "train" else "ignore"
    labels = resolve_labels(pack.index.labels[rows], uncertain, settings.unknown)
    if without := int(np.isnan(labels).all(1).sum()) if split == "train" else 0:
        raise PackError(
            f"{pack.path} has {without} annotated slices without any label in its train split; classification needs "
            "one for each"
        )
    if split == "train":
        return
    units = units_of(pack, rows, labels.astype(np.float64), settings.evaluation.unit)
    scored = _scored(pack, settings)
    truth = np.stack([unit.truth for unit in units])[:, scored]
    if not ((truth == 1).any(0) & (truth == 0).any(0)).any():
        raise PackError(
            f"{pack.path}: in its {split} split no {settings.evaluation.unit} has, or none lacks, any of the labels "
            f"{', '.join(pack.label_names[label] for label in scored)}; nothing can be ranked there"
        )


def _notes(names: Sequence[str], scored: Sequence[int], truth: NDArray[np.float64], split: str) -> tuple[str, ...]:
    """Say which scored labels have no area under a curve, and why."""
    without = []
    for label in scored:
        present, absent = int((truth[:, label] == 1).sum()), int((truth[:, label] == 0).sum())
        if not present or not absent:
            without.append(f"{names[label]} ({present} with, {absent} without it)")
    if not without:
        return ()
    kept = f"{len(scored) - len(without)} of {len(scored)} labels"
    return (f"{split}: auc and auprc are means over {kept}; the others have no curve: {', '.join(without)}",)


TASK = Classification
