"""Only the last stages of the encoder learn, with the rest of the network; the earlier ones stay as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from raysweep.errors import StudyError
from raysweep.tuning._layers import layers_of
from raysweep.tuning._tuning import Tuning, TuningSettings

if TYPE_CHECKING:
    from torch import nn


class LastStagesSettings(TuningSettings):
    """Settings of last-stages."""

    stages: int = Field(1, ge=1)
    """Stages that learn, counted from the output; blocks where an encoder has no stages, as plain transformers."""


class LastStages(Tuning):
    """Trains the last stages of the encoder and all that follows it.

    Source: Yosinski et al. 2014, arXiv:1411.1792 (transfer layer by layer).
    """

    Settings = LastStagesSettings
    settings: LastStagesSettings

    def prepare(self) -> None:
        """Freeze the encoder up to its last stages."""
        layers = layers_of(self.encoder, self.backbone, "stage")
        if self.settings.stages >= len(layers):
            raise StudyError(
                f"tuning last-stages of {self.settings.stages} stages: encoder {self.backbone.encoder!r} has "
                f"{len(layers) - 1} besides its stem; allowed: 1 to {len(layers) - 1}, or tuning full"
            )
        self.network.requires_grad_(True)
        for layer in layers[: -self.settings.stages]:
            for parameter in layer:
                parameter.requires_grad_(False)

    def begin_epoch(self, epoch: int) -> None:
        """Keep the statistics of frozen modules still."""
        self.network.train()
        for module in self.encoder.modules():
            if _is_frozen(module):
                module.eval()


def _is_frozen(module: nn.Module) -> bool:
    own = list(module.parameters(recurse=False))
    return bool(own) and not any(parameter.requires_grad for parameter in own)


TUNING = LastStages
