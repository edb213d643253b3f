"""Momentum encoders: copies that follow their originals by an exponential moving average."""

from __future__ import annotations

import copy
import math
from typing import TypeVar

from raysweep.lazy import nn, torch

M = TypeVar("M", bound="nn.Module")


def momentum_copy(module: M) -> M:
    """Return a copy that no gradient reaches."""
    return copy.deepcopy(module).requires_grad_(False)


def update_momentum(online: nn.Module, momentum: nn.Module, tau: float) -> None:
    """Move the parameters of ``momentum`` to tau * momentum + (1 - tau) * online.

    Buffers stay: normalisation statistics of the momentum branch come from its own forward passes.
    """
    with torch.no_grad():
        torch._foreach_lerp_(list(momentum.parameters()), list(online.parameters()), 1 - tau)


def cosine_tau(tau_start: float, step: int, total_steps: int) -> float:
    """Return the momentum at a step: from ``tau_start`` to 1 along half a cosine.

    Source: Grill et al. 2020, arXiv:2006.07733, section 3.3.
    """
    return 1 - (1 - tau_start) * (math.cos(math.pi * step / total_steps) + 1) / 2
