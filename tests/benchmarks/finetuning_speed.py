"""Images a second of fine-tuning a U-Net."""

from __future__ import annotations

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for its newest version

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import albumentations
import numpy as np
import segmentation_models_pytorch as smp
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from raysweep.data.pack import Pack
from raysweep.stages.finetune import FinetuneLoop
from raysweep.stages.runtime import prepare_runtime
from raysweep.store import Store
from tests.benchmarks.measurement import Measurement, alternate, span
from tests.benchmarks.training_setups import scaled_arrays, stage_of, whole_epoch, write_cardiac_pack

DESCRIPTION = "Fine-tuning images per second: raysweep against albumentations, a DataLoader and the same U-Net."

_SETUPS = {"small": ("test_resnet", 64), "ResNet-18": ("resnet18", 128), "ResNet-50": ("resnet50", 128)}
_BATCHES = (4, 16)
_SAMPLES = 32
_CHANNELS = (256, 128, 64, 32, 16)
_AUTO, _FLOAT32 = "raysweep", "raysweep, float32"
_PEER, _PEER_HALF, _TRANSFORMS = "procedure", "procedure, bfloat16", "transforms"


def run(quick: bool = False) -> Measurement:
    """Train the same samples in every way, in turn."""
    repetitions = 1 if quick else 3
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        pack = write_cardiac_pack(Path(folder), 8)
        store = Store(Path(folder) / "store").prepare()
        for setup in list(_SETUPS)[: 1 if quick else None]:
            for batch_size in _BATCHES[: 1 if quick else None]:
                rows.append(_row(setup, batch_size, store, pack, repetitions))
    return Measurement(rows, _reading(rows), _conditions(repetitions))


def _row(setup: str, batch_size: int, store: Store, pack: Pack, repetitions: int) -> dict[str, Any]:
    encoder, size = _SETUPS[setup]
    taken = pack.select(split="train", annotated=True)[:_SAMPLES]
    variants: dict[str, Callable[[], object]] = {}
    for name, precision in ((_AUTO, "auto"), (_FLOAT32, "float32")):
        changes = {
            "image_size": size,
            "batch_size": batch_size,
            "precision": precision,
            "task": {"loss": "jaccard", "decoder_channels": list(_CHANNELS)},
            "training": {
                "optimisation": {"optimiser": "adam", "lr": 1e-4, "clip_norm": 5.0},
                "augmentation": {
                    "crop_scale": [0.08, 1.0],
                    "flip_p": 0.5,
                    "jitter_p": 0.2,
                    "brightness": 0.2,
                    "contrast": 0.2,
                    "blur_p": 0,
                },
            },
        }
        stage = stage_of("finetune", store, pack, encoder, changes)
        loop = FinetuneLoop(stage, store, prepare_runtime(0, precision, 1), 1)
        loop.rows, loop.steps_per_epoch, loop.history.epoch = taken, len(taken) // batch_size, 1
        variants[name] = whole_epoch(loop)
    batches = _loader(pack, taken, size, batch_size)
    variants[_PEER] = _peer_epoch(encoder, batches, torch.float32)
    variants[_PEER_HALF] = _peer_epoch(encoder, batches, torch.bfloat16)
    variants[_TRANSFORMS] = lambda: [None for _ in batches]
    seconds = alternate(variants, repetitions)
    rate = {name: _SAMPLES / value for name, value in seconds.items()}
    return {
        "encoder": setup,
        "batch": batch_size,
        "raysweep images/s": rate[_AUTO],
        "in float32": rate[_FLOAT32],
        "procedure images/s": rate[_PEER],
        "in bfloat16": rate[_PEER_HALF],
        "faster by": rate[_AUTO] / rate[_PEER],
        "both float32": rate[_FLOAT32] / rate[_PEER],
        "both bfloat16": rate[_AUTO] / rate[_PEER_HALF],
        "transforms' share of the procedure %": 100 * seconds[_TRANSFORMS] / seconds[_PEER],
    }


class _Slices(Dataset[Any]):
    """Scaled slices and masks in memory, each transformed when it is asked for."""

    def __init__(self, pack: Pack, rows: np.ndarray, size: int) -> None:
        self._slices = scaled_arrays(pack, rows)
        self._masks = [np.array(pack.mask(int(row))) for row in rows]
        self._transform = albumentations.Compose(
            [
                albumentations.RandomResizedCrop(size=(size, size)),
                albumentations.HorizontalFlip(p=0.5),
                albumentations.RandomBrightnessContrast(p=0.2),
            ]
        )

    def __len__(self) -> int:
        return len(self._slices)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        changed = self._transform(image=self._slices[index][..., None], mask=self._masks[index])
        image = torch.from_numpy(np.ascontiguousarray(changed["image"].reshape(changed["mask"].shape)))
        return ((image - 0.5) / 0.25)[None], torch.from_numpy(changed["mask"]).long()


def _loader(pack: Pack, rows: np.ndarray, size: int, batch_size: int) -> DataLoader[Any]:
    return DataLoader(_Slices(pack, rows, size), batch_size=batch_size, shuffle=True, drop_last=True)


def _peer_epoch(encoder: str, batches: DataLoader[Any], dtype: torch.dtype) -> Callable[[], object]:
    torch.manual_seed(0)
    network = smp.Unet(f"tu-{encoder}", encoder_weights=None, in_channels=1, classes=4, decoder_channels=_CHANNELS)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-4)
    criterion = smp.losses.JaccardLoss("multiclass")

    def epoch() -> None:
        torch.use_deterministic_algorithms(False)
        network.train()
        for images, masks in batches:
            with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
                loss = criterion(network(images), masks)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimiser.step()
        torch.use_deterministic_algorithms(True)

    return epoch


def _reading(rows: list[dict[str, Any]]) -> str:
    parts = [
        f"With the {setup} encoder raysweep trains {span(rows, 'faster by', setup)} times as many images a second as "
        f"the procedure in float32, {span(rows, 'both bfloat16', setup)} times where both compute in bfloat16."
        for setup in dict.fromkeys(row["encoder"] for row in rows)
    ]
    share = max(row["transforms' share of the procedure %"] for row in rows)
    return " ".join(
        [
            *parts,
            f"Its transforms take at most {share:.0f} % of its time on one core, so what they cost limits what can be "
            "gained there; the rest is arithmetic of the network (memory order, bfloat16, fused optimiser).",
        ]
    )


def _conditions(repetitions: int) -> dict[str, Any]:
    return {
        "procedure": "that of Kalapos & Gyires-Toth 2022: random resized crop, flip 0.5, brightness and contrast with "
        "probability 0.2 (albumentations 2.0.8, slice by slice), DataLoader in the same process, U-Net of "
        "segmentation-models-pytorch with a timm encoder, Jaccard loss, Adam 1e-4, gradients clipped at 5; its "
        "slices are in memory already, and it uses no deterministic algorithms",
        "raysweep": "the same network, loss, optimiser and transformations; precision auto unless the column says "
        "float32; deterministic",
        "sizes": ", ".join(f"{setup} {size} px" for setup, (_, size) in _SETUPS.items()),
        "data": f"{_SAMPLES} synthetic cardiac slices of 216 x 256 pixels an epoch",
        "repetitions": f"{repetitions} epochs in turn, median, CPU seconds of one process with one thread",
    }
