"""What testing a slice costs beside the network."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from raysweep.data.pack import Pack
from raysweep.data.slices import same_shape_batches
from raysweep.settings import Backbone
from raysweep.sources.encoder import build_encoder
from raysweep.tasks.segmentation import Segmentation
from tests.benchmarks.measurement import Measurement, alternate
from tests.benchmarks.training_setups import write_cardiac_pack

DESCRIPTION = "Milliseconds to test a slice: reading, overlap, surface distances, against the network's forward pass."

_ENCODERS = {"small": "test_resnet", "ResNet-18": "resnet18", "ResNet-50": "resnet50"}
_OVERLAP, _SURFACES = "overlap alone", "with HD95 and surface Dice"
_BATCH = 16


def run(quick: bool = False) -> Measurement:
    """Evaluate the same slices with each network, and with predictions that cost nothing, in turn."""
    torch.set_num_threads(1)
    repetitions = 1 if quick else 3
    with tempfile.TemporaryDirectory() as folder:
        pack = write_cardiac_pack(Path(folder), 10 if quick else 20)
        num_slices = len(pack.select(split="test", annotated=True))
        variants: dict[str, Callable[[], object]] = {
            name: _with_network(pack, encoder) for name, encoder in list(_ENCODERS.items())[: 1 if quick else None]
        }
        variants[_OVERLAP] = _with_ready_predictions(pack, ())
        variants[_SURFACES] = _with_ready_predictions(pack, (2.0,))
        seconds = alternate(variants, repetitions)
    each = {name: 1000 * value / num_slices for name, value in seconds.items()}
    overlap, surfaces = each.pop(_OVERLAP), each.pop(_SURFACES)
    rows: list[dict[str, Any]] = [
        {
            "network": f"U-Net, {name}",
            "forward ms": value - overlap,
            "reading and overlap ms": overlap,
            "surfaces ms": surfaces - overlap,
            "not the network, overlap alone %": 100 * overlap / value,
            "not the network, with surfaces %": 100 * surfaces / (value + surfaces - overlap),
        }
        for name, value in each.items()
    ]
    return Measurement(
        rows,
        f"Reading a slice, counting its pixels, scoring it and making its rows take {overlap:.1f} ms; HD95 and surface "
        f"Dice of its three structures {surfaces - overlap:.1f} ms more, where a study asks for them, and then of the "
        f"test split alone. The forward pass of the U-Nets here takes {rows[0]['forward ms']:.0f} to "
        f"{rows[-1]['forward ms']:.0f} ms on a core in float32.",
        {
            "slices": f"{num_slices} of 216 x 256 pixels, four classes, whole and at native resolution",
            "predictions": "for reading and metrics: the truth, moved by two pixels",
            "repetitions": f"{repetitions} in turn, median, CPU seconds of one process with one thread",
        },
    )


def _task(pack: Pack, encoder: str, nsd_mm: tuple[float, ...]) -> Segmentation:
    settings = Segmentation.Settings.model_validate({"pack": str(pack.path), "evaluation": {"nsd_mm": nsd_mm}})
    return Segmentation(settings, build_encoder(Backbone(encoder=encoder, channels=1)), pack)


def _with_network(pack: Pack, encoder: str) -> Callable[[], object]:
    task = _task(pack, encoder, ())
    network = task.network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    rows = pack.select(split="test", annotated=True)

    def predict(slices: Tensor) -> Tensor:
        with torch.inference_mode():
            output: Tensor = network(slices.contiguous(memory_format=torch.channels_last))
        return output

    return lambda: task.evaluate(rows, predict, "test")


def _with_ready_predictions(pack: Pack, nsd_mm: tuple[float, ...]) -> Callable[[], object]:
    task = _task(pack, "test_resnet", nsd_mm)
    rows = pack.select(split="test", annotated=True)
    ready = [_logits(pack, batch) for batch in same_shape_batches(pack, rows, _BATCH)]
    in_order = itertools.cycle(ready)

    def predict(slices: Tensor) -> Tensor:
        logits = next(in_order)
        height, width = (given - own for given, own in zip(slices.shape[-2:], logits.shape[-2:], strict=True))
        return F.pad(logits, (0, width, 0, height))

    return lambda: task.evaluate(rows, predict, "test")


def _logits(pack: Pack, rows: np.ndarray) -> Tensor:
    moved = torch.from_numpy(pack.masks(rows)).long().roll((2, 2), (1, 2))
    one_hot = F.one_hot(moved, len(pack.class_names)).float()
    return one_hot.movedim(-1, 1)  # in the memory order of channels_last, as networks return it
