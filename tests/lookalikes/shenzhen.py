"""Shenzhen: images named by number and diagnosis, some of them grey stored as RGB; clinical readings beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.lookalikes._drawing import blobs, picture, save_image


def write_lookalike(
    folder: Path, *, subjects: int = 12, size: int = 32, seed: int = 0, lists: bool = False
) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    root = folder / "ChinaSet_AllFiles"
    (root / "ClinicalReadings").mkdir(parents=True)
    listed: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    for number in range(1, subjects + 1):
        ill = int(number > subjects // 2)
        name = f"CHNCXR_{number:04d}_{ill}"
        image = picture(rng, blobs(rng, size, size + number % 4, 2), 255)
        save_image(root / "CXR_png" / f"{name}.png", image, "RGB" if number % 2 else None)
        (root / "ClinicalReadings" / f"{name}.txt").write_text("male 45yrs\n" + ("PTB\n" if ill else "normal\n"))
        listed[("test", "valid", "train", "train")[number % 4]].append(f"{name}.png,{ill}")
    for part, names in listed.items() if lists else ():
        (folder / f"ShenzenCXR_{part}_data.txt").write_text("\n".join(names) + "\n")
    return {"lists": "benchmark"} if lists else {}
