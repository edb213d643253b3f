"""What follows from validation: the best epoch, when to end early, and the weights that are validated."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from raysweep.settings import EarlyStopping, Training
from raysweep.tasks import Validation


def monitors_loss(training: Training) -> bool:
    """Whether a task's training asks for the loss of the validation split."""
    stopping, optimisation = training.early_stopping, training.optimisation
    return (
        training.best_by == "loss"
        or (stopping is not None and stopping.monitor == "loss")
        or (optimisation.schedule == "plateau" and optimisation.monitor == "loss")
    )


@dataclass
class Patience:
    """How long validation has not improved.

    Source: Prechelt 1998, Early Stopping - But When?, with the counter of validations of common libraries.
    """

    best: float = math.inf
    num_bad: int = 0

    def update(self, settings: EarlyStopping, found: Validation) -> None:
        """Take in one validation."""
        value = found.falling(settings.monitor)
        if value < self.best - settings.min_delta:
            self.best, self.num_bad = value, 0
        else:
            self.num_bad += 1

    def is_over(self, settings: EarlyStopping) -> bool:
        """Whether more validations went without an improvement than are borne."""
        return self.num_bad > settings.patience

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a bit-identical continuation needs."""
        return asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self.best, self.num_bad = state["best"], state["num_bad"]


class Averaged:
    """An exponential moving average of a network's weights and statistics, of which integers are copied.

    Source: Polyak & Juditsky 1992; as timm averages models, without a warm-up of the decay.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {key: value.detach().clone() for key, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move the average towards the network: decay * average + (1 - decay) * network."""
        for key, value in network.state_dict().items():
            if value.is_floating_point():
                self.state[key].lerp_(value, 1 - self.decay)
            else:
                self.state[key].copy_(value)

    @contextmanager
    def in_place_of(self, network: nn.Module) -> Iterator[None]:
        """Let the network have the averaged weights within a block, and its own ones after it."""
        own = {key: value.detach().clone() for key, value in network.state_dict().items()}
        network.load_state_dict(self.state)
        try:
            yield
        finally:
            network.load_state_dict(own)

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything that a bit-identical continuation needs."""
        return self.state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what ``state_dict`` returned."""
        for key, value in state.items():
            self.state[key].copy_(value)
