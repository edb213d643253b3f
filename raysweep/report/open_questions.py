"""What a study leaves open, in plain sentences: undecided differences, what would decide them, missing cells."""

from __future__ import annotations

from collections import Counter

from raysweep.analysis import Arm, Setting
from raysweep.analysis.comparison import ALPHA
from raysweep.report.findings import Findings, Row, at
from raysweep.report.words import names, number, prefix


def undecided(findings: Findings) -> list[str]:
    """Say how many differences are not decided, and why."""
    compared = [row for row in findings.comparison if row["decided"] is not None]
    still_open = [row for row in compared if not row["decided"]]
    sentences = []
    if still_open:
        spans = sum(row["low"] is None or row["low"] <= 0 <= row["high"] for row in still_open)
        reasons = ["the 95 % interval spans zero"]
        if spans < len(still_open):
            reasons = [f"for {spans} the 95 % interval spans zero"] if spans else []
            reasons.append(f"for {len(still_open) - spans} the corrected test does not confirm the interval")
        sentences.append(
            f"Of {len(compared)} differences between sources {len(still_open)} "
            f"{'is' if len(still_open) == 1 else 'are'} not decided: {' and '.join(reasons)}. "
            f"{_basis(still_open)}"
        )
    if any(row["num_seeds"] == 1 for row in findings.scores):
        sentences.append(
            "Some scores rest on one seed: their intervals hold for that run and say nothing about another."
        )
    return sentences


def more_seeds(findings: Findings) -> list[str]:
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
                sentences.append(prefix(findings, setting) + _to_decide(findings, row, best.row["arm"]))
    return sentences


def _to_decide(findings: Findings, row: Row, best: str) -> str:
    other = row["other"] if row["arm"] == best else row["arm"]
    annotated = findings.annotated(Setting.of(row), row["annotations"])
    start = f"To tell {best} from {other} with {annotated}, if their difference is what it seems"
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
    seeds = number(min(row["num_seeds"] for row in undecided), "seed")
    subjects = [row["num_subjects"] for row in undecided if row["num_subjects"] is not None]
    basis = " and ".join([seeds, *([number(min(subjects), "test subject")] if subjects else [])])
    if hopeless:
        more = " and ".join(sorted("seeds" if without else "test subjects" for without in hopeless))
        num_pairs = number(max(pairs.values()), "pair")
        return f"With as few as {basis} and {num_pairs} the test cannot decide all: it needs more {more}."
    either = "more of either" if subjects else "more"
    return f"They rest on as few as {basis}; {either} would narrow the intervals."


def unfinished(findings: Findings) -> list[str]:
    """Say which cells have no result, and why."""
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
