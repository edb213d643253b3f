"""I-JEPA: a momentum encoder's tokens of some blocks of a slice, predicted from another block."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from raysweep.lazy import F, torch
from raysweep.methods._batch import Batch, Run
from raysweep.methods._collapse import feature_std
from raysweep.methods._masked import MaskedSettings
from raysweep.methods._masks import layer_norm
from raysweep.methods._method import full_precision
from raysweep.methods._momentum import MomentumMethod, MomentumSettings
from raysweep.settings import TRANSFORMER, Augmentation, Optimisation

if TYPE_CHECKING:
    from torch import Tensor

    from raysweep.sources.encoder import Encoder


class IJEPASettings(MaskedSettings, MomentumSettings):
    """Settings of I-JEPA. Numbers are those of arXiv:2301.08243, section 3 and appendix A, unless noted."""

    # 1e-3 at 2048 images a step for 600 epochs of ImageNet in the paper; packs give far fewer, smaller steps.
    optimisation: Optimisation = Optimisation(
        optimiser="adamw", lr=5e-4, weight_decay=0.04, final_weight_decay=0.4, warmup_epochs=1
    )
    """Optimiser and learning-rate schedule."""
    augmentation: Augmentation = Augmentation(crop_scale=(0.3, 1.0), flip_p=0.0, jitter_p=0.0, blur_p=0.0)
    """Random transformations of the view: a crop alone."""
    tau_start: float = Field(0.996, ge=0, le=1)
    """Momentum at the first step, rising to 1."""
    hand_on: Literal["online", "momentum"] = "momentum"
    """The encoder that is handed on; the paper evaluates the target encoder."""
    num_targets: int = Field(4, ge=1)
    """Blocks to predict."""
    target_scale: tuple[float, float] = (0.15, 0.2)
    """Share of the patches in a target block."""
    target_ratio: tuple[float, float] = (0.75, 1.5)
    """Aspect ratio (height / width) of a target block."""
    context_scale: tuple[float, float] = (0.85, 1.0)
    """Share of the patches in the context block, before target blocks are taken out."""
    predictor_features: int = Field(384, gt=0, multiple_of=4)
    """Width of the predictor."""
    predictor_depth: int = Field(6, ge=1)
    """Blocks of the predictor; 6 for the paper's smallest encoder."""
    predictor_heads: int = Field(12, ge=1)
    """Attention heads of the predictor."""


class IJEPA(MomentumMethod):
    """Smooth absolute error of predicted tokens against normalised tokens of the momentum encoder.

    The paper writes the squared distance and trains with the smooth form, which is followed here.

    Source: Assran et al. 2023, arXiv:2301.08243, section 3, "Loss".
    """

    Settings = IJEPASettings
    name: ClassVar[str] = "i-jepa"
    family: ClassVar[str] = "masked modelling"
    paper: ClassVar[str] = "Assran et al. 2023, arXiv:2301.08243"
    recipe: ClassVar[int] = 1
    cost: ClassVar[float] = 0.75
    encoder_types: ClassVar[frozenset[str]] = frozenset({TRANSFORMER})
    divided_nets: ClassVar[tuple[str, ...]] = ("encoder", "predictor")
    settings: IJEPASettings

    def __init__(self, settings: IJEPASettings, encoder: Encoder, run: Run) -> None:
        super().__init__(settings, encoder, run)
        from raysweep.methods._token_decoder import TokenDecoder

        self.side = encoder.patch_px
        width, depth, heads = settings.predictor_features, settings.predictor_depth, settings.predictor_heads
        self.nets["predictor"] = TokenDecoder(self.num_features, width, depth, heads, self.num_features)
        self.follow("encoder")

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss and ``target_std``, the spread of pooled targets."""
        (view,) = batch.views
        grid = view.shape[2] // self.side, view.shape[3] // self.side
        context, targets = (index.to(view.device) for index in self.draw_blocks(len(view), *grid))
        known = self.nets["encoder"].tokens(view, kept=context).patches
        self.features = known.detach().float().mean(1)
        with torch.no_grad():
            whole = self.nets["momentum_encoder"].tokens(view).patches
        losses = []
        for target in targets.unbind(1):
            predictions = self.nets["predictor"](known, context, target, grid)
            with full_precision(view):
                wanted = layer_norm(whole).gather(1, target[..., None].expand(-1, -1, whole.shape[2]))
                losses.append(F.smooth_l1_loss(predictions.float(), wanted))
        return {"loss": torch.stack(losses).mean(), "target_std": feature_std(whole.float().mean(1))}

    def draw_blocks(self, num_slices: int, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """Return patches of context (B, K) and of targets (B, num_targets, M), int64.

        Blocks of a batch share their size and differ in place. Context is cut to the fewest patches that are left to a
        slice of the batch when its targets are taken out; a slice with none left keeps its whole context block.
        """
        u = torch.rand(3).tolist()
        settings = self.settings
        scale = _between(settings.target_scale, u[0])
        ratio = _between(settings.target_ratio, u[1])
        targets = _blocks(num_slices, settings.num_targets, *_sides(scale, ratio, rows, columns), rows, columns)
        side = _sides(_between(settings.context_scale, u[2]), 1.0, rows, columns)
        (block,) = _blocks(num_slices, 1, *side, rows, columns).unbind(1)
        contexts = []
        for whole, taken in zip(block, targets, strict=True):
            left = whole[~torch.isin(whole, taken)]
            contexts.append(left if len(left) else whole)
        fewest = min(len(context) for context in contexts)
        cut = [context[torch.randperm(len(context))[:fewest]] for context in contexts]
        return torch.stack(cut), targets


def _between(bounds: tuple[float, float], u: float) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * u


def _sides(scale: float, ratio: float, rows: int, columns: int) -> tuple[int, int]:
    area = scale * rows * columns
    height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
    return min(rows, max(1, height)), min(columns, max(1, width))


def _blocks(num_slices: int, num_blocks: int, height: int, width: int, rows: int, columns: int) -> Tensor:
    """Return the patches (B, num_blocks, height * width) of rectangles at random places."""
    y0 = torch.randint(rows - height + 1, (num_slices, num_blocks, 1, 1))
    x0 = torch.randint(columns - width + 1, (num_slices, num_blocks, 1, 1))
    y, x = y0 + torch.arange(height)[:, None], x0 + torch.arange(width)[None, :]
    return (y * columns + x).flatten(2)


METHOD = IJEPA
