"""SimMIM: the pixels of hidden patches, by one linear layer on a transformer that sees mask tokens in their place."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from raysweep.lazy import nn, torch
from raysweep.methods._batch import Batch, Run
from raysweep.methods._masked import WHOLE_CROP, MaskedSettings
from raysweep.methods._masks import enlarge, masked_mean, patchify, random_cells
from raysweep.methods._method import Method, full_precision
from raysweep.settings import TRANSFORMER, Augmentation, Optimisation

if TYPE_CHECKING:
    from torch import Tensor

    from raysweep.sources.encoder import Encoder


class SimMIMSettings(MaskedSettings):
    """Settings of SimMIM. Numbers are those of arXiv:2111.09886, section 4.1, unless a comment says otherwise."""

    # 1e-4 at 256 images a step for 800 epochs of ImageNet in the paper; packs give far fewer steps.
    optimisation: Optimisation = Optimisation(
        optimiser="adamw", lr=5e-4, weight_decay=0.05, warmup_epochs=1, clip_norm=5.0
    )
    """Optimiser and learning-rate schedule."""
    augmentation: Augmentation = WHOLE_CROP.model_copy(update={"crop_scale": (0.67, 1.0)})
    """Random transformations of the view."""
    mask_share: float = Field(0.6, gt=0, lt=1)
    """Share of the slice that is hidden."""
    mask_px: int = Field(32, ge=1)
    """Side of the squares that are hidden."""


class SimMIM(Method):
    """Mean absolute error of the pixels of hidden patches.

    Source: Xie et al. 2021, arXiv:2111.09886, equation 1.
    """

    Settings = SimMIMSettings
    name: ClassVar[str] = "simmim"
    family: ClassVar[str] = "masked modelling"
    paper: ClassVar[str] = "Xie et al. 2021, arXiv:2111.09886"
    recipe: ClassVar[int] = 1
    cost: ClassVar[float] = 1.0
    encoder_types: ClassVar[frozenset[str]] = frozenset({TRANSFORMER})
    settings: SimMIMSettings

    def __init__(self, settings: SimMIMSettings, encoder: Encoder, run: Run) -> None:
        super().__init__(settings, encoder, run)
        self.side = encoder.patch_px
        self.nets["decoder"] = nn.Linear(self.num_features, self.side**2 * encoder.backbone.channels)
        self.nets["mask"] = nn.ParameterDict({"token": nn.Parameter(torch.zeros(self.num_features))})
        nn.init.trunc_normal_(self.nets["mask"]["token"], std=0.02)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss, in the units of normalised intensities."""
        (view,) = batch.views
        rows, columns = view.shape[2] // self.side, view.shape[3] // self.side
        per_cell = max(1, min(self.settings.mask_px // self.side, rows // 2, columns // 2))
        cells = random_cells(len(view), rows // per_cell, columns // per_cell, self.settings.mask_share)
        hidden = enlarge(cells, rows, columns).flatten(1).to(view.device)
        tokens = self.nets["encoder"].tokens(view, hidden=hidden, mask_token=self.nets["mask"]["token"])
        self.features = tokens.patches.detach().float().mean(1)
        predictions = self.nets["decoder"](tokens.patches)
        with full_precision(view):
            error = (predictions.float() - patchify(view.float(), self.side)).abs().mean(-1)
            return {"loss": masked_mean(error, hidden)}


METHOD = SimMIM
