"""What a pretraining method is: settings that validate without torch, and a loss over views of a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from raysweep.errors import PackError, StudyError
from raysweep.lazy import F, nn, torch
from raysweep.settings import (
    CONVOLUTIONAL,
    HIERARCHICAL,
    TRANSFORMER,
    Augmentation,
    Backbone,
    Optimisation,
    OwnDefaults,
    Settings,
)

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import Tensor

    from raysweep.data.pack import Pack
    from raysweep.sources.encoder import Encoder

ALL_ENCODERS = frozenset({CONVOLUTIONAL, HIERARCHICAL, TRANSFORMER})


Target = Literal["labels", "masks"] | None


@dataclass(frozen=True)
class Run:
    """What a method knows of the run it trains in."""

    num_slices: int
    """Slices trained on; ids are below it."""
    batch_size: int
    """Slices of a batch."""
    steps_per_epoch: int
    """Optimiser steps of an epoch."""
    total_steps: int
    """Optimiser steps of the whole schedule."""
    image_size: int
    """Side of a full view in pixels."""
    num_classes: int = 0
    """Classes of the pack's masks, background included."""
    num_labels: int = 0
    """Labels of a slice."""


@dataclass(frozen=True)
class Batch:
    """The views of B slices, and what is known of these slices."""

    views: Sequence[Tensor]
    """One (B, C, H, W) float32 tensor for each view of the method."""
    ids: Tensor
    """(B,) int64, the position of each slice in the data set."""
    step: int = 0
    """Optimiser steps taken before this one."""
    places: Sequence[Tensor] = ()
    """For each view (B, 2, 3) float32, where it lies in its slice; see ``_places.cell_centres``."""
    positions: Tensor = field(default_factory=lambda: torch.empty(0))
    """(B,) float32, how far along its volume each slice lies, from 0 to 1."""
    labels: Tensor | None = None
    """(B, L) float32, NaN where unknown; there if the settings' target is labels."""
    masks: Sequence[Tensor] = ()
    """For each view (B, H, W) int64 classes; there if the settings' target is masks."""


class View(Settings):
    """One of the views that a method takes of each slice."""

    augmentation: Augmentation = Augmentation()
    """Random transformations of the view."""
    size_px: int | None = None
    """Side of the square view in pixels; null for the study's image size."""


class MethodSettings(OwnDefaults, ABC):
    """Settings that every method has; a method adds its own and overrides the defaults."""

    optimisation: Optimisation = Optimisation()
    """Optimiser and learning-rate schedule."""

    @model_validator(mode="after")
    def _schedule_needs_no_validation(self) -> MethodSettings:
        if self.optimisation.schedule == "plateau":
            raise ValueError("pretraining validates nothing that plateau could watch; take cosine, polynomial or step")
        return self

    @abstractmethod
    def views(self, image_size: int) -> tuple[View, ...]:
        """Return the views that the method takes of each slice, in the order that its loss expects.

        Args:
            image_size: the study's image size in pixels, which the size of small views follows.
        """

    def target(self) -> Target:
        """Return what the loss learns from beside the slices: nothing, labels of slices, or masks."""
        return None

    def learnt_labels(self, labels: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
        """Return labels (N, L) of slices as the loss learns them, NaN where one is left out."""
        return labels


class Method(ABC):
    """A pretraining method around an encoder.

    The training loop moves ``nets`` to the device and sets its mode; before each epoch it calls ``before_epoch``; at
    each step it draws the views, calls ``loss``, steps the optimiser over ``trainable`` and calls ``after_step``. What
    is random in a method comes from torch's global generator, which the loop saves and restores.

    Shapes: B batch, C channels, H and W of a view, D encoder features.
    """

    Settings: ClassVar[type[MethodSettings]]
    name: ClassVar[str]
    """Name in study files, as the registry lists it."""
    family: ClassVar[str]
    """What the loss does: contrastive, distillation, ..."""
    paper: ClassVar[str]
    """Authors, year and arXiv number."""
    recipe: ClassVar[int]
    """Version of the procedure, part of a stage's identity; raised when equal settings give other results."""
    cost: ClassVar[float]
    """Arithmetic of a step relative to supervised training on one view a slice, heads left out."""
    encoder_types: ClassVar[frozenset[str]] = ALL_ENCODERS
    """Types of encoder that the method can train."""

    nets: Any
    """Everything with parameters or buffers, a ModuleDict (whose entries mypy would take for tensors);
    ``nets["encoder"]`` is the encoder that gradients reach, and no gradient reaches what is named ``momentum_...``."""
    features: Tensor | None = None
    """Encoder features (B, D) of the last batch, detached float32; what ``collapse_metrics`` takes."""

    def __init__(self, settings: MethodSettings, encoder: Encoder, run: Run) -> None:
        """Keep the encoder; a method builds its heads after this, torch's global generator deciding their weights.

        Args:
            settings: an instance of ``Settings``.
            encoder: the encoder to train, in place.
            run: sizes of the run.

        Raises:
            StudyError: if the method cannot train this type of encoder.
        """
        self.check_fit(encoder, run.image_size)
        self.settings = settings
        self.run = run
        self.num_features = encoder.num_features
        self.nets = nn.ModuleDict({"encoder": encoder})

    @classmethod
    def is_particular(cls) -> bool:
        """Whether there are encoders that the method cannot train."""
        return cls.encoder_types != ALL_ENCODERS

    @classmethod
    def check_backbone(cls, backbone: Backbone, image_size: int) -> None:
        """Check that the method can train a backbone, without its weights; it costs the import of torch.

        Raises:
            StudyError: if it cannot.
        """
        from raysweep.sources.encoder import build_weightless

        cls.check_fit(build_weightless(backbone, image_size), image_size)

    @classmethod
    def check_fit(cls, encoder: Encoder, image_size: int) -> None:
        """Check that the method can train an encoder on views of a size.

        Raises:
            StudyError: if it cannot.
        """
        if encoder.kind not in cls.encoder_types:
            raise StudyError(
                f"method {cls.name!r} trains {' or '.join(sorted(cls.encoder_types))} encoders, "
                f"but {encoder.backbone.encoder!r} is {encoder.kind}"
            )

    @classmethod
    def check_pack(cls, settings: MethodSettings, pack: Pack) -> None:
        """Check that a pack has what the method learns from.

        Raises:
            PackError: if its train split has no labels or masks but the settings ask for them.
        """
        target = settings.target()
        if target == "labels" and not pack.label_names:
            raise PackError(f"{pack.path} has no labels, but method {cls.name!r} learns from them")
        if target == "masks" and (
            len(pack.class_names) < 2 or not (pack.index.mask_position[pack.select("train")] >= 0).any()
        ):
            raise PackError(f"{pack.path} has no masks in its train split, but method {cls.name!r} learns from them")

    def views(self) -> tuple[View, ...]:
        """Return the views that ``loss`` expects, in order."""
        return self.settings.views(self.run.image_size)

    @abstractmethod
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``loss``, a scalar to differentiate, and detached scalar metrics."""

    def before_epoch(self, epoch: int, slices: Iterable[tuple[Tensor, Tensor]]) -> None:  # noqa: B027
        """Prepare an epoch (0-based), such as by clustering.

        Args:
            epoch: epochs trained before this one.
            slices: all slices of the data set in batches of ids (B,) and whole slices (B, C, H, W), unaugmented and
                read only if iterated over.
        """

    def after_step(self, step: int) -> None:  # noqa: B027 - many methods have nothing to do here
        """Update what no gradient updates, after optimiser step ``step`` (0-based)."""

    def encoder(self) -> Encoder:
        """Return the encoder that is handed on to snapshots and fine-tuning."""
        encoder: Encoder = self.nets["encoder"]
        return encoder

    def trainable(self) -> list[nn.Parameter]:
        """Return the parameters that the optimiser updates."""
        return [parameter for parameter in self.nets.parameters() if parameter.requires_grad]

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a bit-identical continuation needs: queues, banks and centres are buffers of nets."""
        return {"nets": self.nets.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned; keys must match strictly."""
        self.nets.load_state_dict(state["nets"])

    def _encode(self, view: Tensor) -> Tensor:
        """Return the features (B, D) of a view, with gradient, and keep them for the collapse metrics."""
        features: Tensor = self.nets["encoder"](view)
        self.features = features.detach().float()
        return features

    def _encode_map(self, view: Tensor) -> Tensor:
        """Return the last feature map (B, D, h, w) of a view; its mean is kept for the collapse metrics."""
        online: Encoder = self.nets["encoder"]
        last = online.feature_maps(view)[-1]
        self.features = last.detach().float().mean((2, 3))
        return last


def full_precision(x: Tensor) -> AbstractContextManager[Any]:
    """Return a context without autocast on the device of ``x``: losses are computed in float32."""
    return torch.autocast(x.device.type, enabled=False)


def feature_std(features: Tensor) -> Tensor:
    """Return how spread (B, D) features are on the unit sphere: 1 for uniform, 0 for a single point.

    Source: Chen & He 2021, arXiv:2011.10566, section 4.1, times the square root of D.
    """
    with torch.no_grad():
        unit = F.normalize(features.detach().float(), dim=1)
        spread: Tensor = unit.std(0, correction=0).mean() * features.shape[1] ** 0.5
        return spread


def effective_rank(features: Tensor) -> Tensor:
    """Return the exponential of the entropy of the singular values of (B, D) features, from 1 to min(B, D).

    Source: Garrido et al. 2023, arXiv:2210.02885, equation 1.
    """
    with torch.no_grad():
        singular = torch.linalg.svdvals(features.detach().float())
        share = singular / singular.sum().clamp(min=torch.finfo(torch.float32).tiny)
        rank: Tensor = torch.special.entr(share).sum().exp()
        return rank


def collapse_metrics(features: Tensor) -> dict[str, Tensor]:
    """Return ``feature_std`` and ``effective_rank`` of (B, D) features.

    It takes a singular value decomposition: for once an epoch, not for every step.
    """
    return {"feature_std": feature_std(features), "effective_rank": effective_rank(features)}
