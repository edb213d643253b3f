"""Intensity statistics of any number of images, gathered one image at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from raysweep.data.pack import IntensityStatistics

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Moments:
    """Count, mean, sum of squared deviations, minimum and maximum of a set of pixels; sets can be merged."""

    count: int = 0
    mean: float = 0.0
    squared_deviations: float = 0.0
    min: float = math.inf
    max: float = -math.inf

    @classmethod
    def of(cls, image: Array) -> Moments:
        """Return the moments of one image."""
        values = image.astype(np.float64)
        mean = float(values.mean())
        return cls(values.size, mean, float(np.square(values - mean).sum()), float(values.min()), float(values.max()))

    def merge(self, other: Moments) -> Moments:
        """Return the moments of both sets together.

        Source: Chan, Golub & LeVeque, Updating formulae and a pairwise algorithm for computing sample
        variances, 1979.
        """
        count = self.count + other.count
        if count == 0:
            return self
        shift = other.mean - self.mean
        return Moments(
            count,
            self.mean + shift * other.count / count,
            self.squared_deviations + other.squared_deviations + shift * shift * self.count * other.count / count,
            min(self.min, other.min),
            max(self.max, other.max),
        )

    def statistics(self) -> IntensityStatistics:
        """Return them as mean, standard deviation, minimum and maximum."""
        return IntensityStatistics(self.mean, math.sqrt(self.squared_deviations / self.count), self.min, self.max)
