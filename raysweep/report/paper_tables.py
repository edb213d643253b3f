"""Tables as papers print them: Markdown, LaTeX with booktabs, and CSV of the numbers behind them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raysweep.analysis import Setting
from raysweep.analysis._scores import MISSING, ArmScores, arm_scores
from raysweep.report.findings import Findings, Row, at, longest
from raysweep.report.words import duration
from raysweep.results.read import StudyTables

_BOLD = "**"


@dataclass(frozen=True)
class PaperTable:
    """A table as it is printed: texts, of which those between double asterisks are bold; the first column is text."""

    name: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def paper_tables(findings: Findings, tables: StudyTables) -> list[PaperTable]:
    """Return the tables of a study: scores, differences to the reference arm, convergence, ranks, cost."""
    made: list[PaperTable] = []
    entries = {(e.setting, e.annotations, e.arm.label): e for e in arm_scores(tables)}
    for setting in findings.settings:
        suffix = "".join(f"-{part}" for part in [_slug(findings.setting_name(setting))] if part)
        made += [
            _scores(findings, setting, entries, f"scores{suffix}"),
            _differences(findings, setting, f"differences{suffix}"),
            _convergence(findings, setting, f"convergence{suffix}"),
        ]
    made += [_ranks(findings), _cost(findings)]
    return [table for table in made if table.rows]


def to_markdown(table: PaperTable) -> str:
    """Return a table in GitHub's Markdown, its caption above."""
    lines = [table.header, ["---", *["---:"] * (len(table.header) - 1)], *table.rows]
    body = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
    return f"{table.caption}\n\n{body}\n"


def to_latex(table: PaperTable) -> str:
    """Return a table environment in booktabs style; it needs ``\\usepackage{booktabs}``."""
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_latex(table.caption)}}}",
        rf"\label{{tab:{table.name}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
        r"\toprule",
        " & ".join(map(_latex, table.header)) + r" \\",
        r"\midrule",
        *(" & ".join(map(_latex, row)) + r" \\" for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def csv_tables(findings: Findings) -> Mapping[str, str]:
    """Return the numbers behind the answers as CSV, by name: each table of analysis as it is."""
    kept = {
        "trials": findings.trials, "scores": findings.scores, "annotations_needed": findings.needed,
        "areas": findings.areas, "power_laws": findings.power_laws, "comparison": findings.comparison,
        "equivalence": findings.equivalence, "seeds_needed": findings.seeds_needed, "ranking": findings.ranking,
        "pretraining_lengths": findings.lengths, "convergence": findings.convergence, "speed_up": findings.speed_up,
        "stability": findings.stability, "efficiency": findings.efficiency, "cost": findings.cost,
    }  # fmt: skip
    return {name: _csv(rows) for name, rows in kept.items() if rows}


def _csv(rows: Sequence[Row]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(rows[0])
    for row in rows:
        writer.writerow(" ".join(map(str, value)) if isinstance(value, list) else value for value in row.values())
    return out.getvalue()


def _scores(findings: Findings, setting: Setting, entries: Mapping[Any, ArmScores], name: str) -> PaperTable:
    counts = findings.annotations(setting)
    best = {
        count: max((r["mean"] or 0.0 for r in at(findings.scores, setting, count)), default=0.0) for count in counts
    }
    rows = []
    for arm in dict.fromkeys(row["arm"] for row in findings.scores if Setting.of(row) == setting):
        cells = []
        for count in counts:
            row = next((r for r in at(findings.scores, setting, count) if r["arm"] == arm), None)
            cells.append("" if row is None else _score(row, entries[(setting, count, arm)], best[count]))
        rows.append((arm, *cells))
    metric = findings.metric_of(setting)
    caption = (
        f"{_title(findings, setting)}Test {metric}: mean over test subjects, ± standard deviation over "
        "seeds; the highest mean of a column in bold. "
        f"By number of annotated {findings.unit(setting)}s."
    )
    return PaperTable(name, caption, ("Arm", *map(str, counts)), tuple(rows))


def _score(row: Row, entry: ArmScores, best: float) -> str:
    if row["mean"] is None:
        counts = {why: row[f"num_{why.replace(' ', '_')}"] for why in MISSING}
        return ", ".join(f"{count} {why}" for why, count in counts.items() if count)
    seeds = entry.seed_means
    text = f"{row['mean']:.3f}" + (f" ± {np.std(seeds, ddof=1):.3f}" if len(seeds) > 1 else "")
    return f"{_BOLD}{text}{_BOLD}" if row["mean"] == best else text


def _differences(findings: Findings, setting: Setting, name: str) -> PaperTable:
    rows = []
    for row in findings.comparison:
        if Setting.of(row) == setting and row["difference"] is not None:
            sign = -1 if row["arm"] == findings.reference else 1
            other = row["other"] if sign < 0 else row["arm"]
            if findings.reference in (row["arm"], row["other"]):
                rows.append((other, str(row["annotations"]), _signed(row, sign), _p(row["p_holm"]), _verdict(row)))
    metric = findings.metric_of(setting)
    caption = (
        f"{_title(findings, setting)}Difference in test {metric} to {findings.reference}, paired by "
        "seed and test subject, with 95 % bootstrap intervals; permutation test, Holm-corrected."
    )
    return PaperTable(name, caption, ("Arm", "Annotations", "Difference", "p", "Verdict"), tuple(rows))


def _signed(row: Row, sign: int) -> str:
    if row["low"] is None:
        return f"{sign * row['difference']:+.3f}"
    low, high = sorted((sign * row["low"], sign * row["high"]))
    return f"{sign * row['difference']:+.3f} ({low:+.3f} to {high:+.3f})"


def _p(value: float | None) -> str:
    return "" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _verdict(row: Row) -> str:
    return "decided" if row["decided"] else "open"


def _convergence(findings: Findings, setting: Setting, name: str) -> PaperTable:
    faster = {(Setting.of(r), r["annotations"], r["arm"]): r for r in findings.speed_up}
    rows = []
    for row in longest(findings.convergence):
        if Setting.of(row) == setting and (row["target"], row["fraction"]) == ("best", 0.95):
            speed = faster.get((setting, row["annotations"], row["arm"]))
            epochs = "not reached" if row["median_epoch"] is None else f"{row['median_epoch']:g}"
            rows.append((row["arm"], str(row["annotations"]), epochs, _speed(speed)))
    caption = (
        f"{_title(findings, setting)}Epochs until 95 % of the best final validation score (median over seeds), and how "
        f"many times sooner than {findings.reference} (95 % interval)."
    )
    return PaperTable(name, caption, ("Arm", "Annotations", "Epochs", "Times sooner"), tuple(rows))


def _speed(row: Row | None) -> str:
    if row is None or row["speed_up"] is None:
        return ""
    bound = {"at least": "≥ ", "at most": "≤ "}.get(row["bound"], "")
    interval = "" if row["low"] is None else f" ({row['low']:.2f} to {row['high']:.2f})"
    return f"{bound}{row['speed_up']:.2f}{interval}"


def _ranks(findings: Findings) -> PaperTable:
    several = len({row["annotations"] for row in findings.ranking}) > 1
    rows = [
        (row["arm"], *([str(row["annotations"])] if several else []), f"{row['mean_rank']:.2f}",
         f"{row['critical_difference']:.2f}", _p(row["p_iman_davenport"]), ", ".join(map(str, row["groups"])))
        for row in findings.ranking if row["mean_rank"] is not None
    ]  # fmt: skip
    header = (
        "Arm",
        *(["Annotations"] if several else []),
        "Mean rank",
        "Critical difference",
        "p (Friedman)",
        "Groups",
    )
    caption = "Mean ranks, 1 the best; arms that share a group are not told apart (Nemenyi)."
    return PaperTable("ranks", caption, header, tuple(rows))


def _cost(findings: Findings) -> PaperTable:
    rows = [
        (row["kind"], str(row["num_stages"]), str(row["num_failed"]), duration(row["wall_s"]),
         duration(row["shared_wall_s"]), duration(row["naive_wall_s"]))
        for row in findings.cost
    ]  # fmt: skip
    header = ("Kind", "Stages", "Failed", "Time", "Finished cells, shared", "Finished cells, naive grid")
    return PaperTable("cost", "Time by kind of stage, summed over stages.", header, tuple(rows))


def _title(findings: Findings, setting: Setting) -> str:
    name = findings.setting_name(setting)
    return f"{name}: " if name else ""


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "→": r"$\rightarrow$", "·": r"$\cdot$",
    "<": r"$<$", ">": r"$>$", "≥": r"$\geq$", "≤": r"$\leq$",
}  # fmt: skip


def _latex(text: str) -> str:
    bold = text.startswith(_BOLD) and text.endswith(_BOLD) and len(text) > 2 * len(_BOLD)
    plain = text[len(_BOLD) : -len(_BOLD)] if bold else text
    escaped = "".join(_LATEX.get(character, character) for character in plain)
    return rf"\textbf{{{escaped}}}" if bold else escaped
