"""What a training step spends on anything but the network."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from raysweep.data.pack import Pack
from raysweep.stages.run import run_stage
from raysweep.store import Store
from tests.benchmarks.measurement import Measurement
from tests.benchmarks.training_setups import stage_of, write_cardiac_pack

DESCRIPTION = "Share of a training step that is neither forward nor backward pass, by phase, as run --profile has it."

_SETUPS = {
    "small": ("test_resnet", 64, 16, 10),
    "ResNet-18": ("resnet18", 128, 16, 3),
    "ResNet-50": ("resnet50", 128, 16, 2),
}
_ASIDE = ("data", "optimiser", "other")


def run(quick: bool = False) -> Measurement:
    """Profile one stage of each kind with each encoder."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        pack = write_cardiac_pack(Path(folder), 16)
        store = Store(Path(folder) / "store").prepare()
        for setup in list(_SETUPS)[: 1 if quick else None]:
            for kind, method in (("pretrain", "simclr"), ("pretrain", "byol"), ("finetune", "")):
                rows.append(_row(setup, kind, method, store, pack))
    worst = max(rows, key=lambda row: row["beside it and augmentation %"])
    within = sum(row["beside it and augmentation %"] < 5 for row in rows)
    return Measurement(
        rows,
        f"In {within} of {len(rows)} trainings less than 5 % of a step is neither forward or backward pass nor "
        f"augmentation; the largest share, {worst['beside it and augmentation %']:.1f} %, has the "
        f"{worst['encoder']} encoder in {worst['training']}, where the optimiser takes {worst['optimiser %']:.1f} %.",
        {
            "sizes": ", ".join(
                f"{name} {size} px, batches of {batch}, {epochs} epochs"
                for name, (_, size, batch, epochs) in _SETUPS.items()
            ),
            "epochs": "of six steps each, so that what ends an epoch weighs more than it usually does",
            "data": "slices of 216 x 256 uint16 pixels from a pack",
            "optimiser": "AdamW, and the update of the momentum encoder in byol (heads of 1024 and 256 features)",
            "other": "what no phase accounts for: schedule, sums of metrics, the loop itself, and what ends an epoch: "
            "the effective rank of features",
            "clock": "wall time of phases within one run, one thread, without the first five steps",
        },
    )


def _row(setup: str, kind: str, method: str, store: Store, pack: Pack) -> dict[str, Any]:
    encoder, size, batch_size, epochs = _SETUPS[setup]
    changes: dict[str, Any] = {"image_size": size, "batch_size": batch_size, "epochs": epochs}
    if method:
        narrow = {"hidden_features": 1024, "output_features": 256} if method == "byol" else {}
        changes |= {"method": method, "settings": narrow}
    stage = stage_of(kind, store, pack, encoder, changes)
    for _ in run_stage(replace(stage, profile=True), store, threads=1, attempt=1):
        pass
    found = json.loads(store.read_bytes(store.profile_path(stage.id, "breakdown.json")) or b"")
    seconds, whole = found["phases_s"], found["steps_s"]
    share = {name: 100 * seconds[name] / whole for name in ("data", "augmentation", "forward", "backward", "optimiser")}
    share["other"] = 100 - sum(share.values())
    return {
        "encoder": setup,
        "training": f"pretrain, {method}" if method else "finetune, U-Net",
        "ms per step": 1000 * whole / found["steps"],
        **{f"{name} %": value for name, value in share.items()},
        "beside it and augmentation %": sum(share[name] for name in _ASIDE),
    }
