"""The learning rate and the weight decay of each step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch.optim import Optimizer

from raysweep.settings import Optimisation


def learning_rate(
    settings: Optimisation, step: int, steps_per_epoch: int, total_steps: int, plateau_scale: float = 1.0
) -> float:
    """Return the learning rate of a step, a pure function of it and of how far a plateau has brought the rate down.

    Linear from ``warmup_lr`` at step 0 to ``lr`` at the end of warm-up, then the schedule. Per step, cosine and
    polynomial reach ``final_lr`` at the last step; per epoch they are those of torch, which end one epoch later.

    Raises:
        ValueError: if ``step`` is outside the schedule.
    """
    if not 0 <= step < total_steps:
        raise ValueError(f"step {step} is outside the schedule of {total_steps} steps, 0 to {total_steps - 1}")
    if settings.schedule_per == "epoch":
        done, warmup = float(step // steps_per_epoch), settings.warmup_epochs
        end = total_steps / steps_per_epoch
    else:
        done, warmup = float(step), float(round(settings.warmup_epochs * steps_per_epoch))
        end = float(total_steps - 1)
    if done < warmup:
        return settings.warmup_lr + (settings.lr - settings.warmup_lr) * done / warmup
    progress = (done - warmup) / (end - warmup) if end > warmup else 0.0
    match settings.schedule:
        case "constant":
            return settings.lr
        case "cosine":
            return _between(settings, (1 + math.cos(math.pi * progress)) / 2)
        case "polynomial":
            return _between(settings, (1 - progress) ** settings.power)
        case "step":
            epochs = step // steps_per_epoch - math.ceil(settings.warmup_epochs)
            drops = max(0, epochs) // settings.drop_every_epochs
            return max(settings.lr * settings.factor**drops, settings.final_lr)
        case "plateau":
            return max(settings.lr * plateau_scale, settings.final_lr)


def _between(settings: Optimisation, share: float) -> float:
    """Weighted so that both ends come out exactly, which lr - (lr - final_lr) * share does not."""
    return settings.lr * share + settings.final_lr * (1 - share)


def weight_decay(settings: Optimisation, step: int, total_steps: int) -> float:
    """Return the weight decay of a step: constant, or along half a cosine to ``final_weight_decay`` at the last step.

    Source: Caron et al. 2021, arXiv:2104.14294, appendix, "Implementation details".
    """
    if settings.final_weight_decay is None or total_steps == 1:
        return settings.weight_decay
    share = (1 + math.cos(math.pi * step / (total_steps - 1))) / 2
    return settings.weight_decay * share + settings.final_weight_decay * (1 - share)


def set_weight_decay(optimiser: Optimizer, decay: float) -> None:
    """Set the weight decay of every group that has one."""
    for group in optimiser.param_groups:
        if group["decays"]:
            group["weight_decay"] = decay


def set_learning_rate(optimiser: Optimizer, lr: float) -> None:
    """Set the learning rate of every group to ``lr`` times the group's scale."""
    for group in optimiser.param_groups:
        group["lr"] = lr * group["lr_scale"]


@dataclass
class Plateau:
    """How far a quantity that no longer improves has brought the learning rate down.

    Source: the rule of torch.optim.lr_scheduler.ReduceLROnPlateau with a relative threshold and no cooldown.
    """

    best: float = math.inf
    num_bad: int = 0
    scale: float = 1.0

    def update(self, settings: Optimisation, loss: float) -> None:
        """Take in one validation of a quantity that should fall: a loss, or a score with its sign turned."""
        margin = settings.threshold * abs(self.best) if math.isfinite(self.best) else 0.0
        if loss < self.best - margin:
            self.best, self.num_bad = loss, 0
            return
        self.num_bad += 1
        if self.num_bad > settings.patience:
            self.scale *= settings.factor
            self.num_bad = 0

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a bit-identical continuation needs."""
        return asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self.best, self.num_bad, self.scale = state["best"], state["num_bad"], state["scale"]
