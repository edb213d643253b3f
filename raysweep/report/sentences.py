"""The answers in plain sentences, and what the study leaves open and why."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from raysweep.analysis import Arm, Setting
from raysweep.report.findings import Best, Findings, Row, at, longest
from raysweep.report.open_questions import more_seeds, undecided, unfinished
from raysweep.report.published import Topic
from raysweep.report.words import duration, listed, names, number, prefix


@dataclass(frozen=True)
class Answers:
    """Sentences: what the study shows, and what it leaves open."""

    shown: tuple[str, ...]
    open: tuple[str, ...]
    by_topic: Mapping[Topic, tuple[str, ...]] = field(default_factory=dict)
    """The sentences of ``shown`` that speak of what publications speak of."""

    def most_important(self, most: int) -> tuple[str, ...]:
        """Return at most ``most`` of the sentences shown, in their order: one of every topic before seconds."""
        ranked = [
            (position, order, sentence)
            for order, sentences in enumerate(self.by_topic.values())
            for position, sentence in enumerate(sentences)
        ]
        kept = {sentence for _, _, sentence in sorted(ranked)[:most]}
        for sentence in self.shown:
            if len(kept) < most:
                kept.add(sentence)
        return tuple(sentence for sentence in self.shown if sentence in kept)


def answers(findings: Findings) -> Answers:
    """Return a study's answers as sentences."""
    if not findings.count("done"):
        return Answers((), tuple(unfinished(findings)))
    best = findings.best()
    topics: dict[Topic, tuple[str, ...]] = {
        "best": tuple(_best_arms(findings, best)),
        "annotations": tuple(_enough_annotations(findings, best)),
        "lengths": tuple(_lengths(findings)),
        "convergence": tuple(_convergence(findings)),
    }
    shown = [sentence for sentences in topics.values() for sentence in sentences]
    shown += [*_as_good(findings, best), *_cost(findings)]
    still_open = (*undecided(findings), *unfinished(findings), *more_seeds(findings))
    return Answers(tuple(shown), still_open, topics)


def arm_pattern(findings: Findings) -> re.Pattern[str]:
    """Return a pattern whose one group is the name of an arm or of its series, the longest that fits."""
    labels = {row["arm"] for row in findings.scores} | set(findings.series)
    ordered = sorted(labels, key=lambda label: (-len(label), label))
    return re.compile(rf"(?<!\w)({'|'.join(map(re.escape, ordered))})(?!\w)") if ordered else re.compile("(?!)()")


def _best_arms(findings: Findings, best: list[Best]) -> list[str]:
    """The best arm at the smallest and at the largest annotation count of each setting."""
    sentences = []
    for setting in findings.settings:
        own = [entry for entry in best if entry.setting == setting]
        for entry in (own[0], own[-1]) if len(own) > 1 else own:
            row = entry.row
            known = row["low"] is not None
            interval = f" (95 % interval {row['low']:.3f} to {row['high']:.3f})" if known else ""
            sentences.append(
                f"{prefix(findings, setting)}With {findings.annotated(setting, entry.annotations)}, "
                f"{row['arm']} scores highest: {findings.metric_of(setting)} {row['mean']:.3f}{interval}. "
                f"{_standing(entry)}"
            )
    return sentences


def _standing(entry: Best) -> str:
    compared = len(entry.beaten) + len(entry.undecided)
    if not compared:
        return "There is no other finished arm to compare it with."
    if not entry.undecided:
        others = {1: "the other arm", 2: "both other arms"}.get(compared, f"all {compared} other arms")
        return f"It beats {others}."
    if not entry.beaten:
        return f"It cannot be told apart from {names(entry.undecided)}."
    return f"It beats {names(entry.beaten)}; it cannot be told apart from {names(entry.undecided)}."


def _enough_annotations(findings: Findings, best: list[Best]) -> list[str]:
    sentences = []
    for setting in findings.settings:
        own = [entry for entry in best if entry.setting == setting]
        if not own or len(findings.annotations(setting)) < 2:
            continue
        arm = own[-1].row["arm"]
        row = next(r for r in findings.needed if Setting.of(r) == setting and r["arm"] == arm)
        if row["fewest"] is None:
            continue
        sentences.append(prefix(findings, setting) + _enough(findings, row))
    return sentences


def _enough(findings: Findings, row: Row) -> str:
    setting = Setting.of(row)
    fewest, sure, everything = row["fewest"], row["fewest_sure"], row["full_annotations"]
    if fewest == everything:
        return (
            f"{row['arm']} needs all {findings.annotated(setting, everything)}: no smaller count comes within "
            f"5 % of its score there, {row['full_mean']:.3f}."
        )
    full = f"{row['full_mean']:.3f} with {everything}"
    if sure == fewest:
        confirmed = "the interval confirms it"
    elif sure == everything:
        confirmed = "the interval does not confirm that for any smaller count"
    else:
        confirmed = f"the interval confirms it from {sure} on"
    start = (
        f"{row['arm']} comes within 5 % of its full-data score ({full}) from {findings.annotated(setting, fewest)} on"
    )
    return f"{start}; {confirmed}."


def _lengths(findings: Findings) -> list[str]:
    """One sentence per series at the largest annotation count that has a best length."""
    sentences = []
    for setting in findings.settings:
        rows = [r for r in findings.lengths if Setting.of(r) == setting and r["best"] is not None]
        for series in dict.fromkeys(Arm.of(row).series for row in rows):
            own = [row for row in rows if Arm.of(row).series == series]
            largest = [row for row in own if row["annotations"] == own[-1]["annotations"]]
            if len(largest) > 1:
                sentences.append(prefix(findings, setting) + _length(findings, series, largest))
    return sentences


def _length(findings: Findings, series: str, rows: list[Row]) -> str:
    best = next(row for row in rows if row["best"])
    fewest = next(row for row in rows if row["fewest_within_noise"])
    lengths = listed([str(row["pretrain_epochs"]) for row in rows])
    start = (
        f"Of {lengths} pretraining epochs, {best['pretrain_epochs']} give {series} its highest score with "
        f"{findings.annotated(Setting.of(best), best['annotations'])}"
    )
    if fewest is best:
        return f"{start}; every shorter pretraining is worse." if fewest is not rows[0] else f"{start}."
    epochs, behind = fewest["pretrain_epochs"], f"behind by {fewest['behind_best']:.3f}"
    if fewest["behind_low"] is not None:
        behind += f" (95 % interval {fewest['behind_low']:.3f} to {fewest['behind_high']:.3f})"
    return f"{start}; already {epochs} {'is' if epochs == 1 else 'are'} within noise of that, {behind}."


def _convergence(findings: Findings) -> list[str]:
    sentences = []
    for setting in findings.settings:
        count = findings.annotations(setting)[-1]
        rows = [
            row
            for row in at(longest(findings.convergence), setting, count)
            if row["target"] == "best" and row["fraction"] == 0.95
        ]
        reached = sorted((r for r in rows if r["median_epoch"] is not None), key=lambda r: r["median_epoch"])
        if len(rows) < 2 or not reached:
            continue
        first, last = reached[0], reached[-1]
        sooner = _sooner(findings, setting, count, first["arm"])
        text = (
            f"With {findings.annotated(setting, count)}, {first['arm']} is the first to reach 95 % of the best final "
            f"validation score, after {number(first['median_epoch'], 'epoch')} (median over seeds)"
        )
        never = [row["arm"] for row in rows if row["median_epoch"] is None]
        if never:
            text += f"; {names(never)} did not reach it in at least half of the seeds"
        elif last["median_epoch"] > first["median_epoch"]:
            text += f"; {last['arm']} is the last, after {last['median_epoch']:g}"
        sentences.append(f"{prefix(findings, setting)}{text}.{sooner}")
    return sentences


def _sooner(findings: Findings, setting: Setting, count: int, arm: str) -> str:
    """Say how many times sooner than the reference an arm converges, if its interval says that it does."""
    rows = [row for row in at(findings.speed_up, setting, count) if row["arm"] == arm and row["speed_up"] is not None]
    if not rows or (rows[0]["low"] or 0.0) <= 1:
        return ""
    (row,) = rows
    bound = "" if row["bound"] == "estimate" else f"{row['bound']} "
    interval = f"(95 % interval {row['low']:.1f} to {row['high']:.1f})"
    reach = ", which did not always reach it" if row["bound"] == "at least" else ""
    return f" That is {bound}{row['speed_up']:.1f} times {interval} sooner than {row['reference']}{reach}."


def _as_good(findings: Findings, best: list[Best]) -> list[str]:
    """Name the arms that are shown to be no worse than the best by a point, at the largest annotation count."""
    sentences = []
    for setting in findings.settings:
        own = [entry for entry in best if entry.setting == setting]
        if not own:
            continue
        count = own[-1].annotations
        rows = [r for r in at(findings.equivalence, setting, count) if r["verdict"] in ("equivalent", "not worse")]
        if rows:
            verb = "is" if len(rows) == 1 else "are"
            arms = names([row["arm"] for row in rows])
            sentences.append(
                f"{prefix(findings, setting)}With {findings.annotated(setting, count)}, {arms} {verb} shown to be "
                f"no worse than {rows[0]['reference']} by 0.01."
            )
    return sentences


def _cost(findings: Findings) -> list[str]:
    total = findings.cost[-1]
    ended = "ended" if total["num_failed"] else "finished"
    text = f"The {total['num_stages']} {ended} stages took {duration(total['wall_s'])} of training and testing"
    saved = total["naive_wall_s"] - total["shared_wall_s"]
    if saved > 0.01 * total["naive_wall_s"]:
        text += (
            f"; a grid that repeats the pretraining in every cell would have taken "
            f"{duration(total['naive_wall_s'])} for the same cells"
        )
    return [text + "."]
