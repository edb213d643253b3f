"""Low-rank updates of a transformer encoder's attention learn, with the rest of the network; its weights stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from raysweep.errors import StudyError
from raysweep.lazy import nn, torch
from raysweep.tuning._tuning import Tuning, TuningSettings

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Linear, Module


class LoraSettings(TuningSettings):
    """Settings of lora."""

    rank: int = Field(8, ge=1)
    """Rank of each update."""
    alpha: float = Field(16.0, gt=0)
    """Scale of the updates: they count alpha / rank."""


class Lora(Tuning):
    """Adds B A alpha / rank to every projection of the encoder's attention; B is zero at first, so nothing changes.

    Statistics of normalisation stay still. ``merge`` turns the updates into plain weights.

    Source: Hu et al. 2021, arXiv:2106.09685, equation 3.
    """

    Settings = LoraSettings
    settings: LoraSettings

    def prepare(self) -> None:
        """Freeze the encoder and put updates on the linear layers of its attention."""
        from torch.nn.utils import parametrize

        self.network.requires_grad_(True)
        self.encoder.requires_grad_(False)
        self._adapted = attention_layers(self.encoder)
        if not self._adapted:
            raise StudyError(
                f"tuning lora needs a transformer: encoder {self.backbone.encoder!r} has no attention with linear "
                "projections. Use last-stages or layer-decay for convolutional encoders."
            )
        update = _update_module()
        for layer in self._adapted:
            parametrize.register_parametrization(
                layer, "weight", update(layer.out_features, layer.in_features, self.settings)
            )

    def begin_epoch(self, epoch: int) -> None:
        """Keep the encoder's statistics still."""
        self.network.train()
        self.encoder.eval()

    def merge(self) -> None:
        """Replace each updated weight by its value."""
        from torch.nn.utils import parametrize

        for layer in self._adapted:
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def attention_layers(encoder: Module) -> list[Linear]:
    """Return the linear layers inside attention modules, in order, each once."""
    found: dict[int, Any] = {}
    for name, module in encoder.named_modules():
        inside = any("attn" in part or "attention" in part.lower() for part in name.split("."))
        if inside and isinstance(module, torch.nn.Linear):
            found[id(module)] = module
    return list(found.values())


def _update_module() -> Any:
    """Return the class of updates; made here, for its base is torch's."""

    class LowRankUpdate(nn.Module):
        """W + B A alpha / rank, for W of (O, I)."""

        def __init__(self, outputs: int, inputs: int, settings: LoraSettings) -> None:
            super().__init__()
            self.scale = settings.alpha / settings.rank
            self.a = nn.Parameter(torch.empty(settings.rank, inputs))
            self.b = nn.Parameter(torch.zeros(outputs, settings.rank))
            nn.init.kaiming_uniform_(self.a, a=5**0.5)

        def forward(self, weight: Tensor) -> Tensor:
            return weight + (self.b @ self.a) * self.scale

    return LowRankUpdate


TUNING = Lora
