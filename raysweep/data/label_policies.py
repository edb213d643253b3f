"""What a study makes of labels that are uncertain or unknown: packs keep them as the data set has them.

Source: Irvin et al., CheXpert, AAAI 2019 (U-Ones, U-Zeros); Pham et al., Interpreting chest X-rays via CNNs that
exploit hierarchical disease dependencies and disease uncertainty, Neurocomputing 2021 (label smoothing, LSR).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from raysweep.data.pack_format import UNCERTAIN
from raysweep.settings import Uncertain, Unknown

SMOOTHED: dict[str, tuple[float, float]] = {"lsr-ones": (0.55, 0.85), "lsr-zeros": (0.0, 0.3)}
"""Policy -> range of the random numbers, where a study gives none."""


def resolve_labels(
    labels: npt.NDArray[Any],
    uncertain: Uncertain,
    unknown: Unknown = "ignore",
    seed: int = 0,
    smoothing: tuple[float, float] | None = None,
) -> npt.NDArray[np.float32]:
    """Return label vectors without uncertain values: numbers from 0 to 1, NaN where a label is to be left out.

    Args:
        labels: (N, L) as packs hold them: 1, 0, -1 uncertain, NaN unknown.
        uncertain: What -1 becomes.
        unknown: What NaN becomes.
        seed: Seed of the smoothed labels.
        smoothing: Range of the smoothed labels; None for that of the policy.
    """
    resolved = np.array(labels, np.float32)
    unsure = resolved == UNCERTAIN
    if unknown == "zeros":
        resolved[np.isnan(resolved)] = 0.0
    if uncertain in SMOOTHED:
        drawn = np.random.default_rng(seed).uniform(*(smoothing or SMOOTHED[uncertain]), resolved.shape)
        resolved[unsure] = drawn[unsure]
    else:
        resolved[unsure] = {"ones": 1.0, "zeros": 0.0, "ignore": np.nan}[uncertain]
    return resolved
