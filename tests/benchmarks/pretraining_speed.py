"""Images a second of self-supervised pretraining."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from raysweep.data.augment import apply, draw
from raysweep.data.pack import Pack
from raysweep.data.reader import SliceReader
from raysweep.data.slices import normalised
from raysweep.settings import Backbone
from raysweep.sources.encoder import build_encoder
from raysweep.stages.pretrain import PretrainLoop
from raysweep.stages.runtime import prepare_runtime
from raysweep.store import Store
from tests.benchmarks.lightly_peers import PEERS, loader
from tests.benchmarks.measurement import Measurement, alternate, span
from tests.benchmarks.training_setups import scaled_arrays, stage_of, whole_epoch, write_cardiac_pack

DESCRIPTION = "Pretraining images per second: raysweep against lightly's transforms, DataLoader, heads and losses."

_SETUPS = {"small": ("test_resnet", 64, 64), "ResNet-18": ("resnet18", 128, 32)}
_SIZES = {"hidden": 1024, "output": 256, "queue": 256, "bottleneck": 256, "prototypes": 1024}
_SETTINGS: dict[str, dict[str, Any]] = {
    "simclr": {},
    "byol": {"hidden_features": _SIZES["hidden"], "output_features": _SIZES["output"]},
    "moco-v2": {"queue_size": _SIZES["queue"]},
    "barlow-twins": {"hidden_features": _SIZES["hidden"], "output_features": _SIZES["output"]},
    "dino": {
        "hidden_features": _SIZES["hidden"],
        "bottleneck_features": _SIZES["bottleneck"],
        "num_prototypes": _SIZES["prototypes"],
        "num_small_crops": 6,
    },
}
_AUTO, _FLOAT32, _LIGHTLY = "raysweep", "raysweep, float32", "lightly"
_VIEWS, _THEIR_VIEWS = "views", "lightly's views"


def run(quick: bool = False) -> Measurement:
    """Train epochs of every method in both, in turn, and make the views alone."""
    repetitions, batches = (1, 1) if quick else (3, 2)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        pack = write_cardiac_pack(Path(folder), 20)
        store = Store(Path(folder) / "store").prepare()
        for setup in list(_SETUPS)[: 1 if quick else None]:
            for method in list(PEERS)[: 1 if quick else None]:
                rows.append(_row(setup, method, store, pack, batches, repetitions))
    return Measurement(rows, _reading(rows), _conditions(repetitions, batches))


def _row(setup: str, method: str, store: Store, pack: Pack, batches: int, repetitions: int) -> dict[str, Any]:
    encoder, size, batch_size = _SETUPS[setup]
    taken = pack.select(split="train")[: batches * batch_size]
    slices = scaled_arrays(pack, taken)
    loops = {}
    for name, precision in ((_FLOAT32, "float32"), (_AUTO, "auto")):
        changes = {
            "method": method,
            "settings": _SETTINGS[method],
            "image_size": size,
            "batch_size": batch_size,
            "precision": precision,
        }
        stage = stage_of("pretrain", store, pack, encoder, changes)
        loops[name] = _loop(PretrainLoop(stage, store, prepare_runtime(0, precision, 1), 1), taken)
    images = batches * batch_size
    variants = {
        **{name: whole_epoch(loop) for name, loop in loops.items()},
        _LIGHTLY: _lightly_epoch(method, encoder, size, slices, batch_size),
        _VIEWS: _our_views(loops[_AUTO], batch_size),
        _THEIR_VIEWS: _exhaust(loader(slices, PEERS[method].transform(size), batch_size)),
    }
    seconds = alternate(variants, repetitions)
    rate = {name: images / value for name, value in seconds.items()}
    return {
        "encoder": setup,
        "method": method,
        "raysweep images/s": rate[_AUTO],
        "in float32": rate[_FLOAT32],
        "lightly images/s": rate[_LIGHTLY],
        "faster by": rate[_AUTO] / rate[_LIGHTLY],
        "in float32 by": rate[_FLOAT32] / rate[_LIGHTLY],
        "views faster by": rate[_VIEWS] / rate[_THEIR_VIEWS],
        "views' share, raysweep %": 100 * seconds[_VIEWS] / seconds[_AUTO],
        "views' share, lightly %": 100 * seconds[_THEIR_VIEWS] / seconds[_LIGHTLY],
    }


def _loop(loop: PretrainLoop, rows: np.ndarray) -> PretrainLoop:
    """Have a loop train on these rows alone, so that an epoch is as many steps for all."""
    loop.rows, loop.positions = rows, loop.positions[: len(rows)]
    loop.steps_per_epoch = len(rows) // loop.batch_size
    loop.history.epoch = 1
    return loop


def _our_views(loop: PretrainLoop, batch_size: int) -> Callable[[], object]:
    reader, generator = SliceReader(loop.pack), torch.Generator().manual_seed(0)

    def views() -> None:
        for ids in torch.randperm(len(loop.rows), generator=generator).split(batch_size):
            rows = loop.rows[ids.numpy()]
            slices, shapes = reader.slices(rows), reader.shapes(rows)
            for view in loop.method.views():
                parameters = draw(view.augmentation, shapes, generator)
                normalised(apply(slices, parameters, view.size_px or loop.image_size), loop.normalisation)

    return views


def _exhaust(batches: Any) -> Callable[[], object]:
    return lambda: [None for _ in batches]


def _lightly_epoch(
    method: str, encoder_name: str, size: int, slices: list[np.ndarray], batch_size: int
) -> Callable[[], object]:
    torch.manual_seed(0)
    encoder = build_encoder(Backbone(encoder=encoder_name, channels=1))
    model: nn.Module = PEERS[method].build(encoder, encoder.num_features, _SIZES)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    batches = loader(slices, PEERS[method].transform(size), batch_size)

    def epoch() -> None:
        torch.use_deterministic_algorithms(False)
        for views in batches:
            loss = model(views)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        torch.use_deterministic_algorithms(True)

    return epoch


def _reading(rows: list[dict[str, Any]]) -> str:
    parts = [
        f"With the {setup} encoder raysweep trains {span(rows, 'faster by', setup)} times as many images a second as "
        f"lightly's pipeline, {span(rows, 'in float32 by', setup)} times in float32; it makes views "
        f"{span(rows, 'views faster by', setup)} times as fast."
        for setup in dict.fromkeys(row["encoder"] for row in rows)
    ]
    return " ".join(
        [
            *parts,
            "What limits the rest is the arithmetic of forward and backward passes: views are the smaller part of a "
            "step in both, and bfloat16, which this CPU multiplies natively, is what makes that arithmetic faster.",
        ]
    )


def _conditions(repetitions: int, batches: int) -> dict[str, Any]:
    return {
        "data": "synthetic cardiac slices of 216 x 256 pixels; from the pack here, as 8-bit grey images that are "
        "already in memory for lightly (no decoding)",
        "small": "test_resnet, views of 64 pixels, batches of 64",
        "ResNet-18": "views of 128 pixels, batches of 32",
        "heads": f"equal widths in both: {_SIZES}",
        "lightly": "its default transforms for one channel (three would be slower), DataLoader in the same process, "
        "float32, no deterministic algorithms, AdamW; update of the momentum encoder in every step as in its examples",
        "raysweep": "precision auto, unless the column says float32; each method's default views; deterministic",
        "dino": "two large and six small views of half the size in both",
        "repetitions": f"{repetitions} epochs of {batches} batches in turn, median, CPU seconds of one process with "
        "one thread",
    }
