"""Momentum encoders: copies that follow their originals by an exponential moving average."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Literal, TypeVar

from pydantic import Field

from raysweep.lazy import nn, torch
from raysweep.methods._method import Method
from raysweep.methods._settings import MethodSettings

if TYPE_CHECKING:
    from raysweep.sources.encoder import Encoder

M = TypeVar("M", bound="nn.Module")


class MomentumSettings(MethodSettings):
    """Settings of methods with a momentum encoder."""

    tau_start: float = Field(0.996, ge=0, le=1)
    """Momentum at the first step."""
    tau_end: float = Field(1.0, ge=0, le=1)
    """Momentum that half a cosine leads to; equal to tau_start for a constant one."""
    hand_on: Literal["online", "momentum"] = "online"
    """The encoder that is handed on."""


class MomentumMethod(Method):
    """A method some of whose nets have a momentum copy."""

    settings: MomentumSettings

    def follow(self, *names: str) -> None:
        """Give nets a copy ``momentum_...`` that follows them after every step."""
        for name in names:
            self.nets[f"momentum_{name}"] = momentum_copy(self.nets[name])

    def tau(self, step: int) -> float:
        """Return the momentum after an optimiser step."""
        return cosine_tau(self.settings.tau_start, step, self.run.total_steps, self.settings.tau_end)

    def after_step(self, step: int) -> None:
        """Move every momentum copy."""
        for name in self.nets:
            if name.startswith("momentum_"):
                update_momentum(self.nets[name.removeprefix("momentum_")], self.nets[name], self.tau(step))

    def encoder(self) -> Encoder:
        """Return the momentum or the online encoder, as the settings say."""
        name = "momentum_encoder" if self.settings.hand_on == "momentum" else "encoder"
        encoder: Encoder = self.nets[name]
        return encoder


def momentum_copy(module: M) -> M:
    """Return a copy that no gradient reaches."""
    return copy.deepcopy(module).requires_grad_(False)


def update_momentum(online: nn.Module, momentum: nn.Module, tau: float) -> None:
    """Move the parameters of ``momentum`` to tau * momentum + (1 - tau) * online.

    Buffers stay: normalisation statistics of the momentum branch come from its own forward passes.
    """
    with torch.no_grad():
        torch._foreach_lerp_(list(momentum.parameters()), list(online.parameters()), 1 - tau)


def cosine_tau(tau_start: float, step: int, total_steps: int, tau_end: float = 1.0) -> float:
    """Return the momentum at a step: from ``tau_start`` to ``tau_end`` along half a cosine.

    Source: Grill et al. 2020, arXiv:2006.07733, section 3.3.
    """
    return tau_end - (tau_end - tau_start) * (math.cos(math.pi * step / total_steps) + 1) / 2
