"""How long stages really take in one simulated launch, where the queue knows only what was measured or assumed."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from raysweep.planning import Stage
from raysweep.planning.cost import Rates


@dataclass(frozen=True)
class Doubt:
    """How far stages may be from their rates."""

    assumed_factor: float = 3.0
    """An assumed rate is right up to this factor either way, in 19 of 20 draws; one draw for each kind of stage."""
    use_spread: bool = True
    """Whether stages of one shape differ as those that were measured did."""

    def applies(self, rates: Rates, stage: Stage) -> bool:
        """Whether a stage may take another time than its rate says."""
        known = rates.measured.get(stage.shape)
        if known is None:
            return self.assumed_factor > 1
        return self.use_spread and known.epoch_s_spread > 0


USUAL = Doubt()

CERTAIN = Doubt(1.0, use_spread=False)
"""Every stage takes what its rate says."""


class Durations:
    """Seconds of an epoch of every stage in one draw; a stage's draw depends on the seed and the stage alone.

    So clusters of different sizes are compared on the same draws, and no order of events changes one.
    """

    def __init__(self, rates: Rates, doubt: Doubt, seed: str) -> None:
        self._rates = rates
        self._doubt = doubt
        self._seed = seed
        self._factors: dict[str, float] = {}
        self._seconds: dict[str, float] = {}

    def epoch_s(self, stage: Stage) -> float:
        """Return the seconds of one epoch on a node of speed 1."""
        if stage.id not in self._seconds:
            self._seconds[stage.id] = self._rates.epoch_s(stage) * self._factor(stage)
        return self._seconds[stage.id]

    def stage_s(self, stage: Stage) -> float:
        """Return the seconds of all epochs on a node of speed 1."""
        return stage.epochs * self.epoch_s(stage)

    def _factor(self, stage: Stage) -> float:
        if not self._doubt.applies(self._rates, stage):
            return 1.0
        known = self._rates.measured.get(stage.shape)
        if known is None:
            return self._drawn(stage.kind, math.log(self._doubt.assumed_factor) / 1.96, median=1.0)
        sigma = math.sqrt(math.log1p(known.epoch_s_spread**2))
        return self._drawn(stage.id, sigma, median=math.exp(-(sigma**2) / 2))  # the mean is 1, as measured

    def _drawn(self, what: str, sigma: float, median: float) -> float:
        if what not in self._factors:
            self._factors[what] = median * random.Random(f"{self._seed}/{what}").lognormvariate(0.0, sigma)
        return self._factors[what]
