"""What self-distillation methods share: the teacher's temperature, frozen prototypes, the loss across crops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from raysweep.lazy import torch
from raysweep.methods._momentum import MomentumMethod, MomentumSettings

if TYPE_CHECKING:
    from torch import Tensor


class TeacherSettings(MomentumSettings):
    """Settings of self-distillation. Numbers are those of DINO, arXiv:2104.14294, section 3.1 and appendix."""

    tau_start: float = Field(0.996, ge=0, le=1)
    """Momentum at the first step, rising to 1."""
    hand_on: Literal["online", "momentum"] = "momentum"
    """The encoder that is handed on; the paper evaluates the teacher."""
    student_temperature: float = Field(0.1, gt=0)
    """Temperature of the student's outputs."""
    teacher_temperature: float = Field(0.07, gt=0)
    """Temperature of the teacher's outputs after its warm-up."""
    teacher_temperature_start: float = Field(0.04, gt=0)
    """Temperature of the teacher's outputs at the first step."""
    temperature_warmup: float = Field(0.1, ge=0, le=1)
    """Share of the schedule in which the teacher's temperature rises: 30 of 300 epochs."""
    frozen_prototypes: float = Field(0.01, ge=0, le=1)
    """Share of the schedule in which prototypes stay as they are: one epoch of 100."""


class TeacherMethod(MomentumMethod):
    """A method whose student learns a momentum teacher's distributions over prototypes."""

    settings: TeacherSettings

    def teacher_temperature(self, step: int) -> float:
        """Return the temperature of the teacher's outputs at a step: linear in its warm-up, then constant."""
        settings = self.settings
        start, end, warmup = (
            settings.teacher_temperature_start,
            settings.teacher_temperature,
            settings.temperature_warmup * self.run.total_steps,
        )
        return start + (end - start) * min(1.0, step / warmup) if warmup else end

    def freezes_prototypes(self, step: int) -> bool:
        """Whether prototypes stay as they are in a step."""
        return step < self.settings.frozen_prototypes * self.run.total_steps

    def across_crops(self, targets: Sequence[Tensor], outputs: Sequence[Tensor]) -> Tensor:
        """Return the mean cross-entropy of each crop's outputs (B, K) against the targets of every other crop.

        Source: Caron et al. 2021, arXiv:2104.14294, equation 3.
        """
        from raysweep.methods._distillation import distillation_loss

        losses = [
            distillation_loss(target, output, self.settings.student_temperature).mean()
            for index, target in enumerate(targets)
            for other, output in enumerate(outputs)
            if other != index
        ]
        return torch.stack(losses).mean()
