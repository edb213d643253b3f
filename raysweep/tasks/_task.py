"""What every downstream task is: settings, a network on the pretrained encoder, a loss, and an evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from raysweep.settings import Drawing, Settings, Training, later

if TYPE_CHECKING:
    import torch

    from raysweep.data.pack import Pack
    from raysweep.results.examples import Example
    from raysweep.sources.encoder import Encoder


Predict = Callable[["torch.Tensor"], "torch.Tensor"]
"""The network as evaluation calls it: (B, C, H, W) float32 in, (B, K, H, W) float32 out, without gradients."""


class TaskSettings(Settings):
    """Settings that every task has."""

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


class Task(ABC):
    """A downstream task around one encoder.

    Shapes: B batch, C channels, H height, W width, K classes.
    """

    Settings: ClassVar[type[TaskSettings]]
    recipe: ClassVar[int]
    """Raised whenever the task's results change for the same settings."""

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

    @abstractmethod
    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of a batch: output (B, K, H, W) float, target (B, H, W) int64."""

    @classmethod
    @abstractmethod
    def check_pack(cls, pack: Pack) -> None:
        """Check that a pack has what the task needs, before anything runs.

        Raises:
            PackError: saying what is missing.
        """

    @abstractmethod
    def evaluate(self, rows: NDArray[np.int64], predict: Predict, split: str, num_examples: int = 0) -> Evaluation:
        """Score the network on slices of the pack, each whole and at its native resolution."""
