"""Optimisers, and the step they take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from raysweep.settings import Optimisation
from raysweep.stages.phases import UNMEASURED, Phases
from raysweep.tuning import ParameterGroup


class LARS(Optimizer):
    """Momentum SGD with a learning rate for each layer, scaled by its ratio of weights to gradient.

    Groups with ``adapt=False`` are plain momentum SGD; SimCLR and BYOL do so with biases and normalisation.
    Own code: the norms never wait for the device, and adaptation does not hang on a weight decay above 0.

    Source: You et al. 2017, arXiv:1708.03888, algorithm 1.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 1e-3,
        adapt: bool = True,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
            "adapt": adapt,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient; ``closure`` is not supported and must be None."""
        if closure is not None:
            raise ValueError("LARS takes no closure; compute the gradients before step()")
        for group in self.param_groups:
            if parameters := [parameter for parameter in group["params"] if parameter.grad is not None]:
                self._update(parameters, group)

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Update the parameters of a group together: a GPU is asked for few operations, not for some of each."""
        gradients = [parameter.grad for parameter in parameters]
        updates = torch._foreach_add(gradients, parameters, alpha=group["weight_decay"])  # type: ignore[arg-type]
        if group["adapt"]:
            rates = _local_rates(parameters, gradients, group["weight_decay"], group["trust_coefficient"])
            torch._foreach_mul_(updates, rates.unbind())
        for parameter in parameters:
            if "velocity" not in self.state[parameter]:
                self.state[parameter]["velocity"] = torch.zeros_like(parameter)
        velocities = [self.state[parameter]["velocity"] for parameter in parameters]
        torch._foreach_mul_(velocities, group["momentum"])
        torch._foreach_add_(velocities, updates, alpha=group["lr"])
        torch._foreach_sub_(parameters, velocities)


def _local_rates(
    parameters: list[Tensor], gradients: Sequence[Tensor | None], weight_decay: float, trust_coefficient: float
) -> Tensor:
    """Return trust * ||w|| / (||g|| + decay * ||w||) of N parameters, (N,); 1 where weights or gradient are all 0."""
    weight = torch.stack(torch._foreach_norm(parameters))
    gradient = torch.stack(torch._foreach_norm(gradients))  # type: ignore[arg-type]
    rate = trust_coefficient * weight / (gradient + weight_decay * weight)
    return torch.where((weight > 0) & (gradient > 0), rate, torch.ones_like(rate))


def build_optimiser(
    parameters: nn.Module | Iterable[nn.Parameter] | Sequence[ParameterGroup], settings: Optimisation
) -> Optimizer:
    """Build the optimiser over all parameters that require a gradient.

    Parameters of one dimension (biases, normalisation) get no weight decay, and no adaptation from LARS.

    Raises:
        ValueError: if no parameter requires a gradient.
    """
    groups: list[dict[str, Any]] = []
    for group in _as_groups(parameters):
        trainable = [p for p in group.parameters if p.requires_grad]
        common = {"lr": settings.lr * group.lr_scale, "lr_scale": group.lr_scale}
        matrices = [p for p in trainable if p.ndim > 1]
        vectors = [p for p in trainable if p.ndim <= 1]
        if matrices:
            groups.append({"params": matrices, "weight_decay": settings.weight_decay, "decays": True, **common})
        if vectors:
            exempt = {"adapt": False} if settings.optimiser == "lars" else {}
            groups.append({"params": vectors, "weight_decay": 0.0, "decays": False, **exempt, **common})
    if not groups:
        raise ValueError("no parameter requires a gradient; there is nothing to optimise")
    match settings.optimiser:
        case "adamw":
            return torch.optim.AdamW(groups, lr=settings.lr, betas=(settings.momentum, settings.beta2), fused=True)
        case "adam":
            return torch.optim.Adam(groups, lr=settings.lr, betas=(settings.momentum, settings.beta2), fused=True)
        case "sgd":
            momentum, nesterov = settings.momentum, settings.nesterov
            return torch.optim.SGD(groups, lr=settings.lr, momentum=momentum, nesterov=nesterov, fused=True)
        case "rmsprop":
            return torch.optim.RMSprop(groups, lr=settings.lr, alpha=settings.beta2, momentum=settings.momentum)
        case "lars":
            return LARS(
                groups, lr=settings.lr, momentum=settings.momentum, trust_coefficient=settings.trust_coefficient
            )


def optimise(
    loss: Tensor,
    optimiser: Optimizer,
    scaler: torch.amp.GradScaler,
    parameters: Sequence[nn.Parameter],
    clip_norm: float | None,
    phases: Phases = UNMEASURED,
    complete: Callable[[], None] | None = None,
) -> None:
    """Take one optimiser step down the gradient of a scalar loss, clipped to ``clip_norm`` unless that is None.

    ``complete`` is called when this process has its gradients, to add those of others.
    """
    with phases("backward"):
        optimiser.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if complete is not None:
            complete()
    with phases("optimiser"):
        if clip_norm is not None:
            scaler.unscale_(optimiser)
            clip(parameters, clip_norm)
        scaler.step(optimiser)
        scaler.update()


def clip(parameters: Sequence[nn.Parameter], clip_norm: float) -> None:
    """Scale gradients down to a norm of ``clip_norm``, all together, to the bits of torch's ``clip_grad_norm_``.

    Gradients within the norm are left alone rather than multiplied by 1, where asking does not wait for a device.
    """
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if norm.device.type == "cpu" and bool(clip_norm / (norm + 1e-6) >= 1):
        return
    torch.nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm)


def _as_groups(
    parameters: nn.Module | Iterable[nn.Parameter] | Sequence[ParameterGroup],
) -> list[ParameterGroup]:
    if isinstance(parameters, nn.Module):
        return [ParameterGroup(list(parameters.parameters()))]
    items = list(parameters)
    groups = [item for item in items if isinstance(item, ParameterGroup)]
    return groups or [ParameterGroup([item for item in items if isinstance(item, nn.Parameter)])]
