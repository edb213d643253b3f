"""What papers call a source: the strategy behind the chain that produces an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raysweep import registry, zoo
from raysweep.study import WeightsStep

STRATEGIES = {
    "random": "no pretraining at all",
    "generalist": "weights as they are, or one pretraining on images other than the task's",
    "in-domain": "published weights of medical images, trained from random weights",
    "specialist": "random weights, then one pretraining on the task's own images",
    "domain-adapted": "weights, then a supervised pretraining; or published weights that came about so",
    "hierarchical": "weights, then a self-supervised pretraining; or published weights that came about so",
    "sequential": "two or more pretrainings, one after another",
}
"""Names as Kalapos & Gyires-Toth 2022 and Hosseinzadeh Taher et al. 2021 use them, and what each covers here."""


@dataclass(frozen=True)
class TakenStep:
    """A pretraining that a cell's encoder has gone through."""

    pack: str
    method: str


def strategy_of(weights: WeightsStep | None, steps: Sequence[TakenStep], task_pack: str) -> str:
    """Return the strategy of a chain, one of `STRATEGIES`.

    Args:
        weights: what the chain starts from; None for random weights.
        steps: its pretrainings, without those of length 0.
        task_pack: pack of the downstream task.
    """
    if len(steps) > 1:
        return "sequential"
    if not steps:
        return "random" if weights is None else _published(weights)
    if weights is not None:
        return "domain-adapted" if _is_supervised(steps[0].method) else "hierarchical"
    return "specialist" if steps[0].pack == task_pack else "generalist"


def _published(weights: WeightsStep) -> str:
    """Return the strategy behind weights that a study takes as they are."""
    entry = zoo.weights().get(weights.zoo) if weights.zoo is not None else None
    if entry is None or entry.domain == "natural":
        return "generalist"
    if entry.adapted_from is None:
        return "in-domain"
    return "domain-adapted" if entry.objective == "supervised" else "hierarchical"


def _is_supervised(method: str) -> bool:
    family: str = registry.load("methods", method).METHOD.family
    return family == "supervised"
