"""What testing a slice costs beside the network."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from raysweep.data.pack import Pack
from raysweep.settings import Backbone
from raysweep.sources.encoder import build_encoder
from raysweep.tasks.segmentation import Segmentation
from tests.benchmarks.measurement import Measurement, alternate
from tests.benchmarks.training_setups import write_cardiac_pack

DESCRIPTION = (
    "Milliseconds to test a slice: reading, metrics and rows of the tables, against the network's forward pass."
)

_ENCODERS = {"small": "test_resnet", "ResNet-18": "resnet18", "ResNet-50": "resnet50"}


def run(quick: bool = False) -> Measurement:
    """Evaluate the same slices with each network, and with predictions that cost nothing, in turn."""
    torch.set_num_threads(1)
    repetitions = 1 if quick else 5
    with tempfile.TemporaryDirectory() as folder:
        pack = write_cardiac_pack(Path(folder), 10 if quick else 40)
        rows_of_split = pack.select(split="test", annotated=True)
        variants = {
            name: _evaluation(pack, encoder) for name, encoder in list(_ENCODERS.items())[: 1 if quick else None]
        }
        variants["none: ready predictions"] = _evaluation(pack, None)
        seconds = alternate(variants, repetitions)
    each = {name: 1000 * value / len(rows_of_split) for name, value in seconds.items()}
    aside = each.pop("none: ready predictions")
    rows: list[dict[str, Any]] = [
        {
            "network": f"U-Net, {name}",
            "ms per slice": value,
            "of which not the network": aside,
            "share %": 100 * aside / value,
        }
        for name, value in each.items()
    ]
    return Measurement(
        rows,
        f"Reading a slice, counting its pixels, scoring it and making its rows take {aside:.1f} ms, "
        f"{rows[-1]['share %']:.0f} % of testing it with the largest network here and {rows[0]['share %']:.0f} % with "
        "the smallest.",
        {
            "slices": f"{len(rows_of_split)} of 216 x 256 pixels, four classes, whole and at native resolution",
            "arithmetic": "float32",
            "metrics": "the task's defaults",
            "repetitions": f"{repetitions} in turn, median, CPU seconds of one process with one thread",
        },
    )


def _evaluation(pack: Pack, encoder: str | None) -> Callable[[], object]:
    settings = Segmentation.Settings.model_validate({"pack": str(pack.path), "metric": "dice"})
    backbone = Backbone(encoder=encoder or "test_resnet", channels=1)
    task = Segmentation(settings, build_encoder(backbone), pack)
    network = task.network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    rows = pack.select(split="test", annotated=True)

    def predict(slices: Tensor) -> Tensor:
        with torch.inference_mode():
            output: Tensor = network(slices.contiguous(memory_format=torch.channels_last))
        return output

    ready: dict[tuple[int, ...], Tensor] = {}

    def ready_predictions(slices: Tensor) -> Tensor:
        shape = (len(slices), len(pack.class_names), *slices.shape[2:])
        if shape not in ready:
            # Close to the truth at little cost: classes by brightness, so that surfaces are as long as real ones.
            levels = torch.linspace(0, 1, len(pack.class_names)).view(1, -1, 1, 1)
            likely = -(slices.mean(1, keepdim=True) - levels).abs()
            ready[shape] = likely.contiguous(memory_format=torch.channels_last)  # as networks return it
        return ready[shape]

    return lambda: task.evaluate(rows, predict if encoder else ready_predictions, "test")
