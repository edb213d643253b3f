"""MAE: the pixels of hidden patches, from the quarter that a transformer sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from raysweep.methods._batch import Batch, Run
from raysweep.methods._masked import MaskedSettings
from raysweep.methods._masks import normalised_patches, patchify, random_order
from raysweep.methods._method import Method, full_precision
from raysweep.settings import TRANSFORMER, later

if TYPE_CHECKING:
    from torch import Tensor

    from raysweep.sources.encoder import Encoder


class MAESettings(MaskedSettings):
    """Settings of MAE. Numbers are those of arXiv:2111.06377, section 3 and appendix A.1, unless noted."""

    mask_share: float = Field(0.75, gt=0, lt=1)
    """Share of the patches that are hidden."""
    normalised_targets: bool = later(True)
    """Whether the pixels of each patch are to be predicted with mean 0 and variance 1; else as the encoder gets them.

    Without, an even patch is its brightness rather than its noise.
    """
    decoder_features: int = Field(512, gt=0, multiple_of=4)
    """Width of the decoder."""
    decoder_depth: int = Field(8, ge=1)
    """Blocks of the decoder."""
    decoder_heads: int = Field(16, ge=1)
    """Attention heads of the decoder."""


class MAE(Method):
    """Mean squared error of the pixels of hidden patches, normalised or not (table 1d of the paper compares both).

    Source: He et al. 2021, arXiv:2111.06377, section 3.
    """

    Settings = MAESettings
    name: ClassVar[str] = "mae"
    family: ClassVar[str] = "masked modelling"
    paper: ClassVar[str] = "He et al. 2021, arXiv:2111.06377"
    recipe: ClassVar[int] = 1
    cost: ClassVar[float] = 0.25
    encoder_types: ClassVar[frozenset[str]] = frozenset({TRANSFORMER})
    divided_nets: ClassVar[tuple[str, ...]] = ("encoder", "decoder")
    settings: MAESettings

    def __init__(self, settings: MAESettings, encoder: Encoder, run: Run) -> None:
        super().__init__(settings, encoder, run)
        from raysweep.methods._token_decoder import TokenDecoder

        self.side = encoder.patch_px
        self.nets["decoder"] = TokenDecoder(
            self.num_features,
            settings.decoder_features,
            settings.decoder_depth,
            settings.decoder_heads,
            self.side**2 * encoder.backbone.channels,
        )

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss; for normalised targets, 1 is what predicting every patch's mean scores."""
        (view,) = batch.views
        rows, columns = view.shape[2] // self.side, view.shape[3] // self.side
        order = random_order(len(view), rows * columns).to(view.device)
        num_seen = max(1, round((1 - self.settings.mask_share) * rows * columns))
        seen, hidden = order[:, :num_seen], order[:, num_seen:]
        patches = self.nets["encoder"].tokens(view, kept=seen).patches
        self.features = patches.detach().float().mean(1)
        predictions = self.nets["decoder"](patches, seen, hidden, (rows, columns))
        with full_precision(view):
            targets = normalised_patches if self.settings.normalised_targets else patchify
            pixels = targets(view.float(), self.side)
            wanted = pixels.gather(1, hidden[..., None].expand(-1, -1, pixels.shape[2]))
            return {"loss": (predictions.float() - wanted).square().mean()}


METHOD = MAE
