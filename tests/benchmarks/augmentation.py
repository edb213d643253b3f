"""Two SimCLR views of a batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from raysweep.data import augment
from raysweep.settings import Augmentation
from tests.benchmarks.measurement import Measurement, alternate

DESCRIPTION = "Two SimCLR views of grey slices: batched here, per image in lightly and torchvision."

_BATCH = 64
_SOURCE_PX, _VIEW_PX = 256, 128
_OURS, _LIGHTLY, _TORCHVISION = "raysweep, batched", "lightly SimCLRTransform, PIL, grey", "torchvision v2, per image"


def run(quick: bool = False) -> Measurement:
    """Make two views of the same batch in every way, in turn."""
    torch.set_num_threads(1)
    repetitions = 2 if quick else 9
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((_BATCH, 1, 32, 32), dtype=np.float32))
    slices = torch.nn.functional.interpolate(coarse, (_SOURCE_PX, _SOURCE_PX), mode="bilinear")
    seconds = alternate(
        {_OURS: _ours(slices), _LIGHTLY: _lightly(slices), _TORCHVISION: _torchvision(slices)}, repetitions
    )
    rates = {name: _BATCH / value for name, value in seconds.items()}
    rows = [
        {
            "way": name,
            "images/s per core": rate,
            "core-ms per image": 1000 / rate,
            "raysweep is faster by": rates[_OURS] / rate,
        }
        for name, rate in rates.items()
    ]
    return Measurement(
        rows,
        f"One core makes two views of {rates[_OURS]:,.0f} slices a second, {rates[_OURS] / rates[_LIGHTLY]:.1f} "
        f"times as many as with lightly's transform and {rates[_OURS] / rates[_TORCHVISION]:.1f} times as many as "
        "with torchvision's.",
        {
            "work": f"two views of {_BATCH} slices, {_SOURCE_PX} to {_VIEW_PX} pixels: random resized crop (area "
            "0.2 to 1), flip 0.5, brightness and contrast 0.4 with probability 0.8, blur of 0.1 to 2 pixels with "
            "probability 0.5",
            "input": "float32 slices; 8-bit PIL images for lightly, which converts floats to 8 bits",
            "left out": "gamma jitter, which the others do not have, is off",
            "repetitions": f"{repetitions} in turn, median, CPU seconds of one process with one thread",
        },
    )


def _ours(slices: Tensor) -> Callable[[], object]:
    settings = Augmentation(
        crop_scale=(0.2, 1.0),
        flip_p=0.5,
        jitter_p=0.8,
        brightness=0.4,
        contrast=0.4,
        gamma=0.0,
        blur_p=0.5,
        blur_sigma_px=(0.1, 2.0),
    )
    shapes = torch.tensor([[_SOURCE_PX, _SOURCE_PX]] * _BATCH)
    generator = torch.Generator().manual_seed(0)

    def views() -> list[Tensor]:
        return [augment.apply(slices, augment.draw(settings, shapes, generator), _VIEW_PX) for _ in range(2)]

    return views


def _lightly(slices: Tensor) -> Callable[[], object]:
    from lightly.transforms import SimCLRTransform
    from PIL import Image

    transform = SimCLRTransform(
        _VIEW_PX,
        cj_prob=0.8,
        cj_bright=0.4,
        cj_contrast=0.4,
        cj_sat=0.0,
        cj_hue=0.0,
        min_scale=0.2,
        random_gray_scale=0.0,
        gaussian_blur=0.5,
        sigmas=(0.1, 2.0),
        normalize={"mean": [0.5], "std": [0.25]},
    )
    images = [Image.fromarray((one[0].numpy() * 255).astype(np.uint8)) for one in slices]
    return lambda: [torch.stack(views) for views in zip(*(transform(image) for image in images), strict=True)]


def _torchvision(slices: Tensor) -> Callable[[], object]:
    from torchvision.transforms import v2

    transform = v2.Compose(
        [
            v2.RandomResizedCrop(_VIEW_PX, scale=(0.2, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4)], 0.8),
            v2.RandomApply([v2.GaussianBlur(13, (0.1, 2.0))], 0.5),
        ]
    )
    return lambda: [torch.stack([transform(one) for one in slices]) for _ in range(2)]
