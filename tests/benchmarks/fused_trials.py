"""Whether several fine-tunings of one shape are faster as one: stacked with torch.func against one after another."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from tests.benchmarks.measurement import Measurement, alternate

DESCRIPTION = "Fine-tunings of several seeds as one stacked network (vmap, grouped convolutions) against one by one."

_SETUPS = {"small": ("test_resnet", 64, (32, 16)), "ResNet-18": ("resnet18", 96, (256, 128, 64, 32, 16))}
_BATCHES = (1, 4, 16)
_NUM_TRIALS = 4


def run(quick: bool = False) -> Measurement:
    """Take forward and backward passes of the same networks on the same batches in both ways, in turn."""
    torch.set_num_threads(1)
    repetitions = 1 if quick else 3
    setups = list(_SETUPS)[: 1 if quick else None]
    rows = [_row(setup, batch, repetitions) for setup in setups for batch in _BATCHES]
    best = max(rows, key=lambda row: row["stacked faster by"])
    pays = [row for row in rows if row["stacked faster by"] > 1.1]
    difference = max(row["largest difference"] for row in rows)
    verdict = (
        f"It pays in {len(pays)} of {len(rows)} cases, most with the {best['encoder']} encoder at batch {best['batch']}"
        if pays
        else f"It never pays; it comes nearest with the {best['encoder']} encoder at batch {best['batch']}"
    )
    return Measurement(
        rows,
        f"On one core, {_NUM_TRIALS} stacked trials take {1 / best['stacked faster by']:.2f} times the time of the "
        f"same trials one by one at best. {verdict}. Gradients agree to {difference:.1g} "
        "of the largest. One core is busy with a single trial already, and grouped convolutions have slower kernels "
        "than plain ones; so raysweep runs trials side by side, one core each, and has no option to fuse them.",
        {
            "work": f"forward and backward pass of {_NUM_TRIALS} U-Nets that differ in weights and batches",
            "sizes": ", ".join(f"{name} {size} px" for name, (_, size, _) in _SETUPS.items()),
            "arithmetic": "float32; not deterministic",
            "not measured": "a GPU, where small networks leave it idle and stacking may pay; several stages a GPU, by "
            "fractions, are what raysweep offers there",
            "repetitions": f"{repetitions} in turn, median, CPU seconds of one process with one thread",
        },
    )


def _row(setup: str, batch: int, repetitions: int) -> dict[str, Any]:
    encoder, size, channels = _SETUPS[setup]
    networks = []
    for seed in range(_NUM_TRIALS):
        torch.manual_seed(seed)
        networks.append(
            smp.Unet(
                f"tu-{encoder}",
                encoder_depth=len(channels),
                encoder_weights=None,
                in_channels=1,
                classes=4,
                decoder_channels=channels,
            )
        )
    x = torch.randn(_NUM_TRIALS, batch, 1, size, size)
    y = torch.randint(0, 4, (_NUM_TRIALS, batch, size, size))
    single, stacked = _one_by_one(networks, x, y), _stacked(networks, x, y)
    difference = _difference(single(), stacked())
    seconds = alternate({"one by one": single, "stacked": stacked}, repetitions)
    return {
        "encoder": setup,
        "batch": batch,
        "one by one ms": 1000 * seconds["one by one"],
        "stacked ms": 1000 * seconds["stacked"],
        "stacked faster by": seconds["one by one"] / seconds["stacked"],
        "largest difference": difference,
    }


def _loss(output: Tensor, target: Tensor) -> Tensor:
    return nn.functional.cross_entropy(output, target)


def _one_by_one(networks: list[nn.Module], x: Tensor, y: Tensor) -> Callable[[], dict[str, Tensor]]:
    own = [network.to(memory_format=torch.channels_last) for network in copy.deepcopy(networks)]  # type: ignore[call-overload]

    def step() -> dict[str, Tensor]:
        for network, images, target in zip(own, x, y, strict=True):
            network.zero_grad()
            _loss(network(images.contiguous(memory_format=torch.channels_last)), target).backward()
        names = [name for name, _ in own[0].named_parameters()]
        return {name: torch.stack([network.get_parameter(name).grad for network in own]) for name in names}

    return step


def _stacked(networks: list[nn.Module], x: Tensor, y: Tensor) -> Callable[[], dict[str, Tensor]]:
    own = copy.deepcopy(networks)
    parameters, buffers = stack_module_state(own)
    skeleton = copy.deepcopy(own[0]).to("meta")

    def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor], images: Tensor, target: Tensor) -> Tensor:
        return _loss(functional_call(skeleton, (parameters, buffers), (images,)), target)

    step = vmap(grad_and_value(loss))
    return lambda: step(parameters, buffers, x, y)[0]


def _difference(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    largest = max(value.detach().abs().max() for value in first.values())
    return float(max((first[name] - second[name]).detach().abs().max() for name in first) / largest)
