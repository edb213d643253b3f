"""Seeds as they are needed: a comparison that is decided gets no more of them.

Every arm (source, method, pretraining length) is compared with the reference arm at the same task, backbone, tuning and
annotation count, by its differences paired by seed. After each further seed from the third on, the comparison looks at
the t interval of the mean difference at level 1 - alpha / (looks x comparisons): by the union bound all intervals of
all looks and comparisons hold at once with probability 1 - alpha, if differences are normal, so stopping at the first
that excludes zero (or that lies within the margin of indifference) keeps the error rate at alpha.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

from raysweep.planning import Cell, Plan
from raysweep.study import Stop

_Key = tuple[object, ...]


@dataclass
class _Comparison:
    """One arm against the reference: their stages by seed, in the study's order of seeds."""

    arm: Sequence[str]
    reference: Sequence[str]
    decided_after: int | None = None
    looked_at: int = 0
    """Seeds at the last look."""


@dataclass(frozen=True)
class Change:
    """What a score changes: stages that are needed now, and those that no comparison needs any more."""

    released: frozenset[str] = frozenset()
    dropped: Mapping[str, str] = field(default_factory=dict)
    """Stage -> why."""


class SeedGate:
    """Decides which fine-tunings of a study are needed, one seed after another."""

    def __init__(self, plan: Plan, settings: Stop, scores: Mapping[str, float]) -> None:
        self._settings = settings
        self._comparisons = list(_comparisons(plan, str(settings.reference)))
        self._num_seeds = len(plan.study.grid.seed)
        self._first = min(settings.min_seeds, self._num_seeds)
        self._scores: dict[str, float | None] = dict(scores)
        self._compared = {stage for c in self._comparisons for stage in (*c.arm, *c.reference)}
        self._released = set(self._needed())
        self.held = frozenset(self._compared - self._released)
        """Stages that wait for a decision at the start."""

    def start(self) -> Change:
        """Return what the scores of earlier launches have made needless."""
        return Change(dropped=self._dropped())

    def ended(self, stage: str, score: float | None) -> Change:
        """Take a stage's score, None if it failed, and return what changes."""
        if stage not in self._compared:
            return Change()
        self._scores[stage] = score
        needed = set(self._needed())
        released = needed - self._released
        self._released |= needed
        return Change(frozenset(released), self._dropped())

    def _needed(self) -> Iterator[str]:
        """Yield what undecided comparisons need: all seeds up to the first that has not ended, or the first few."""
        for comparison in self._comparisons:
            pairs = list(zip(comparison.arm, comparison.reference, strict=True))
            complete = 0
            for pair in pairs:
                if not all(stage in self._scores for stage in pair):
                    break
                complete += 1
            if comparison.decided_after is None and complete > comparison.looked_at:
                comparison.looked_at = complete
                if complete >= self._first and self._is_decided(pairs[:complete]):
                    comparison.decided_after = complete
            wanted = comparison.decided_after or max(self._first, complete + 1)
            for pair in pairs[:wanted]:
                yield from pair

    def _is_decided(self, pairs: Sequence[tuple[str, str]]) -> bool:
        scores = [(self._scores[arm], self._scores[reference]) for arm, reference in pairs]
        differences = [a - b for a, b in scores if a is not None and b is not None]
        if len(differences) < self._first:
            return False
        low, high = self.interval(differences)
        margin = self._settings.margin
        return low > 0 or high < 0 or (margin is not None and -margin < low and high < margin)

    def interval(self, differences: Sequence[float]) -> tuple[float, float]:
        """Return the interval of the mean difference at the level of one look."""
        from scipy.stats import t

        looks = self._num_seeds - self._first + 1
        alpha = self._settings.alpha / (looks * max(1, len(self._comparisons)))
        size = len(differences)
        half = float(t.ppf(1 - alpha / 2, size - 1)) * stdev(differences) / math.sqrt(size)
        return fmean(differences) - half, fmean(differences) + half

    def _dropped(self) -> dict[str, str]:
        """Return the stages of decided comparisons that no open one needs, with the reason."""
        may_be_needed = {
            stage for c in self._comparisons if c.decided_after is None for stage in (*c.arm, *c.reference)
        }
        found = {}
        for comparison in self._comparisons:
            if comparison.decided_after is not None:
                for stage in (*comparison.arm, *comparison.reference):
                    if stage not in may_be_needed and stage not in self._released:
                        found[stage] = f"not needed: its comparison was decided after {comparison.decided_after} seeds"
        return found


def _comparisons(plan: Plan, reference: str) -> Iterator[_Comparison]:
    """Yield every arm with the reference arm of its block, where both have every seed."""
    blocks: dict[_Key, dict[_Key, dict[int, str]]] = {}
    for cell in plan.cells:
        blocks.setdefault(_block(cell), {}).setdefault(_arm(cell), {})[cell.seed] = cell.stage
    seeds = plan.study.grid.seed
    for arms in blocks.values():
        references = [stages for arm, stages in arms.items() if arm[0] == reference]
        for arm, stages in arms.items():
            if arm[0] != reference and references:
                yield _Comparison([stages[seed] for seed in seeds], [references[0][seed] for seed in seeds])


def _block(cell: Cell) -> _Key:
    return cell.task, cell.backbone, cell.tuning, cell.annotations_asked


def _arm(cell: Cell) -> _Key:
    return cell.source, cell.method, cell.pretrain_epochs
