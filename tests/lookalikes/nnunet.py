"""nnU-Net raw format: two channels of different type and scale, regions or plain labels, a test set or none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.lookalikes._drawing import blobs, picture, save_image, save_nifti


def write_lookalike(
    folder: Path,
    *,
    subjects: int = 6,
    size: int = 24,
    seed: int = 0,
    labels: dict[str, Any] | None = None,
    ending: str = ".nii.gz",
    test_set: bool = True,
    flips: tuple[int, int, int] = (-1, -1, 1),
) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    labels = labels or {"background": 0, "edema": 1, "core": 2}
    settings = {
        "channel_names": {"0": "T1", "1": "FLAIR"},
        "labels": labels,
        "numTraining": subjects,
        "file_ending": ending,
    }
    (folder / "dataset.json").write_text(json.dumps(settings))
    for number in range(subjects):
        part = "Ts" if test_set and number >= subjects - 2 else "Tr"
        masks = blobs(rng, size, size + 4, 2)
        truth = np.tensordot([1, 2], masks, axes=1).astype(np.uint8)
        for channel, (highest, dtype) in enumerate(((200, np.uint8), (4000, np.int16))):
            image = picture(rng, masks, highest, np.uint8 if ending == ".png" else dtype)
            path = folder / f"images{part}" / f"case_{number:03d}_{channel:04d}{ending}"
            _save(path, image, ending, flips)
        _save(folder / f"labels{part}" / f"case_{number:03d}{ending}", truth, ending, flips)
    return {}


def _save(path: Path, image: np.ndarray, ending: str, flips: tuple[int, int, int]) -> None:
    if ending == ".png":
        save_image(path, image.astype(np.uint8))
    else:
        save_nifti(path, np.stack([image.T, image.T[::-1], image.T[:, ::-1]], axis=-1), (0.9, 1.1, 3.0), flips)
