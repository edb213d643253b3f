"""SparK: the pixels of hidden squares, from a convolutional encoder that sees the rest as if sparse."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from raysweep.errors import StudyError
from raysweep.lazy import F
from raysweep.methods._batch import Batch, Run
from raysweep.methods._masked import WHOLE_CROP, MaskedSettings
from raysweep.methods._masks import masked_mean, normalised_patches, patchify, random_cells
from raysweep.methods._method import Method, full_precision
from raysweep.settings import CONVOLUTIONAL, Augmentation, Optimisation

if TYPE_CHECKING:
    from torch import Tensor

    from raysweep.sources.encoder import Encoder

_NUM_MAPS = 4


class SparKSettings(MaskedSettings):
    """Settings of SparK. Numbers are those of arXiv:2301.03580, section 4 and appendix, unless a comment says else."""

    # LAMB at 2e-4 per 256 images for 1600 epochs of ImageNet in the paper; packs give far fewer, smaller steps.
    optimisation: Optimisation = Optimisation(
        optimiser="adamw", lr=1e-3, weight_decay=0.04, final_weight_decay=0.2, warmup_epochs=1, clip_norm=5.0
    )
    """Optimiser and learning-rate schedule."""
    augmentation: Augmentation = WHOLE_CROP.model_copy(update={"crop_scale": (0.67, 1.0)})
    """Random transformations of the view."""
    mask_share: float = Field(0.6, gt=0, lt=1)
    """Share of the slice that is hidden, in squares of the encoder's coarsest stride."""
    decoder_features: int = Field(256, gt=0)
    """Width of the decoder."""


class SparK(Method):
    """Mean squared error of the normalised pixels of hidden squares, behind a decoder over several scales.

    The decoder is a feature pyramid; the paper's is a U-Net of its own. Squeeze-and-excitation and group normalisation
    inside an encoder still average over hidden cells, which are 0.

    Source: Tian et al. 2023, arXiv:2301.03580, section 3.
    """

    Settings = SparKSettings
    name: ClassVar[str] = "spark"
    family: ClassVar[str] = "masked modelling"
    paper: ClassVar[str] = "Tian et al. 2023, arXiv:2301.03580"
    recipe: ClassVar[int] = 1
    cost: ClassVar[float] = 1.0
    encoder_types: ClassVar[frozenset[str]] = frozenset({CONVOLUTIONAL})
    divided_nets: ClassVar[tuple[str, ...]] = ("encoder", "decoder")
    settings: SparKSettings

    def __init__(self, settings: SparKSettings, encoder: Encoder, run: Run) -> None:
        super().__init__(settings, encoder, run)
        from raysweep.methods._map_decoder import Densify, MapDecoder

        self.side = encoder.reduction[-1]
        channels = encoder.channels[-_NUM_MAPS:]
        self.stride = encoder.reduction[-_NUM_MAPS:][0]
        self.nets["densify"] = Densify(channels)
        num_pixels = self.stride**2 * encoder.backbone.channels
        self.nets["decoder"] = MapDecoder(channels, settings.decoder_features, num_pixels)

    @classmethod
    def check_fit(cls, encoder: Encoder, image_size: int) -> None:
        """Check the encoder's type, and that a view has squares to hide and squares to see.

        Raises:
            StudyError: if not.
        """
        super().check_fit(encoder, image_size)
        stride = encoder.reduction[-1]
        if image_size < 2 * stride or image_size % stride:
            raise StudyError(
                f"method {cls.name!r} hides squares of {stride} pixels, the coarsest stride of "
                f"{encoder.backbone.encoder!r}; an image_size of {image_size} must be a multiple of that, at least two"
            )

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss; 1 is what predicting every square's mean scores."""
        from raysweep.methods._sparse import spread

        (view,) = batch.views
        grid = view.shape[2] // self.side, view.shape[3] // self.side
        hidden = random_cells(len(view), *grid, self.settings.mask_share).to(view.device)
        maps = self.ranks.divided(self._encode_visible)(view, ~hidden)
        last, maps = maps[-1], maps[-_NUM_MAPS:]
        self.features = (last.detach().float().sum((2, 3))) / (~hidden).sum((1, 2))[:, None]
        filled = self.nets["densify"](maps, [spread(~hidden, *m.shape[2:]) for m in maps])
        cells = self.nets["decoder"](filled)
        with full_precision(view):
            pixels = F.pixel_shuffle(cells.float(), self.stride)
            predictions = patchify(pixels, self.side)
            error = (predictions - normalised_patches(view, self.side)).square().mean(-1)
            return {"loss": masked_mean(error, hidden.flatten(1))}

    def _encode_visible(self, view: Tensor, visible: Tensor) -> list[Tensor]:
        from raysweep.methods._sparse import sparse, spread

        with sparse(self.nets["encoder"], visible):
            maps: list[Tensor] = self.nets["encoder"].feature_maps(view * spread(visible, *view.shape[2:])[:, None])
        return maps


METHOD = SparK
