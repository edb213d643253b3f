"""What computing the features of a frozen encoder once saves."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from raysweep.data.pack import Pack
from raysweep.identity import content_id
from raysweep.planning import Stage
from raysweep.stages import frozen_features
from raysweep.stages.finetune import FinetuneLoop
from raysweep.stages.run import run_stage
from raysweep.store import Store
from tests.benchmarks.measurement import Measurement
from tests.benchmarks.training_setups import stage_of, write_cardiac_pack

DESCRIPTION = "Decoder probes on a frozen encoder: features computed once and shared, or in every step and epoch."

_WHOLE = {"crop_scale": [1, 1], "flip_p": 0, "jitter_p": 0, "blur_p": 0}
_RANDOM = {"crop_scale": [0.5, 1], "flip_p": 0.5, "jitter_p": 0, "blur_p": 0}
_ENCODERS = {"ResNet-18": "resnet18", "ResNet-50": "resnet50"}


def run(quick: bool = False) -> Measurement:
    """Run two annotation counts of one frozen encoder, with and without sharing."""
    epochs = 1 if quick else 4
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        pack = write_cardiac_pack(Path(folder), 10)
        for name, encoder in list(_ENCODERS.items())[: 1 if quick else None]:
            for augmentation, settings in (("none", _WHOLE), ("crops and flips", _RANDOM)):
                rows.append(_row(name, encoder, augmentation, settings, epochs, pack, Path(folder)))
    first = [row["first stage faster by"] for row in rows]
    later = [row["second stage faster by"] for row in rows]
    return Measurement(
        rows,
        f"The first stage of an encoder is {min(first):.1f} to {max(first):.1f} times as fast when features are "
        f"computed once, a later one {min(later):.1f} to {max(later):.1f} times. Validation and test slices share them "
        "whatever the augmentation; training slices only where it leaves them whole. What remains is the decoder.",
        {
            "stages": f"{epochs} epochs of a U-Net decoder at 128 pixels, batches of 8, 32 steps an epoch at most, "
            "validated after each, tested at the end; slices of 216 x 256 pixels",
            "second stage": "the same with half the annotations, in the same process",
            "clock": "CPU seconds of one process with one thread, one run each",
        },
    )


def _row(
    name: str, encoder: str, augmentation: str, settings: dict[str, Any], epochs: int, pack: Pack, folder: Path
) -> dict[str, Any]:
    changes = {
        "image_size": 128,
        "batch_size": 8,
        "epochs": epochs,
        "tuning": "frozen",
        "training": {"augmentation": settings},
    }
    taken: dict[bool, list[float]] = {}
    for shares in (False, True):
        store = Store(folder / f"{encoder}-{augmentation}-{shares}").prepare()
        stage = stage_of("finetune", store, pack, encoder, changes)
        frozen_features.forget_all()
        if shares:
            taken[shares] = [_seconds(one, store) for one in (stage, _with_half(stage))]
        else:
            with patch.object(FinetuneLoop, "_share_features", lambda self: None):
                taken[shares] = [_seconds(one, store) for one in (stage, _with_half(stage))]
    frozen_features.forget_all()
    return {
        "encoder": name,
        "augmentation": augmentation,
        "first stage s": taken[True][0],
        "without sharing s": taken[False][0],
        "first stage faster by": taken[False][0] / taken[True][0],
        "second stage s": taken[True][1],
        "second without s": taken[False][1],
        "second stage faster by": taken[False][1] / taken[True][1],
    }


def _with_half(stage: Stage) -> Stage:
    config = {**stage.config, "annotations": stage.config["annotations"] // 2}
    return replace(stage, id=content_id(config), config=config)


def _seconds(stage: Stage, store: Store) -> float:
    begin = time.process_time()
    for _ in run_stage(stage, store, threads=1, attempt=1):
        pass
    return time.process_time() - begin
