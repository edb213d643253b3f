"""What every mode of fine-tuning is: which parameters learn, how fast, and from which epoch on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from raysweep import registry
from raysweep.settings import Backbone, Settings

if TYPE_CHECKING:
    from torch import nn


class TuningSettings(Settings):
    """Settings that every mode has: none."""


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate."""

    parameters: Sequence[nn.Parameter]
    lr_scale: float = 1.0
    """Factor on the scheduled learning rate."""


class Tuning(ABC):
    """A mode of fine-tuning one network around one encoder."""

    Settings: ClassVar[type[TuningSettings]] = TuningSettings
    recipe: ClassVar[int] = 1
    """Raised whenever the mode's results change for the same settings."""

    def __init__(
        self, settings: TuningSettings, network: nn.Module, encoder: nn.Module, backbone: Backbone, epochs: int
    ) -> None:
        """Prepare a network: say which of its parameters learn, and add those that the mode brings.

        Args:
            settings: settings of the mode.
            network: the whole network of the task.
            encoder: the encoder inside it, from whichever module on; its parameters are the network's.
            backbone: what the encoder was built from.
            epochs: epochs of the stage.

        Raises:
            StudyError: if the encoder is of a kind that the mode cannot tune.
        """
        self.settings = settings
        self.network = network
        self.encoder = encoder
        self.backbone = backbone
        self.epochs = epochs
        self.prepare()

    @abstractmethod
    def prepare(self) -> None:
        """Choose what learns at all."""

    def groups(self) -> list[ParameterGroup]:
        """Return every parameter that learns in some epoch, by learning rate."""
        return [ParameterGroup([p for p in self.network.parameters() if p.requires_grad])]

    def begin_epoch(self, epoch: int) -> None:
        """Set what learns in an epoch (from 1) and which statistics move: a pure function of the epoch."""
        self.network.train()

    def merge(self) -> None:  # noqa: B027 - most modes add nothing
        """Turn what the mode added into plain weights, so that the network needs no raysweep; by default nothing."""


def build_tuning(
    chosen: str | Mapping[str, Any], network: nn.Module, encoder: nn.Module, backbone: Backbone, epochs: int
) -> Tuning:
    """Prepare a network as a stage's configuration says: a mode's name, or its kind with settings.

    Raises:
        StudyError: if the encoder is of a kind that the mode cannot tune.
    """
    name, values = (chosen, {}) if isinstance(chosen, str) else (chosen["kind"], chosen["settings"])
    kind: type[Tuning] = registry.load("tuning", name).TUNING
    return kind(kind.Settings.model_validate(values), network, encoder, backbone, epochs)


def freeze(module: nn.Module) -> None:
    """Leave weights and statistics of a module as they are."""
    module.requires_grad_(False)
    module.eval()
