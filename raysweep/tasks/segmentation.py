"""Segmentation: a U-Net decoder on the encoder; Dice and IoU per class and test slice, at native resolution."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from raysweep.errors import PackError, StudyError
from raysweep.lazy import F, torch
from raysweep.tasks._task import Evaluation, Predict, Task, TaskSettings

if TYPE_CHECKING:
    from raysweep.data.pack import Pack
    from raysweep.results.examples import Example
    from raysweep.sources.encoder import Encoder

_STRIDE = 32
_EVALUATION_BATCH = 16


class SegmentationSettings(TaskSettings):
    """Settings of a segmentation task."""

    loss: Literal["jaccard", "dice", "cross_entropy", "dice_cross_entropy"] = "dice_cross_entropy"
    """Training loss; the overlap losses are soft, over all classes with background."""
    metric: Literal["dice", "iou"] = "dice"
    """Score: mean over the foreground classes in a slice, then over slices."""
    decoder_channels: tuple[int, ...] = Field((256, 128, 64, 32, 16), min_length=2, max_length=5)
    """Channels of the U-Net's decoder blocks, coarsest first; their number is the depth."""


class Segmentation(Task):
    """A U-Net of segmentation-models-pytorch whose encoder is the pretrained one.

    Source: Ronneberger et al. 2015, U-Net; evaluation as Kalapos & Gyires-Toth 2022 pad it, scored without background.
    """

    Settings = SegmentationSettings
    recipe = 1
    settings: SegmentationSettings

    def build(self, encoder: Encoder) -> torch.nn.Module:
        """Build the U-Net and load the encoder's weights into it, key by key."""
        import segmentation_models_pytorch as smp

        from raysweep.sources.encoder import timm_options

        backbone = encoder.backbone
        depth = len(self.settings.decoder_channels)
        try:
            network: torch.nn.Module = smp.Unet(
                f"tu-{backbone.encoder}",
                encoder_depth=depth,
                encoder_weights=None,
                in_channels=backbone.channels,
                classes=len(self.pack.class_names),
                decoder_channels=self.settings.decoder_channels,
                **timm_options(backbone),
            )
        except (ValueError, RuntimeError, TypeError) as error:
            raise StudyError(
                f"no U-Net of depth {depth} can be built on encoder {backbone.encoder!r}: {error}"
            ) from error
        # A shallower U-Net drops the encoder's last levels; every key it has must be there.
        inner = network.get_submodule("encoder.model")
        wanted = inner.state_dict().keys()
        state = {key: value for key, value in encoder.model.state_dict().items() if key in wanted}
        inner.load_state_dict(state, strict=True)
        return network

    def encoder_module(self) -> torch.nn.Module:
        """Return the U-Net's encoder."""
        return self.network.get_submodule("encoder")

    @classmethod
    def check_pack(cls, pack: Pack) -> None:
        """Check that a pack has classes, and slices with masks in every split."""
        if len(pack.class_names) < 2:
            raise PackError(f"{pack.path} has no mask classes; segmentation needs a background and at least one class")
        if pack.mask_encoding != "index" or pack.ignore_label is not None:
            kind = "overlapping structures" if pack.ignore_label is None else "ignored pixels"
            raise PackError(
                f"{pack.path} has masks of {kind}; "
                "segmentation takes one class a pixel, all of them: pack it so (overlap: paint, outside: background)"
            )
        for split in ("train", "val", "test"):
            rows = pack.select(split=split, annotated=True)
            if not len(rows):
                raise PackError(
                    f"{pack.path} has no annotated slice in its {split} split; segmentation needs all three splits"
                )
            if without := int((pack.index.mask_position[rows] < 0).sum()):
                raise PackError(
                    f"{pack.path} has {without} annotated slices without a mask in its {split} split; segmentation "
                    "needs a mask for each: pack labels of whole slices for a classification task instead"
                )

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss of (B, K, H, W) logits against (B, H, W) labels, computed in float32."""
        logits = output.float()
        if self.settings.loss == "cross_entropy":
            return _cross_entropy(logits, target)
        probabilities = logits.softmax(1)
        truth = F.one_hot(target, logits.shape[1]).movedim(-1, 1).to(probabilities.dtype)
        overlap = soft_overlap_loss(probabilities, truth, jaccard=self.settings.loss == "jaccard")
        if self.settings.loss == "dice_cross_entropy":
            return overlap + _cross_entropy(logits, target)
        return overlap

    def evaluate(self, rows: NDArray[np.int64], predict: Predict, split: str, num_examples: int = 0) -> Evaluation:
        """Score whole slices, padded bottom-right with zeros to a multiple of 32; the padding does not count."""
        from raysweep.tasks._counts import dice, iou

        wanted = set(self._example_rows(rows, num_examples))
        cases: list[Mapping[str, Any]] = []
        examples: dict[int, Example] = {}
        scores: list[float] = []
        per_class: list[NDArray[np.float64]] = []
        for batch_rows, prediction, counts in self._predictions(rows, predict):
            overlaps = {"dice": dice(counts).numpy(), "iou": iou(counts).numpy()}
            chosen = overlaps[self.settings.metric]
            per_class.append(chosen)
            for position, row in enumerate(batch_rows):
                present = chosen[position, 1:][~np.isnan(chosen[position, 1:])]
                score = float(present.mean()) if len(present) else None
                scores += [] if score is None else [score]
                cases += self._case_rows(int(row), split, counts[position].tolist(), overlaps, position)
                if row in wanted:
                    examples[int(row)] = self._example(int(row), prediction[position].numpy().astype(np.uint8), score)
        stacked = np.concatenate(per_class)
        metrics = {
            f"{self.settings.metric}_{name}": _mean(stacked[:, index])
            for index, name in enumerate(self.pack.class_names)
            if index > 0
        }
        mean = float(np.mean(scores)) if scores else 0.0
        return Evaluation(mean, metrics, cases, [examples[row] for row in sorted(examples)])

    def _predictions(
        self, rows: NDArray[np.int64], predict: Predict
    ) -> Iterator[tuple[NDArray[np.int64], torch.Tensor, torch.Tensor]]:
        """Yield rows, label maps (B, H, W) and counts (B, K, 4) in batches of one shape."""
        from raysweep.data.slices import same_shape_batches, scaled_batch
        from raysweep.tasks._counts import confusion_counts

        for batch in same_shape_batches(self.pack, rows, _EVALUATION_BATCH):
            slices = scaled_batch(self.pack, batch)
            height, width = slices.shape[-2:]
            padded = F.pad(slices, (0, -width % _STRIDE, 0, -height % _STRIDE))
            labels = predict(padded)[:, :, :height, :width].argmax(1).cpu()
            truth = torch.from_numpy(self.pack.masks(batch)).long()
            yield batch, labels, confusion_counts(labels, truth, len(self.pack.class_names))

    def _case_rows(
        self, row: int, split: str, counts: list[list[int]], overlaps: Mapping[str, NDArray[np.float64]], position: int
    ) -> list[Mapping[str, Any]]:
        index = self.pack.index
        common = {
            "split": split,
            "subject": str(index.subject[row]),
            "volume": str(index.volume[row]),
            "frame": int(index.frame[row]),
            "slice_number": int(index.slice_number[row]),
        }
        return [
            {
                **common,
                "class_index": label,
                "class_name": name,
                **dict(zip(("tp", "fp", "fn", "tn"), counts[label], strict=True)),
                **{metric: _nullable(values[position, label]) for metric, values in overlaps.items()},
            }
            for label, name in enumerate(self.pack.class_names)
        ]

    def _example_rows(self, rows: NDArray[np.int64], num_examples: int) -> list[int]:
        """Choose slices with foreground, evenly spread over the split: the same ones for every stage of the pack."""
        if num_examples == 0:
            return []
        with_foreground = [int(row) for row in rows if self.pack.mask(int(row)).any()]
        positions = np.linspace(0, len(with_foreground) - 1, min(num_examples, len(with_foreground))).round()
        return [with_foreground[int(position)] for position in positions]

    def _example(self, row: int, prediction: NDArray[np.uint8], score: float | None) -> Example:
        from raysweep.data.slices import scaled_slice
        from raysweep.results.examples import Example

        image = (scaled_slice(self.pack, row).mean(0).clamp(0, 1) * 255).round().to(torch.uint8).numpy()
        index = self.pack.index
        identity = (str(index.subject[row]), int(index.frame[row]), int(index.slice_number[row]))
        return Example(*identity, image, np.asarray(self.pack.mask(row)), prediction, score)


def soft_overlap_loss(probabilities: torch.Tensor, truth: torch.Tensor, *, jaccard: bool) -> torch.Tensor:
    """Return one minus the soft Dice (or Jaccard) coefficient of the batch, averaged over all classes.

    Args:
        probabilities: (B, K, H, W), summing to one over K.
        truth: (B, K, H, W), one-hot.
        jaccard: the Jaccard coefficient instead of Dice.

    Source: Milletari et al. 2016 (soft Dice); a class absent from the whole batch has no gradient worth following, so
    it counts as 0, and the mean stays over all classes, as in segmentation-models-pytorch.
    """
    intersection = (probabilities * truth).sum((0, 2, 3))
    total = (probabilities + truth).sum((0, 2, 3))
    coefficient = (
        intersection / (total - intersection).clamp_min(1e-7) if jaccard else 2 * intersection / total.clamp_min(1e-7)
    )
    present = (truth.sum((0, 2, 3)) > 0).to(coefficient.dtype)
    return ((1 - coefficient) * present).mean()


def _cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy through one-hot labels, whose gradient is deterministic on every device."""
    truth = F.one_hot(target, logits.shape[1]).movedim(-1, 1).to(logits.dtype)
    return -(logits.log_softmax(1) * truth).sum(1).mean()


def _mean(values: NDArray[np.float64]) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else 0.0


def _nullable(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


TASK = Segmentation
