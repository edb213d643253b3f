"""Kalapos & Gyires-Toth 2022: pretraining strategies for the segmentation of cardiac MRI (ACDC).

Source: Self-Supervised Pretraining for 2D Medical Image Segmentation, arXiv:2209.00314, and its public code.
"""

from __future__ import annotations

from raysweep.protocols._protocol import Paper, Switch

STATISTICS = {"mean": 67.27297657740893, "std": 84.6606962344396}
"""Mean and standard deviation of the labelled ACDC slices on the scale of their files, as the study's code has them."""

PAPER = Paper(
    title="Kalapos & Gyires-Toth 2022",
    switches=(
        Switch(
            "slice-draws",
            "annotated slices drawn one by one, whatever the patient, anew for every seed",
            "nested subsets that every source shares at a seed",
            {"tasks.*.drawing": "kalapos2022"},
        ),
        Switch(
            "step-budget",
            "a subset repeated int(1 / share) times, the last batch dropped: budgets differ by up to a third",
            "the steps of the whole annotated set at every annotation count",
            {"tasks.*.training.steps": "kalapos2022"},
        ),
        Switch(
            "validation-on-crops",
            "validation on random crops, one IoU over all pixels of all crops, without background",
            "validation on whole slices, each scored by itself, as in the test",
            {
                "tasks.*.validation_crops": {
                    "crop_scale": [0.08, 1.0],
                    "flip_p": 0.0,
                    "jitter_p": 0.0,
                    "blur_p": 0.0,
                }
            },
            task="segmentation",
        ),
        Switch(
            "best-of-every-tenth",
            "only every tenth epoch may be the best",
            "any validated epoch may be the best",
            {"tasks.*.training.best_every": 10},
        ),
        Switch(
            "padding-scored",
            "test slices padded to 224 pixels and the padding scored as background",
            "padding is not scored",
            {"tasks.*.evaluation.pad_to_px": 224, "tasks.*.evaluation.score_padding": True},
            task="segmentation",
        ),
        Switch(
            "background-scored",
            "background is a class of the score, and a class that is absent from a slice scores 1",
            "the score is the mean over the foreground classes that are there",
            {"tasks.*.evaluation.score_background": True, "tasks.*.evaluation.absent": "one"},
            task="segmentation",
        ),
        Switch(
            "statistics-of-0-to-255",
            "statistics of the 0-255 scale applied to stored numbers over 255, so that inputs hardly vary",
            "a volume's percentiles scaled to 0 and 1, then the statistics that the weights were trained with",
            {
                "pretraining.reading.normalisation": STATISTICS,
                "tasks.*.training.reading.intensities": "eight-bit",
                "tasks.*.training.reading.normalisation": STATISTICS,
            },
        ),
        Switch(
            "uint8-wrap",
            "slices cast to 8 bits for pretraining, so that intensities above 255 wrap",
            "no cast: the full range of 16-bit slices is kept",
            {"pretraining.reading.intensities": "wrapped"},
        ),
        Switch(
            "half-precision",
            "float16 throughout",
            "the precision that the device computes in natively",
            {"pretraining.precision": "float16", "tasks.*.training.precision": "float16"},
        ),
    ),
    absent={
        "unknown-weights": "an unknown weights name silently meant random weights; here it is an error of the study",
        "missing-script": "sweep scripts call a file that does not exist; here a study file is the whole sweep",
        "past-the-grid": "array jobs index past the grid and crash; here the plan holds each grid point exactly once",
    },
    not_repeated=(
        "brightness changes of 16-bit slices in steps of the 16-bit range, an effect of an augmentation library",
        "the order in which files are listed, which decides which slices a seed draws",
    ),
)
