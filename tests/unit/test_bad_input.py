"""Every kind of bad input: which error, what its message names, and that nothing is left behind."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from raysweep.datasets import synthetic_cardiac
from raysweep.errors import PackError, RaysweepError, StudyError, WeightsError
from raysweep.store import Store
from raysweep.study import Study
from raysweep.sweep import run

RANDOM_ONLY = {"grid.source": ["random"], "grid.method": [], "grid.pretrain_epochs": []}


@dataclass(frozen=True)
class Case:
    """One kind of bad input: what makes it, the error, and what the message must say."""

    name: str
    changes: Callable[[Path], dict[str, Any]]
    error: type[RaysweepError]
    says: tuple[str, ...]


def raw_cardiac(folder: Path, damage: Callable[[Path], None]) -> dict[str, Any]:
    synthetic_cardiac.generate(
        folder / "raw", synthetic_cardiac.Options(patients=4, slices=2, frames=3, size_px=(40, 48))
    )
    damage(folder / "raw")
    return {"packs.cardiac": {"dataset": "acdc", "source": str(folder / "raw")}}


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray], dtype=None) -> None:
    image = nibabel.load(path)
    array = change(np.asarray(image.dataobj).copy())
    nibabel.save(nibabel.Nifti1Image(array if dtype is None else array.astype(dtype), image.affine), path)


def frame(raw: Path, kind: str = "") -> Path:
    return raw / "patient001" / f"patient001_frame01{kind}.nii.gz"


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def with_nan(array: np.ndarray) -> np.ndarray:
    array = array.astype(np.float32)
    array[3, 3, 0] = np.nan
    return array


def corrupt_pack(folder: Path) -> dict[str, Any]:
    (folder / "cardiac.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 500)
    return {"packs.cardiac.file": str(folder / "cardiac.h5")}


def other_weights(folder: Path) -> dict[str, Any]:
    import timm

    torch.save(timm.create_model("resnet18", in_chans=1).state_dict(), folder / "w.pth")
    return {"sources.random": {"weights": str(folder / "w.pth")}}


CASES = [
    Case("unknown key", lambda _: {"grid.seeds": [0]}, StudyError, ("grid.seeds", "'seed'", "Allowed:")),
    Case("unknown name", lambda _: {"grid.source": ["randm"]}, StudyError, ("grid.source", "'randm'", "'random'")),
    Case(
        "unknown encoder", lambda _: {"backbones.small.encoder": "resnet18x"}, StudyError, ("'resnet18x'", "'resnet18'")
    ),
    Case(
        "windows that a network does not take",
        lambda _: {
            "backbones.small": {"encoder": "test_vit", "options": {"patch_size": 14, "img_size": 224}},
            "tasks.heart.architecture": "dpt",
            "tasks.heart.training.image_size": 224,
            "tasks.heart.evaluation.window_px": 96,
        },
        StudyError,
        ("tasks.heart", "height=96", "divisible by 14"),
    ),
    Case(
        "size that an encoder does not take",
        lambda _: {
            "backbones.small": {"encoder": "vit_tiny_patch16_224", "options": {"patch_size": 64}},
            "tasks.heart.architecture": "dpt",
            "tasks.heart.training.image_size": 128,
            "grid": {
                "source": ["cardiac"],
                "method": ["simclr"],
                "pretrain_epochs": [1],
                "annotations": [4],
                "seed": [0],
            },
        },
        StudyError,
        ("'vit_tiny_patch16_224'", "does not take slices of 32 x 32 pixels", "patches of 64"),
    ),
    Case("empty grid", lambda _: {"grid.seed": []}, StudyError, ("grid.seed", "[]", "at least 1")),
    Case("contradiction", lambda _: {"grid.method": ["byol"]}, StudyError, ("grid.method", "no source", "remove")),
    Case(
        "missing pack",
        lambda f: {"packs.cardiac.file": str(f / "no.h5")},
        PackError,
        ("packs.cardiac", "no.h5", "raysweep pack"),
    ),
    Case("corrupt pack", corrupt_pack, PackError, ("packs.cardiac", "cardiac.h5", "pack the data set again")),
    Case(
        "too many annotations",
        lambda _: {"grid.annotations": [33]},
        StudyError,
        ("grid.annotations", "33", "1 to 32", "'cardiac'"),
    ),
    Case(
        "weights of another encoder", other_weights, WeightsError, ("w.pth", "of its", "keys matched", "'test_resnet'")
    ),
    Case(
        "weights missing",
        lambda f: {"sources.random": {"weights": str(f / "no.pt")}},
        StudyError,
        ("no.pt", "cannot be read"),
    ),
    Case(
        "mask of another shape",
        lambda f: raw_cardiac(f, lambda raw: rewrite(frame(raw, "_gt"), lambda a: a[:-1])),
        PackError,
        ("packs.cardiac", "patient001_frame01_gt"),
    ),
    Case(
        "mask with a label that is no class",
        lambda f: raw_cardiac(f, lambda raw: rewrite(frame(raw, "_gt"), lambda a: a + 7)),
        PackError,
        ("packs.cardiac", "patient001_frame01_gt", "7"),
    ),
    Case(
        "truncated NIfTI",
        lambda f: raw_cardiac(f, lambda raw: truncated(raw / "patient001" / "patient001_4d.nii.gz")),
        PackError,
        ("packs.cardiac", "patient001_4d.nii.gz"),
    ),
    Case(
        "NaN in a slice",
        lambda f: raw_cardiac(f, lambda raw: rewrite(raw / "patient001" / "patient001_4d.nii.gz", with_nan)),
        PackError,
        ("packs.cardiac", "patient001_4d.nii.gz has nan at row 3, column 3 of slice 0", "finite"),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_refused_before_anything_runs_and_leaves_nothing(case, tiny_study: Callable[..., Study], tmp_path):
    store = Store(tmp_path / "store").prepare()
    with pytest.raises(case.error) as caught:
        run(tiny_study({**RANDOM_ONLY, **case.changes(tmp_path)}), store=store, executor="inline")
    message = str(caught.value)
    for text in case.says:
        assert re.search(re.escape(text), message), f"{text!r} is not in: {message}"
    for folder in ("ledger", "results", "snapshots", "resume", "weights"):
        assert store.list(folder) == []
    packs = store.local_path("packs")
    assert not packs.exists() or not list(packs.iterdir())
