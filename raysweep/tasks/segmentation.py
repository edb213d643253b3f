"""Segmentation: decoders by name on the encoder; overlap, outlines and counts per class and test slice or volume."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from raysweep.errors import PackError
from raysweep.lazy import torch
from raysweep.settings import Augmentation, Backbone, later
from raysweep.tasks._architectures import Architecture, Design, build_network, check_architecture
from raysweep.tasks._losses import LOSSES, LossName, LossSettings, pixels_of, truth_maps
from raysweep.tasks._scoring import OVERLAPS, MetricName, Scoring, SegmentationEvaluation
from raysweep.tasks._task import Evaluation, Predict, Task, TaskSettings, Validation

if TYPE_CHECKING:
    from raysweep.data.pack import Pack
    from raysweep.results.examples import Example
    from raysweep.sources.encoder import Encoder

_STRIDE = 32
_EVALUATION_BATCH = 16


class SegmentationSettings(TaskSettings):
    """Settings of a segmentation task."""

    architecture: Architecture = "unet"
    """Decoder around the encoder. Plain transformers take dpt, all other encoders the others."""
    output: Literal["auto", "softmax", "sigmoid"] = "auto"
    """softmax: one class a pixel; sigmoid: structures that may overlap, without background. auto: as the masks are."""
    loss: LossName = "dice_cross_entropy"
    """Training loss; the overlap losses are soft, over all classes with background, cross-entropy is binary where the
    output is a sigmoid, and bce asks for a sigmoid."""
    focal_gamma: float = Field(2.0, ge=0)
    """Exponent of the focal loss: how little pixels count that are right already."""
    tversky_weights: tuple[float, float] = (0.3, 0.7)
    """Weights of false positives and false negatives in the Tversky loss."""
    metric: MetricName = "dice"
    """Score: mean over the classes of a case, then over cases; nsd is at the first of evaluation.nsd_mm."""
    decoder_channels: tuple[int, ...] = Field((256, 128, 64, 32, 16), min_length=2, max_length=5)
    """Channels of the decoder blocks of unet and unetplusplus, coarsest first; their number is the depth."""
    decoder_features: int | None = Field(None, ge=32, multiple_of=32)
    """Width of the decoders of fpn, deeplabv3plus, upernet and dpt; null for the library's, mostly 256."""
    evaluation: SegmentationEvaluation = SegmentationEvaluation()
    """How slices are predicted and scored."""

    validation_crops: Augmentation | None = later(None)
    """Validate on random crops drawn so, all their pixels counted together, as published studies did; null validates on
    whole slices, as the test does."""

    @model_validator(mode="after")
    def _consistent(self) -> SegmentationSettings:
        if self.loss == "bce" and self.output == "softmax":
            raise ValueError("loss: bce has a sigmoid for each structure; with output: softmax use cross_entropy")
        if self.output == "sigmoid" and self.evaluation.score_background:
            raise ValueError("evaluation.score_background needs output: softmax; a sigmoid has no background")
        if self.metric == "nsd" and (not self.evaluation.nsd_mm or self.evaluation.average == "volume"):
            raise ValueError("metric: nsd needs a tolerance in evaluation.nsd_mm, and evaluation.average: slice")
        if self.metric == "nsd" and self.validation_crops is not None:
            raise ValueError("metric: nsd has no value for pixels of many crops; validation_crops needs dice or iou")
        if (self.evaluation.window_px or _STRIDE) % _STRIDE:
            raise ValueError(f"evaluation.window_px is {self.evaluation.window_px}; it must be a multiple of {_STRIDE}")
        return self


class Segmentation(Task):
    """A network of segmentation-models-pytorch whose encoder is the pretrained one.

    Source: Ronneberger et al. 2015, U-Net, by default; evaluation as Kalapos & Gyires-Toth 2022 pad it, scored without
    background.
    """

    Settings = SegmentationSettings
    recipe = 2
    settings: SegmentationSettings

    def build(self, encoder: Encoder) -> torch.nn.Module:
        """Build the network and load the encoder's weights into it, key by key."""
        self.exclusive = _is_exclusive(self.settings, self.pack)
        self.classes = range(0 if self.exclusive else 1, len(self.pack.class_names))
        self.stride = 2 * encoder.patch_px if encoder.vit is not None else _STRIDE
        return build_network(_design(self.settings, len(self.classes)), encoder)

    def encoder_module(self) -> torch.nn.Module:
        """Return the encoder inside the network."""
        return self.network.get_submodule("encoder")

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the classes, without background where structures may overlap."""
        return tuple(self.pack.class_names[label] for label in self.classes)

    @classmethod
    def check_backbone(cls, settings: SegmentationSettings, backbone: Backbone) -> None:
        """Check that the architecture can be built on a backbone, and takes crops and windows."""
        crop_px = settings.training.image_size
        check_architecture(_design(settings, 2), backbone, *{crop_px, settings.evaluation.window_px or crop_px})

    @classmethod
    def check_pack(cls, pack: Pack, settings: SegmentationSettings) -> None:
        """Check that a pack has classes, masks in every split that fit the output, and spacings if they are needed."""
        if len(pack.class_names) < 2:
            raise PackError(f"{pack.path} has no mask classes; segmentation needs a background and at least one class")
        if pack.mask_encoding == "bits" and settings.output == "softmax":
            raise PackError(
                f"{pack.path} has masks of overlapping structures, but output is softmax, one class a pixel: "
                "set it to sigmoid, or pack it with overlap: paint"
            )
        if not _is_exclusive(settings, pack) and settings.evaluation.score_background:
            raise PackError(f"{pack.path} has masks of overlapping structures: they have no background to score")
        for split in ("train", "val", "test"):
            rows = pack.select(split=split, annotated=True)
            if not len(rows):
                raise PackError(
                    f"{pack.path} has no annotated slice in its {split} split; segmentation needs all three splits"
                )
            if without := int((pack.index.mask_position[rows] < 0).sum()):
                raise PackError(
                    f"{pack.path} has {without} annotated slices without a mask in its {split} split; segmentation "
                    "needs a mask for each: use a classification task for labels of whole slices"
                )
            unknown = int((~(pack.index.spacing_mm[rows] > 0)).any(1).sum()) if split != "train" else 0
            if settings.evaluation.nsd_mm and unknown:
                raise PackError(
                    f"{pack.path} does not know the pixel spacing of {unknown} slices of its {split} split; distances "
                    "in mm (evaluation.nsd_mm) need it"
                )

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss of (B, K, H, W) logits against (B, H, W) masks; ignored pixels have no part in it."""
        numbers = LossSettings(self.settings.focal_gamma, self.settings.tversky_weights)
        pixels = pixels_of(
            output.float(),
            target,
            exclusive=self.exclusive,
            overlapping=self.pack.mask_encoding == "bits",
            ignore_label=self.pack.ignore_label,
        )
        return LOSSES[self.settings.loss](pixels, numbers)

    def whole_loss(self, rows: NDArray[np.int64], predict: Predict) -> float:
        """Return the mean loss of whole slices at native resolution, padded or window by window."""
        total = sum(
            float(self.loss(logits, masks.to(logits.device))) * len(batch)
            for batch, logits, masks in self._whole_logits(rows, predict)
        )
        return total / len(rows)

    def validate(
        self, rows: NDArray[np.int64], predict: Predict, generator: torch.Generator, *, with_loss: bool
    ) -> Validation:
        """Return score and loss on whole slices, or on random crops where the study asks for them."""
        augmentation = self.settings.validation_crops
        if augmentation is None:
            return super().validate(rows, predict, generator, with_loss=with_loss)
        from raysweep.data.augment import apply, draw
        from raysweep.data.reader import SliceReader

        reader, device = SliceReader(self.pack), next(self.network.parameters()).device
        size = self.settings.training.image_size
        counts, total = torch.zeros(len(self.classes), 4), 0.0
        for batch in np.array_split(rows, range(0, len(rows), self.settings.training.batch_size)[1:]):
            parameters = draw(augmentation, reader.shapes(batch), generator)
            images, masks = apply(reader.slices(batch), parameters, size, masks=reader.masks(batch), device=device)
            logits = predict(images)
            total += float(self.loss(logits, masks)) * len(batch)
            counts += self._compared(logits.cpu(), masks.cpu())[2].sum(0)
        scores = OVERLAPS[self.settings.metric](counts.numpy())
        foreground = [score for label, score in zip(self.classes, scores, strict=True) if label > 0]
        return Validation(float(np.nanmean(foreground)) if np.isfinite(foreground).any() else 0.0, total / len(rows))

    def evaluate(self, rows: NDArray[np.int64], predict: Predict, split: str, num_examples: int = 0) -> Evaluation:
        """Score whole slices at native resolution, padded or window by window; outlines only where they are needed."""
        evaluation = self.settings.evaluation
        if split != "test" and self.settings.metric != "nsd":
            evaluation = evaluation.model_copy(update={"nsd_mm": ()})
        scoring = Scoring(self.pack, self.settings.metric, evaluation, self.classes)
        wanted = set(self._example_rows(rows, num_examples))
        examples: dict[int, Example] = {}
        for batch, prediction, truth, counts in self._predictions(rows, predict):
            for position, row in enumerate(batch.tolist()):
                masks = (prediction[position].numpy(), truth[position].numpy()) if evaluation.nsd_mm else ()
                score = scoring.add(row, counts[position].numpy(), *masks)
                if row in wanted:
                    examples[row] = self._example(row, prediction[position], truth[position], score)
        kept = [examples[row] for row in sorted(examples)]
        return Evaluation(scoring.score(), scoring.metrics(), scoring.rows(split), kept)

    def _predictions(
        self, rows: NDArray[np.int64], predict: Predict
    ) -> Iterator[tuple[NDArray[np.int64], torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Yield rows, predicted and true masks (B, K, H, W) bool, and counts (B, K, 4), in batches of one shape."""
        for batch, logits, masks in self._whole_logits(rows, predict):
            yield batch, *self._compared(logits.cpu(), masks)

    def _whole_logits(
        self, rows: NDArray[np.int64], predict: Predict
    ) -> Iterator[tuple[NDArray[np.int64], torch.Tensor, torch.Tensor]]:
        """Yield rows, logits (B, K, H, W) and masks (B, H, W) of whole slices, in batches of one shape."""
        from raysweep.data.slices import same_shape_batches, scaled_batch
        from raysweep.tasks._windows import padded

        for batch in same_shape_batches(self.pack, rows, _EVALUATION_BATCH):
            slices = scaled_batch(self.pack, batch)
            masks = torch.from_numpy(self.pack.masks(batch)).long()
            whole = padded(slices, self.stride, self.settings.evaluation.pad_to_px)
            if self.settings.evaluation.score_padding:
                masks = torch.nn.functional.pad(masks, _missing(masks, whole))
            yield batch, self._predict_whole(predict, whole)[..., : masks.shape[-2], : masks.shape[-1]], masks

    def _compared(self, logits: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return predicted and true masks (B, K, H, W) bool, and their counts (B, K, 4)."""
        from raysweep.tasks._counts import confusion_counts, structure_counts

        valid = None if self.pack.ignore_label is None else masks != self.pack.ignore_label
        known = masks if valid is None else torch.where(valid, masks, 0)
        overlapping = self.pack.mask_encoding == "bits"
        truth = truth_maps(known, len(self.classes), exclusive=self.exclusive, overlapping=overlapping)
        if self.exclusive:
            labels = logits.argmax(1)
            counts = confusion_counts(labels, known, len(self.classes), valid)
            prediction = truth_maps(labels, len(self.classes), exclusive=True, overlapping=False)
        else:
            prediction = logits.sigmoid() > self.settings.evaluation.threshold
            counts = structure_counts(prediction, truth, valid)
        if valid is not None:
            prediction, truth = prediction & valid[:, None], truth & valid[:, None]
        return prediction, truth, counts

    def _predict_whole(self, predict: Predict, slices: torch.Tensor) -> torch.Tensor:
        from raysweep.tasks._windows import padded, predict_windows

        window = self.settings.evaluation.window_px
        if window is None or max(slices.shape[-2:]) <= window:
            return predict(slices)
        large = padded(slices, self.stride, window)
        return predict_windows(predict, large, window, self.settings.evaluation.overlap)

    def _example_rows(self, rows: NDArray[np.int64], num_examples: int) -> list[int]:
        """Choose slices with foreground, evenly spread over the split: the same ones for every stage of the pack."""
        if num_examples == 0:
            return []
        unlabelled = [0] if self.pack.ignore_label is None else [0, self.pack.ignore_label]
        with_foreground = [int(row) for row in rows if not np.isin(self.pack.mask(int(row)), unlabelled).all()]
        positions = np.linspace(0, len(with_foreground) - 1, min(num_examples, len(with_foreground))).round()
        return [with_foreground[int(position)] for position in positions]

    def _example(self, row: int, prediction: torch.Tensor, truth: torch.Tensor, score: float | None) -> Example:
        from raysweep.data.slices import scaled_slice
        from raysweep.results.examples import Example

        image = (scaled_slice(self.pack, row).mean(0).clamp(0, 1) * 255).round().to(torch.uint8).numpy()
        index = self.pack.index
        identity = (str(index.subject[row]), int(index.frame[row]), int(index.slice_number[row]))
        height, width = image.shape
        painted = [self._painted(masks)[:height, :width] for masks in (truth, prediction)]
        return Example(*identity, image, painted[0], painted[1], score)

    def _painted(self, masks: torch.Tensor) -> NDArray[np.uint8]:
        """Return one label a pixel (H, W) of masks (K, H, W); where structures overlap the last one is seen."""
        labels = np.zeros(masks.shape[1:], np.uint8)
        for channel, label in enumerate(self.classes):
            labels[masks[channel].numpy()] = label
        return labels


def _is_exclusive(settings: SegmentationSettings, pack: Pack) -> bool:
    if settings.output == "auto":
        return pack.mask_encoding == "index" and settings.loss != "bce"
    return settings.output == "softmax"


def _design(settings: SegmentationSettings, num_channels: int) -> Design:
    return Design(settings.architecture, num_channels, settings.decoder_channels, settings.decoder_features)


def _missing(masks: torch.Tensor, whole: torch.Tensor) -> tuple[int, int, int, int]:
    """Return the padding that brings (B, H, W) masks to the size of padded slices."""
    return (0, whole.shape[-1] - masks.shape[-1], 0, whole.shape[-2] - masks.shape[-2])


TASK = Segmentation
