"""Findings: every answer a report gives, computed once from a study's tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

from raysweep import analysis
from raysweep.analysis import Arm, Setting
from raysweep.analysis._scores import in_study_order
from raysweep.results.read import StudyTables

Row = dict[str, Any]

_METRICS = {
    "dice": "Dice", "iou": "IoU", "auc": "AUC", "auprc": "AUPRC", "hd95_mm": "HD95 (mm)", "nsd": "NSD", "ece": "ECE",
    "brier": "Brier score",
}  # fmt: skip
"""Names of metrics that are not written as the tables have them."""


@dataclass(frozen=True)
class Best:
    """The main arm with the highest mean at one annotation count, and how the others compare with it."""

    setting: Setting
    annotations: int
    row: Row
    """Its row of ``data_efficiency``."""
    beaten: tuple[str, ...]
    undecided: tuple[str, ...]
    missing: tuple[str, ...]
    """Arms without a finished cell there, or none on the same seeds."""


@dataclass(frozen=True)
class Findings:
    """A study's answers as rows; see the analysis module of the same name for each table's columns."""

    study: str
    trials: list[Row]
    scores: list[Row]
    needed: list[Row]
    comparison: list[Row]
    """Pairs of the main arms: every source and method at its longest pretraining."""
    lengths: list[Row]
    convergence: list[Row]
    speed_up: list[Row]
    """Against ``reference``, at 95 % of the best final score."""
    reference: str
    """The arm that speeds are compared with: a source of supervised weights if the study has one, else its first."""
    stability: list[Row]
    areas: list[Row]
    power_laws: list[Row]
    equivalence: list[Row]
    """Main arms against the best of each count, within one point."""
    seeds_needed: list[Row]
    ranking: list[Row]
    """Main arms: across tasks where there are three or more, else across the test subjects of each count."""
    efficiency: list[Row]
    cost: list[Row]
    failures: list[Row]
    """Failed stages: ``stage``, ``kind``, ``error`` and the names of the ``cells`` that need them."""

    @property
    def settings(self) -> list[Setting]:
        """Settings of the study, in its order."""
        return list(dict.fromkeys(Setting.of(row) for row in self.scores))

    @property
    def series(self) -> list[str]:
        """Sources with their methods, in the study's order: what a colour stands for."""
        return list(dict.fromkeys(Arm.of(row).series for row in self.scores))

    @cached_property
    def _metrics(self) -> dict[Setting, str]:
        said: dict[Setting, str] = {Setting.of(row): row["metric"] for row in self.scores if row["metric"]}
        return {setting: _METRICS.get(name, name.replace("_", " ")) for setting, name in said.items()}

    @property
    def metric(self) -> str:
        """Name of the score as people write it; ``score`` where the tasks of a study have several."""
        names = set(self._metrics.values())
        return names.pop() if len(names) == 1 else "score"

    def metric_of(self, setting: Setting) -> str:
        """Return the name of a setting's score."""
        return self._metrics.get(setting, self.metric)

    @property
    def any_comparison(self) -> bool:
        """Whether any two main arms have a result in common."""
        return any(row["difference"] is not None for row in self.comparison)

    def count(self, status: str) -> int:
        """Return the number of cells with a status of the trials view."""
        return sum(row["status"] == status for row in self.trials)

    def annotations(self, setting: Setting) -> list[int]:
        """Return the annotation counts of a setting, rising."""
        return sorted({row["annotations"] for row in self.scores if Setting.of(row) == setting})

    @cached_property
    def _units(self) -> dict[Setting, str]:
        said = {Setting.of(row): row["annotation_unit"] or "slice" for row in self.trials}
        return {setting: "patient" if name == "subject" else name for setting, name in said.items()}

    def unit(self, setting: Setting | None = None) -> str:
        """Return what annotation counts count in a setting: slice, image, volume or patient.

        Without a setting, what they count in the whole study; ``unit`` where that differs.
        """
        if setting is not None:
            return self._units[setting]
        names = set(self._units.values())
        return names.pop() if len(names) == 1 else "unit"

    def annotated(self, setting: Setting, count: int) -> str:
        """Return an annotation count in words: ``15 annotated slices``, ``1 annotated patient``."""
        return f"{count} annotated {self.unit(setting)}{'' if count == 1 else 's'}"

    def setting_name(self, setting: Setting) -> str:
        """Return the parts of a setting that differ within the study; empty if there is one setting."""
        parts = []
        for name in ("task", "backbone", "tuning"):
            if len({getattr(other, name) for other in self.settings}) > 1:
                parts.append(str(getattr(setting, name)))
        return " · ".join(parts)

    def best(self) -> list[Best]:
        """Return the best main arm of every setting and annotation count that has a finished cell."""
        found = []
        for setting in self.settings:
            for count in self.annotations(setting):
                rows = at(longest(self.scores), setting, count)
                finished = [row for row in rows if row["mean"] is not None]
                if finished:
                    best = max(finished, key=lambda row: row["mean"])
                    found.append(self._compare_best(setting, count, best, rows))
        return found

    def _compare_best(self, setting: Setting, count: int, best: Row, rows: list[Row]) -> Best:
        decided = {}
        for pair in at(self.comparison, setting, count):
            if best["arm"] in (pair["arm"], pair["other"]):
                other = pair["other"] if pair["arm"] == best["arm"] else pair["arm"]
                # With seeds missing, the pair's common seeds may disagree with the means: that is no win.
                ahead = (pair["difference"] or 0.0) * (1 if pair["arm"] == best["arm"] else -1)
                decided[other] = pair["decided"] and ahead > 0
        others = [row["arm"] for row in rows if row["arm"] != best["arm"]]
        return Best(
            setting=setting,
            annotations=count,
            row=best,
            beaten=tuple(arm for arm in others if decided.get(arm) is True),
            undecided=tuple(arm for arm in others if decided.get(arm) is False),
            missing=tuple(arm for arm in others if decided.get(arm) is None),
        )


_COMPUTED: WeakKeyDictionary[StudyTables, Findings] = WeakKeyDictionary()


def find(tables: StudyTables) -> Findings:
    """Return a study's findings, computed once for the same tables."""
    if tables not in _COMPUTED:
        _COMPUTED[tables] = _find(tables)
    return _COMPUTED[tables]


def _find(tables: StudyTables) -> Findings:
    trials = in_study_order(tables, tables.trials())
    scores = analysis.data_efficiency(tables).to_pylist()
    # Lengths of a pretraining have their own analysis; paired here, they would drown the sources in tests.
    main_arms = list(dict.fromkeys(row["arm"] for row in longest(scores)))
    reference = reference_arm(main_arms)
    num_tasks = len({row["task"] for row in scores})
    return Findings(
        study=tables.study,
        trials=trials,
        scores=scores,
        needed=analysis.annotations_needed(tables).to_pylist(),
        comparison=analysis.comparison(tables, arms=main_arms).to_pylist(),
        lengths=analysis.pretraining_length(tables).to_pylist(),
        convergence=analysis.convergence_summary(tables).to_pylist(),
        reference=reference,
        speed_up=analysis.speed_up(tables, reference).to_pylist() if reference else [],
        stability=analysis.stability_summary(tables).to_pylist(),
        areas=analysis.area_under_curve(tables).to_pylist(),
        power_laws=analysis.power_law(tables).to_pylist(),
        equivalence=analysis.equivalence(tables, arms=main_arms).to_pylist(),
        seeds_needed=analysis.seeds_needed(tables, arms=main_arms).to_pylist(),
        ranking=analysis.ranking(tables, "task" if num_tasks > 2 else "subject", main_arms).to_pylist(),
        efficiency=analysis.efficiency(tables).to_pylist(),
        cost=analysis.cost(tables).to_pylist(),
        failures=_failures(tables, trials),
    )


def reference_arm(labels: Sequence[str]) -> str:
    """Return the arm that others are held against: supervised weights without further pretraining, else the first."""
    plain = [label for label in labels if not any(sign in label for sign in (" · ", "→", "->"))]
    for words in (("imagenet", "supervised"), ("imagenet",), ("supervised",)):
        for label in plain:
            if all(word in label.lower() for word in words):
                return label
    return labels[0] if labels else ""


def at(rows: Iterable[Row], setting: Setting, annotations: int) -> list[Row]:
    """Return the rows of one setting and annotation count."""
    return [row for row in rows if Setting.of(row) == setting and row["annotations"] == annotations]


def longest(rows: Iterable[Row]) -> list[Row]:
    """Return the rows of each series' longest pretraining."""
    rows = list(rows)
    epochs: dict[tuple[Setting, str], int] = {}
    for row in rows:
        key = (Setting.of(row), Arm.of(row).series)
        epochs[key] = max(epochs.get(key, 0), row["pretrain_epochs"] or 0)
    return [row for row in rows if (row["pretrain_epochs"] or 0) == epochs[Setting.of(row), Arm.of(row).series]]


def _failures(tables: StudyTables, trials: list[Row]) -> list[Row]:
    failures = []
    for stage in tables.stages.select(["stage", "kind", "status", "error"]).to_pylist():
        if stage["status"] == "failed":
            needed_by = [t["cell"] for t in trials if stage["stage"] in (t["stage"], *(t["lineage"] or ()))]
            failures.append({**stage, "error": stage["error"] or "no message", "cells": needed_by})
    return failures
