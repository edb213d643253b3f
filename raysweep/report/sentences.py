"""The answers in plain sentences, and what the study leaves open and why."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from raysweep.analysis import Arm, Setting
from raysweep.analysis.comparison import ALPHA
from raysweep.report.findings import Best, Findings, Row, at, longest
from raysweep.report.published import Topic

_NAMED_ARMS = 3


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
        return Answers((), tuple(_unfinished(findings)))
    best = findings.best()
    topics: dict[Topic, tuple[str, ...]] = {
        "best": tuple(_best_arms(findings, best)),
        "annotations": tuple(_enough_annotations(findings, best)),
        "lengths": tuple(_lengths(findings)),
        "convergence": tuple(_convergence(findings)),
    }
    shown = [sentence for sentences in topics.values() for sentence in sentences]
    shown += [*_as_good(findings, best), *_cost(findings)]
    still_open = (*_undecided(findings), *_unfinished(findings), *_more_seeds(findings))
    return Answers(tuple(shown), still_open, topics)


def arm_pattern(findings: Findings) -> re.Pattern[str]:
    """Return a pattern whose one group is the name of an arm or of its series, the longest that fits."""
    labels = {row["arm"] for row in findings.scores} | set(findings.series)
    ordered = sorted(labels, key=lambda label: (-len(label), label))
    return re.compile(rf"(?<!\w)({'|'.join(map(re.escape, ordered))})(?!\w)") if ordered else re.compile("(?!)()")


def score(row: Row) -> str:
    """Return a mean with its interval: ``0.782 (0.751 to 0.805)``."""
    if row["mean"] is None:
        return "–"
    if row["low"] is None:
        return f"{row['mean']:.3f}"
    return f"{row['mean']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def duration(seconds: float) -> str:
    """Return seconds as people read them: ``45 s``, ``12 min``, ``3.5 h``, ``2.1 days``."""
    for unit, size, below in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < below:
            value = seconds / size
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{seconds / 86_400:.1f} days"


def names(labels: Sequence[str]) -> str:
    """Return labels as a list in words, long ones cut: ``a, b, c and 4 more``."""
    if len(labels) > _NAMED_ARMS + 1:
        return f"{', '.join(labels[:_NAMED_ARMS])} and {len(labels) - _NAMED_ARMS} more"
    return _list(labels)


def slices(count: int) -> str:
    """Return a number of annotated slices in words."""
    return f"{count} annotated slice{'' if count == 1 else 's'}"


def _list(parts: Sequence[str]) -> str:
    return " and ".join(part for part in (", ".join(parts[:-1]), parts[-1]) if part)


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
                f"{_prefix(findings, setting)}With {slices(entry.annotations)}, {row['arm']} scores highest: "
                f"{findings.metric} {row['mean']:.3f}{interval}. {_standing(entry)}"
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
        sentences.append(_prefix(findings, setting) + _enough(row))
    return sentences


def _enough(row: Row) -> str:
    fewest, sure, everything = row["fewest"], row["fewest_sure"], row["full_annotations"]
    if fewest == everything:
        return (
            f"{row['arm']} needs all {slices(everything)}: no smaller count comes within 5 % of its score "
            f"there, {row['full_mean']:.3f}."
        )
    full = f"{row['full_mean']:.3f} with {everything}"
    if sure == fewest:
        confirmed = "the interval confirms it"
    elif sure == everything:
        confirmed = "the interval does not confirm that for any smaller count"
    else:
        confirmed = f"the interval confirms it from {sure} on"
    start = f"{row['arm']} comes within 5 % of its full-data score ({full}) from {slices(fewest)} on"
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
                sentences.append(_prefix(findings, setting) + _length(series, largest))
    return sentences


def _length(series: str, rows: list[Row]) -> str:
    best = next(row for row in rows if row["best"])
    fewest = next(row for row in rows if row["fewest_within_noise"])
    lengths = _list([str(row["pretrain_epochs"]) for row in rows])
    start = (
        f"Of {lengths} pretraining epochs, {best['pretrain_epochs']} give {series} its highest score with "
        f"{slices(best['annotations'])}"
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
            f"With {slices(count)}, {first['arm']} is the first to reach 95 % of the best final validation "
            f"score, after {first['median_epoch']:g} epochs (median over seeds)"
        )
        never = [row["arm"] for row in rows if row["median_epoch"] is None]
        if never:
            text += f"; {names(never)} did not reach it in at least half of the seeds"
        elif last["median_epoch"] > first["median_epoch"]:
            text += f"; {last['arm']} is the last, after {last['median_epoch']:g}"
        sentences.append(f"{_prefix(findings, setting)}{text}.{sooner}")
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
            sentences.append(
                f"{_prefix(findings, setting)}With {slices(count)}, {names([row['arm'] for row in rows])} {verb} shown "
                f"to be no worse than {rows[0]['reference']} by 0.01."
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


def _undecided(findings: Findings) -> list[str]:
    compared = [row for row in findings.comparison if row["decided"] is not None]
    undecided = [row for row in compared if not row["decided"]]
    sentences = []
    if undecided:
        spans = sum(row["low"] is None or row["low"] <= 0 <= row["high"] for row in undecided)
        reasons = ["the 95 % interval spans zero"]
        if spans < len(undecided):
            reasons = [f"for {spans} the 95 % interval spans zero"] if spans else []
            reasons.append(f"for {len(undecided) - spans} the corrected test does not confirm the interval")
        sentences.append(
            f"Of {len(compared)} differences between sources {len(undecided)} "
            f"{'is' if len(undecided) == 1 else 'are'} not decided: {' and '.join(reasons)}. "
            f"{_basis(undecided)}"
        )
    if any(row["num_seeds"] == 1 for row in findings.scores):
        sentences.append(
            "Some scores rest on one seed: their intervals hold for that run and say nothing about another."
        )
    return sentences


def _more_seeds(findings: Findings) -> list[str]:
    """Say what it would take to tell the best arm from the next, at each setting's smallest and largest count."""
    sentences = []
    for setting in findings.settings:
        own = [entry for entry in findings.best() if entry.setting == setting]
        for entry in dict.fromkeys((own[0].annotations, own[-1].annotations) if own else ()):
            best = next(b for b in own if b.annotations == entry)
            means = {row["arm"]: row["mean"] or 0.0 for row in at(findings.scores, setting, entry)}
            rows = [
                row
                for row in at(findings.seeds_needed, setting, entry)
                if best.row["arm"] in (row["arm"], row["other"]) and row["seed_sd"] is not None
            ]
            if rows:
                row = max(rows, key=lambda r: min(means[r["arm"]], means[r["other"]]))
                sentences.append(_prefix(findings, setting) + _to_decide(row, best.row["arm"]))
    return sentences


def _to_decide(row: Row, best: str) -> str:
    other = row["other"] if row["arm"] == best else row["arm"]
    start = f"To tell {best} from {other} with {slices(row['annotations'])}, if their difference is what it seems"
    seeds, subjects = row["seeds_needed"], row["subjects_needed"]
    if seeds is None and subjects is None:
        return f"{start}, neither 1000 seeds nor 1000 test subjects would be enough."
    parts = [f"about {seeds} seeds (now {row['num_seeds']})"] if seeds else []
    parts += [f"about {subjects} test subjects (now {row['num_subjects']})"] if subjects else []
    only = "" if seeds else "; more seeds alone would not do"
    return f"{start}, takes {' or '.join(parts)}{only}."


def _basis(undecided: list[Row]) -> str:
    """Say what undecided differences rest on, and whether more seeds alone could decide them."""
    pairs = Counter((Setting.of(row), row["annotations"]) for row in undecided)
    # The permutation test of n subjects (seeds where scores have none) has no p below 2 / 2 ** n; the pairs of a count
    # share the correction.
    hopeless = {
        row["num_subjects"] is None
        for row in undecided
        if pairs[Setting.of(row), row["annotations"]] * 2.0 ** (1 - (row["num_subjects"] or row["num_seeds"])) >= ALPHA
    }
    seeds = _number(min(row["num_seeds"] for row in undecided), "seed")
    subjects = [row["num_subjects"] for row in undecided if row["num_subjects"] is not None]
    basis = " and ".join([seeds, *([_number(min(subjects), "test subject")] if subjects else [])])
    if hopeless:
        more = " and ".join(sorted("seeds" if without else "test subjects" for without in hopeless))
        num_pairs = _number(max(pairs.values()), "pair")
        return f"With as few as {basis} and {num_pairs} the test cannot decide all: it needs more {more}."
    either = "more of either" if subjects else "more"
    return f"They rest on as few as {basis}; {either} would narrow the intervals."


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _unfinished(findings: Findings) -> list[str]:
    pending, failed, total = findings.count("pending"), findings.count("failed"), len(findings.trials)
    skipped = findings.count("skipped")
    sentences = []
    if not findings.count("done"):
        sentences.append(f"Nothing has finished yet: the study has {total} cells.")
    if pending:
        sentences.append(f"{pending} of {total} cells have not run{_where(findings, 'pending')}.")
    if failed:
        sentences.append(f"{failed} of {total} cells failed{_where(findings, 'failed')}; see the failures.")
    if skipped:
        because = "because a pretraining before them failed"
        sentences.append(f"{skipped} of {total} cells are skipped {because}{_where(findings, 'skipped')}.")
    for status, ended in (("stopped", "were stopped by the study's scheduler"), ("not needed", "were not needed")):
        if findings.count(status):
            sentences.append(f"{findings.count(status)} of {total} cells {ended}{_where(findings, status)}.")
    return sentences


def _where(findings: Findings, status: str) -> str:
    places = dict.fromkeys(
        f"{Arm.of(row).label} at {row['annotations']}" for row in findings.trials if row["status"] == status
    )
    return f" ({names(list(places))})" if findings.count("done") else ""


def _prefix(findings: Findings, setting: Setting) -> str:
    name = findings.setting_name(setting)
    return f"{name}: " if name else ""
