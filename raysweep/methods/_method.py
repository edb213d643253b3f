"""What a pretraining method is: settings that validate without torch, and a loss over views of a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import model_validator

from raysweep.errors import StudyError
from raysweep.lazy import F, nn, torch
from raysweep.settings import Augmentation, Optimisation, Settings

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import Tensor

    from raysweep.sources.encoder import Encoder

CONVOLUTIONAL = "convolutional"
TRANSFORMER = "transformer"


class View(Settings):
    """One of the views that a method takes of each slice."""

    augmentation: Augmentation = Augmentation()
    """Random transformations of the view."""
    size_px: int | None = None
    """Side of the square view in pixels; null for the study's image size."""


class MethodSettings(Settings, ABC):
    """Settings that every method has; a method adds its own and overrides the defaults.

    A study that changes one key of a group, as in ``optimisation: {lr: 1.e-4}``, keeps the method's own
    defaults for the others.
    """

    optimisation: Optimisation = Optimisation()
    """Optimiser and learning-rate schedule."""

    @model_validator(mode="before")
    @classmethod
    def _keep_defaults_of_the_method(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        defaults = {key: field.default for key, field in cls.model_fields.items()}
        return {key: _overlay(defaults.get(key), value) for key, value in given.items()}

    @abstractmethod
    def views(self) -> tuple[View, ...]:
        """Return the views that the method takes of each slice, in the order that its loss expects."""


def _overlay(default: Any, given: Any) -> Any:
    """Return ``given`` with what it leaves out of a settings group taken from ``default``."""
    if not (isinstance(default, Settings) and isinstance(given, Mapping)):
        return given
    changed = {key: _overlay(getattr(default, str(key), None), value) for key, value in given.items()}
    return default.model_dump() | changed


class Method(ABC):
    """A pretraining method around an encoder.

    The training loop moves ``nets`` to the device and sets its mode; at each step it draws the views, calls
    ``loss``, steps the optimiser over ``trainable`` and calls ``after_step``.

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
    encoder_types: ClassVar[frozenset[str]] = frozenset({CONVOLUTIONAL, TRANSFORMER})
    """Types of encoder that the method can train."""

    nets: nn.ModuleDict
    """Everything with parameters or buffers; ``nets["encoder"]`` is the encoder that gradients reach."""
    features: Tensor | None = None
    """Encoder features (B, D) of the last batch, detached float32; what ``collapse_metrics`` takes."""

    def __init__(self, settings: MethodSettings, encoder: Encoder, *, num_slices: int, total_steps: int) -> None:
        """Build the heads around ``encoder``; torch's global generator decides their weights.

        Args:
            settings: an instance of ``Settings``.
            encoder: the encoder to train, in place.
            num_slices: slices of the data set; ids passed to ``loss`` are below it.
            total_steps: optimiser steps of the whole schedule.

        Raises:
            StudyError: if the method cannot train this type of encoder.
        """
        from raysweep.sources.encoder import is_convolutional

        encoder_type = CONVOLUTIONAL if is_convolutional(encoder) else TRANSFORMER
        if encoder_type not in self.encoder_types:
            raise StudyError(
                f"method {self.name!r} trains {' or '.join(sorted(self.encoder_types))} encoders, "
                f"but {encoder.backbone.encoder!r} is {encoder_type}"
            )
        self.num_slices = num_slices
        self.total_steps = total_steps
        self.num_features = encoder.num_features
        self.nets = nn.ModuleDict({"encoder": encoder})

    @abstractmethod
    def views(self) -> tuple[View, ...]:
        """Return the views that ``loss`` expects, in order."""

    @abstractmethod
    def loss(self, views: Sequence[Tensor], ids: Tensor) -> dict[str, Tensor]:
        """Return ``loss``, a scalar to differentiate, and detached scalar metrics.

        Args:
            views: one (B, C, H, W) float32 tensor for each of ``views()``.
            ids: (B,) int64, the position of each slice in the data set.
        """

    def after_step(self, step: int) -> None:  # noqa: B027 - most methods have nothing to do here
        """Update what no gradient updates, after optimiser step ``step`` (0-based)."""

    def encoder(self) -> Encoder:
        """Return the encoder that is handed on to snapshots and fine-tuning."""
        encoder: Encoder = self.nets["encoder"]  # type: ignore[assignment]
        return encoder

    def trainable(self) -> list[nn.Parameter]:
        """Return the parameters that the optimiser updates."""
        return [parameter for parameter in self.nets.parameters() if parameter.requires_grad]

    def extra_state(self) -> dict[str, Any]:
        """Return state outside ``nets`` (tensors, numbers, strings) that a resumed run needs."""
        return {}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:  # noqa: B027 - most have no extra state
        """Restore what ``extra_state`` returned."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a bit-identical continuation needs."""
        return {"nets": self.nets.state_dict(), "extra": self.extra_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned; keys must match strictly."""
        self.nets.load_state_dict(state["nets"])
        self.load_extra_state(state["extra"])

    def _encode(self, view: Tensor) -> Tensor:
        """Return the features (B, D) of a view, with gradient, and keep them for the collapse metrics."""
        features: Tensor = self.nets["encoder"](view)
        self.features = features.detach().float()
        return features


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
