"""What every downstream task is: settings, a network on the pretrained encoder, a loss, and an evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from raysweep.settings import Backbone, Drawing, Monitored, OwnDefaults, Training, later

if TYPE_CHECKING:
    import torch

    from raysweep.data.pack import Pack
    from raysweep.results.examples import Example
    from raysweep.sources.encoder import Encoder


Predict = Callable[["torch.Tensor"], "torch.Tensor"]
"""The network as evaluation calls it, without gradients: scaled slices (B, C, H, W) float32 in, (B, K, H, W) float32
logits out, or (B, L) of a task that labels whole slices."""


class TaskSettings(OwnDefaults):
    """Settings that every task has; a task adds its own and overrides the defaults."""

    pack: str
    """Pack of the task."""
    metric: str
    """Name of the score that decides which epoch is best and that results report."""
    annotate_by: Literal["slice", "volume", "subject"] = "slice"
    """What annotation counts count."""
    drawing: Drawing = "nested"
    """How annotation subsets are drawn: a smaller one inside a larger one (nested), each anew, or as a published study
    drew them."""
    stratify: bool = later(True)
    """Whether a subset has a pack's labels about as often as the whole; published drawings do not."""
    training: Training = Training()
    """How the task trains."""

    @model_validator(mode="after")
    def _published_drawings_take_slices(self) -> TaskSettings:
        if self.drawing not in ("nested", "anew") and self.annotate_by != "slice":
            raise ValueError(f"drawing {self.drawing} draws slices; {self.annotate_by}s are drawn nested or anew")
        return self


@dataclass(frozen=True)
class Evaluation:
    """Scores of one split: ``score`` decides which epoch is best; ``cases`` are rows of the cases table."""

    score: float
    metrics: Mapping[str, float]
    cases: Sequence[Mapping[str, Any]]
    examples: Sequence[Example] = ()
    notes: Sequence[str] = ()
    """What a reader of the score must know, such as labels that could not be scored."""


@dataclass(frozen=True)
class Validation:
    """What one validation found."""

    score: float
    """Score of the task; the higher the better."""
    loss: float | None
    """Loss of the task; None where nothing asked for it."""
    metrics: Mapping[str, float] = field(default_factory=dict)

    def falling(self, monitor: Monitored) -> float:
        """Return what is monitored so that less is better: the loss, or the score with its sign turned."""
        if monitor == "score":
            return -self.score
        if self.loss is None:
            raise ValueError("the validation loss is monitored, but was not computed")
        return self.loss


class Task(ABC):
    """A downstream task around one encoder.

    Shapes: B batch, C channels, H height, W width, S side of a training crop, K classes, L labels.
    """

    Settings: ClassVar[type[TaskSettings]]
    recipe: ClassVar[int]
    """Raised whenever the task's results change for the same settings."""
    settings: Any

    def __init__(self, settings: TaskSettings, encoder: Encoder, pack: Pack) -> None:
        self.settings = settings
        self.pack = pack
        self.network = self.build(encoder)

    @abstractmethod
    def build(self, encoder: Encoder) -> torch.nn.Module:
        """Build the network around the encoder, whose weights it must take over strictly."""

    @abstractmethod
    def encoder_module(self) -> torch.nn.Module:
        """Return the encoder inside the network; frozen tuning leaves its weights and statistics as they are."""

    def labels_of(self, rows: NDArray[np.int64]) -> torch.Tensor | None:
        """Return what is learnt of (B,) slices as wholes, the target of ``loss``; None where masks are learnt.

        Masks follow the slices through augmentation: the target is then (B, S, S) int64, as the pack encodes them.
        """
        return None

    @abstractmethod
    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of the network's output for a batch and its target, computed in float32."""

    @property
    @abstractmethod
    def output_names(self) -> tuple[str, ...]:
        """What the channels of the network's output stand for."""

    @classmethod
    @abstractmethod
    def check_pack(cls, pack: Pack, settings: Any) -> None:
        """Check that a pack has what the task needs with these settings, before anything runs.

        Raises:
            PackError: saying what is missing.
        """

    @classmethod  # noqa: B027 - most tasks take any encoder
    def check_backbone(cls, settings: Any, backbone: Backbone) -> None:
        """Check that the task's network can be built around an encoder, when a study is checked.

        Raises:
            StudyError: if it cannot; the message says why and what can.
        """

    @abstractmethod
    def evaluate(self, rows: NDArray[np.int64], predict: Predict, split: str, num_examples: int = 0) -> Evaluation:
        """Score the network on annotated slices of the pack, each whole.

        Args:
            rows: (N,) rows of the pack.
            predict: the network.
            split: the split that the rows are of, for the cases.
            num_examples: slices whose prediction is to be kept for people to look at, at most.
        """

    @abstractmethod
    def whole_loss(self, rows: NDArray[np.int64], predict: Predict) -> float:
        """Return the mean loss of annotated slices of the pack, each whole, as `evaluate` sees it."""

    def validate(
        self, rows: NDArray[np.int64], predict: Predict, generator: torch.Generator, *, with_loss: bool
    ) -> Validation:
        """Return what decides how training goes on, from slices of the validation split.

        Args:
            rows: (N,) rows of the pack.
            predict: the network.
            generator: where random numbers come from, on the CPU, for tasks that validate on random crops.
            with_loss: whether the loss is asked for.
        """
        evaluation = self.evaluate(rows, predict, "val")
        loss = self.whole_loss(rows, predict) if with_loss else None
        return Validation(evaluation.score, loss, evaluation.metrics)
