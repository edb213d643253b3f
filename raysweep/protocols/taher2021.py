"""Hosseinzadeh Taher et al. 2021: transfer of pretrained ResNet-50s to seven medical tasks.

Source: A Systematic Benchmarking Analysis of Transfer Learning for Medical Image Analysis, arXiv:2108.05930, and the
public code.
"""

from __future__ import annotations

from raysweep.protocols._protocol import Paper, SameAs, Switch

PAPER = Paper(
    title="Hosseinzadeh Taher et al. 2021",
    switches=(
        Switch(
            "no-seeds",
            "no run is seeded",
            "every random number of a run follows from its seed",
            {"seeding": "none"},
        ),
        Switch(
            "augmented-validation",
            "validation images augmented like training images",
            "validation as in the test",
            {"tasks.*.validation_crops": SameAs("training.augmentation")},
            task="segmentation",
        ),
        Switch(
            "one-draw",
            "label fractions drawn once, the same images for every run",
            "nested subsets, drawn for each seed and shared by all sources",
            {"tasks.*.drawing": "taher2021"},
        ),
        Switch(
            "independent-t-tests",
            "standard deviations of the population (ddof 0), and independent t-tests against the supervised baseline",
            "differences paired by seed and test case, intervals and corrected tests",
            {"statistics": "taher2021"},
        ),
    ),
    absent={},
    not_repeated=(
        "random numbers for uncertain labels drawn anew whenever an image is read; here once for each image",
        "grid and optical distortions, for which elastic ones stand",
        "the cosine that lags one epoch behind",
        "classification: nothing but seeds, draws and statistics differs between the protocols",
    ),
)
