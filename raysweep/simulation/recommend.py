"""Which of the simulated clusters to take, by a rule that is said with the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raysweep.simulation.forecast import Forecast, SizeForecast

DEFAULT_UTILISATION = 0.8


@dataclass(frozen=True)
class Advice:
    """A cluster, or none, and the rule that chose it."""

    cluster: str | None
    reason: str


def recommend(found: Forecast, *, deadline_h: float | None = None, min_utilisation: float | None = None) -> Advice:
    """Choose a cluster.

    With a deadline: the cheapest, or the smallest where there are no prices, whose makespan is within it in 19 of 20
    draws. Else: the shortest makespan among those used to at least ``min_utilisation``, the smaller of equals.
    """
    if not found.num_left:
        return Advice(None, "nothing is left to run")
    if deadline_h is not None:
        return _within(found.sizes, deadline_h)
    least = DEFAULT_UTILISATION if min_utilisation is None else min_utilisation
    used = [size for size in found.sizes if size.utilisation.median >= least]
    if used:
        best = min(used, key=lambda size: (round(size.makespan_s.median, 3), size.units))
        return Advice(best.cluster.name, f"the shortest makespan among clusters used to at least {least:.0%}")
    best = max(found.sizes, key=lambda size: (size.utilisation.median, -size.units))
    return Advice(
        best.cluster.name, f"the best used one: none is used to at least {least:.0%}, so smaller ones may do as well"
    )


def _within(sizes: Sequence[SizeForecast], deadline_h: float) -> Advice:
    limit = f"{deadline_h:g} hours"
    in_time = [size for size in sizes if size.makespan_s.high <= 3600 * deadline_h]
    if not in_time:
        quickest = min(sizes, key=lambda size: size.makespan_s.high)
        hours = quickest.makespan_s.high / 3600
        return Advice(None, f"none ends within {limit}; {quickest.cluster.name} may take {hours:.3g}")
    costs = {size.cluster.name: size.cost for size in in_time}
    if all(cost is not None for cost in costs.values()):
        best = min(in_time, key=lambda size: (size.cost.median if size.cost else 0.0, size.units))
        return Advice(best.cluster.name, f"the cheapest of those that end within {limit} in 19 of 20 draws")
    best = min(in_time, key=lambda size: size.units)
    return Advice(best.cluster.name, f"the smallest of those that end within {limit} in 19 of 20 draws")
