"""A small study on real images with real ImageNet weights, where a checkout has them beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raysweep.errors import WeightsError
from raysweep.study.load import validate_study
from raysweep.sweep import run

SHARED = Path(__file__).parents[3] / "shared"
NUCLEI = SHARED / "data" / "nuclei"
WEIGHTS = SHARED / "weights"

pytestmark = pytest.mark.skipif(
    not NUCLEI.is_dir() or not WEIGHTS.is_dir(),
    reason="no ../shared beside this checkout: its nuclei images and ImageNet weights are not part of the project",
)


def study(weights: Path) -> dict[str, Any]:
    normalisation = {"mean": 0.5, "std": 0.5}
    return {
        "study": "nuclei",
        "packs": {"nuclei": {"dataset": "folder", "source": str(NUCLEI)}},
        "backbones": {"mobilenet": {"encoder": "mobilenetv2_035", "options": {"pad_type": "same", "bn_eps": 0.001}}},
        "sources": {
            "random": "random",
            "imagenet": {"weights": {"file": str(weights), "normalisation": normalisation}},
        },
        "tasks": {
            "nuclei": {
                "kind": "segmentation",
                "pack": "nuclei",
                "decoder_channels": [32, 24, 16, 16, 8],
                "training": {
                    "epochs": 2,
                    "batch_size": 8,
                    "image_size": 64,
                    "evaluate_every": 2,
                    "augmentation": {"crop_scale": [0.06, 0.12], "vertical_flip_p": 0.5, "jitter_p": 0, "blur_p": 0},
                    "optimisation": {"lr": 0.002},
                },
            }
        },
        "grid": {"source": ["random", "imagenet"], "annotations": [20], "seed": [0]},
    }


def test_real_imagenet_weights_beat_random_ones_on_real_nuclei(tmp_path: Path) -> None:
    weights = WEIGHTS / "mobilenetv2_035_imagenet.pt"
    done = run(validate_study(study(weights)), store=tmp_path / "store", executor="inline")
    scores = {row["source"]: row["test_score"] for row in done.tables().trials().to_pylist()}
    assert done.outcome.is_complete
    assert 0.2 < scores["random"] < scores["imagenet"] < 0.95


def test_foreign_checkpoint_is_refused_before_anything_runs(tmp_path: Path) -> None:
    foreign = WEIGHTS / "resnet20_cifar10_module_prefix.th"
    with pytest.raises(WeightsError, match=r"do not fit encoder 'mobilenetv2_035': 4 of its 255 keys matched"):
        run(validate_study(study(foreign)), store=tmp_path / "store", executor="inline")
    assert not (tmp_path / "store" / "ledger").exists()
