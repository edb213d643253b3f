"""The whole network learns, each layer of the encoder the slower the nearer it is to the input."""

from __future__ import annotations

from pydantic import Field

from raysweep.tuning._layers import Grain, layers_of
from raysweep.tuning._tuning import ParameterGroup, Tuning, TuningSettings


class LayerDecaySettings(TuningSettings):
    """Settings of layer-decay."""

    decay: float = Field(0.75, gt=0, lt=1)
    """Ratio of the learning rates of neighbouring layers; what follows the encoder has the scheduled rate."""
    grain: Grain = "block"
    """What a layer is: a residual or transformer block, or a whole stage."""


class LayerDecay(Tuning):
    """Trains everything, with a learning rate that falls by a factor from each layer to the one below it.

    Source: Clark et al. 2020, arXiv:2003.10555; Bao et al. 2022, arXiv:2106.08254, for vision transformers.
    """

    Settings = LayerDecaySettings
    settings: LayerDecaySettings

    def prepare(self) -> None:
        """Let everything learn."""
        self.network.requires_grad_(True)

    def groups(self) -> list[ParameterGroup]:
        """Return one group for each layer of the encoder, the stem first, and one for the rest of the network."""
        layers = layers_of(self.encoder, self.backbone, self.settings.grain)
        scales = [self.settings.decay ** (len(layers) - position) for position in range(len(layers))]
        inside = {id(parameter) for layer in layers for parameter in layer}
        rest = [parameter for parameter in self.network.parameters() if id(parameter) not in inside]
        groups = [ParameterGroup(layer, scale) for layer, scale in zip(layers, scales, strict=True)]
        return [*groups, ParameterGroup(rest)] if rest else groups


TUNING = LayerDecay
