"""iBOT: DINO on class tokens, and the same for hidden patches, which the teacher sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from raysweep.lazy import nn, torch
from raysweep.methods import _recipes
from raysweep.methods._batch import Batch, Run
from raysweep.methods._collapse import feature_std
from raysweep.methods._masks import masked_mean, random_blocks
from raysweep.methods._method import full_precision
from raysweep.methods._settings import View
from raysweep.methods._teacher import TeacherMethod
from raysweep.methods.dino import DINOSettings
from raysweep.settings import TRANSFORMER

if TYPE_CHECKING:
    from torch import Tensor

    from raysweep.sources._vit import Tokens
    from raysweep.sources.encoder import Encoder


class IBOTSettings(DINOSettings):
    """Settings of iBOT. Numbers are those of arXiv:2111.07832, section 4 and appendix, or of DINO."""

    first: View = View(augmentation=_recipes.BYOL_FIRST.model_copy(update={"crop_scale": (0.32, 1.0)}))
    """The first large crop."""
    second: View = View(augmentation=_recipes.BYOL_SECOND.model_copy(update={"crop_scale": (0.32, 1.0)}))
    """The second large crop."""
    num_small_crops: int = Field(10, ge=0)
    """Small crops of each slice."""
    mask_p: float = Field(0.5, ge=0, le=1)
    """Probability that patches of a large crop are hidden."""
    mask_share: tuple[float, float] = (0.1, 0.5)
    """Share of the patches that are hidden then, drawn uniformly."""
    patch_weight: float = Field(1.0, ge=0)
    """Weight of the loss of hidden patches."""


class IBOT(TeacherMethod):
    """Cross-entropy of class tokens across crops, and of hidden patches within a crop, under one head.

    A network without a class token takes the mean of its patch tokens.

    Source: Zhou et al. 2021, arXiv:2111.07832, equations 2 and 3.
    """

    Settings = IBOTSettings
    name: ClassVar[str] = "ibot"
    family: ClassVar[str] = "distillation"
    paper: ClassVar[str] = "Zhou et al. 2021, arXiv:2111.07832"
    recipe: ClassVar[int] = 1
    cost: ClassVar[float] = 8 / 3 + 10 * (96 / 224) ** 2
    encoder_types: ClassVar[frozenset[str]] = frozenset({TRANSFORMER})
    divided_nets: ClassVar[tuple[str, ...]] = ("encoder", "projector", "patch_projector")
    settings: IBOTSettings
    separate_heads: ClassVar[bool] = False
    """Whether patches have a head of their own."""

    def __init__(self, settings: IBOTSettings, encoder: Encoder, run: Run) -> None:
        super().__init__(settings, encoder, run)
        from raysweep.methods._distillation import PrototypeHead

        self.side = encoder.patch_px
        sizes = settings.hidden_features, settings.bottleneck_features, settings.num_prototypes
        self.nets["projector"] = PrototypeHead(self.num_features, *sizes)
        if self.separate_heads:
            self.nets["patch_projector"] = PrototypeHead(self.num_features, *sizes)
        self.follow(*[name for name in ("encoder", "projector", "patch_projector") if name in self.nets])
        self._build_targets()
        self.nets["mask"] = nn.ParameterDict({"token": nn.Parameter(torch.zeros(self.num_features))})

    def _build_targets(self) -> None:
        from raysweep.methods._distillation import Centre

        for name in ("centre", "patch_centre"):
            self.nets[name] = Centre(self.settings.num_prototypes, self.settings.centre_momentum)

    def _class_targets(self, outputs: Tensor, temperature: float) -> Tensor:
        """Return the teacher's distributions (2B, K) of class tokens."""
        targets: Tensor = self.nets["centre"].targets(outputs, temperature)
        return targets

    def _patch_targets(self, outputs: Tensor, hidden: Tensor, temperature: float) -> Tensor:
        """Return the teacher's distributions (2B, N, K) of patches, of which only those that are hidden count."""
        flat: Tensor = self.nets["patch_centre"].targets(outputs.flatten(0, 1), temperature)
        return flat.reshape(outputs.shape)

    def draw_masks(self, num_slices: int, rows: int, columns: int) -> Tensor:
        """Return the patches to hide, (B, rows * columns) bool."""
        low, high = self.settings.mask_share
        u = torch.rand(num_slices, 2)
        shares = (low + (high - low) * u[:, 0]) * (u[:, 1] < self.settings.mask_p)
        return random_blocks(shares, rows, columns).flatten(1)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss, its ``patch_loss`` part, and ``feature_std`` of class tokens."""
        from raysweep.methods._distillation import distillation_loss

        nets, settings, B = self.nets, self.settings, len(batch.ids)
        large = torch.cat(list(batch.views[:2]))
        hidden = self.draw_masks(len(large), large.shape[2] // self.side, large.shape[3] // self.side).to(large.device)
        with torch.no_grad():
            seen = nets["momentum_encoder"].tokens(large)
            patch_head = "patch_projector" if self.separate_heads else "projector"
            teacher, teacher_patches = (
                nets["momentum_projector"](_summary(seen)),
                nets[f"momentum_{patch_head}"](seen.patches),
            )
        tokens = nets["encoder"].tokens(large, hidden=hidden, mask_token=nets["mask"]["token"])
        summaries = [_summary(tokens)]
        self.features = tokens.patches.detach().float().mean(1)
        if len(batch.views) > 2:
            summaries.append(_summary(nets["encoder"].tokens(torch.cat(list(batch.views[2:])))))
        frozen = self.freezes_prototypes(batch.step)
        student = nets["projector"](torch.cat(summaries), frozen_prototypes=frozen).split(B)
        student_patches = nets[patch_head](tokens.patches, frozen_prototypes=frozen)
        with full_precision(teacher):
            temperature = self.teacher_temperature(batch.step)
            targets = self._class_targets(teacher, temperature).chunk(2)
            patch_targets = self._patch_targets(teacher_patches, hidden, temperature)
            per_patch = distillation_loss(patch_targets, student_patches, settings.student_temperature)
            patch_loss = _mean_over_crops(per_patch, hidden)
            loss = self.across_crops(targets, student) + settings.patch_weight * patch_loss + self._spread(summaries[0])
        return {"loss": loss, "patch_loss": patch_loss.detach(), "projection_std": feature_std(student[0])}

    def _spread(self, summary: Tensor) -> Tensor:
        """Return a further loss on the large crops' class tokens (2B, D); none here."""
        return torch.zeros((), device=summary.device)


def _summary(tokens: Tokens) -> Tensor:
    """Return the class tokens (B, D), or the mean of the patches where there are none."""
    return tokens.prefix[:, 0] if tokens.prefix.shape[1] else tokens.patches.mean(1)


def _mean_over_crops(per_patch: Tensor, hidden: Tensor) -> Tensor:
    """Return the mean over the hidden patches of each crop (B, N), then over the crops that hide any."""
    counts = hidden.sum(1)
    means = (per_patch * hidden).sum(1) / counts.clamp(min=1)
    return masked_mean(means, counts > 0)


METHOD = IBOT
