"""The terminal summary: the report's answers in about thirty lines."""

from __future__ import annotations

import re

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from raysweep.report.facts import StudyFacts
from raysweep.report.findings import Findings, find
from raysweep.report.sentences import answers, arm_pattern, score
from raysweep.results.read import StudyTables

_MAX_ROWS = 10
_MAX_FAILURES = 3


def terminal_summary(tables: StudyTables, facts: StudyFacts) -> RenderableType:
    """Return the study's answers as something rich can print."""
    findings = find(tables)
    said, pattern = answers(findings), arm_pattern(findings)
    parts: list[RenderableType] = [_title(findings, facts)]
    if said.shown:
        parts += [Text("\nWhat the study shows", "bold"), *_bullets(said.shown, "green", pattern)]
    if findings.best():
        parts += [Text(""), _best_table(findings)]
    if said.open:
        parts += [Text("\nWhat it leaves open", "bold"), *_bullets(said.open, "yellow", pattern)]
    if findings.failures:
        parts += [Text("\nFailures", "bold"), *_failures(findings)]
    return Group(*parts)


def _title(findings: Findings, facts: StudyFacts) -> Text:
    title = Text(facts.study, "bold")
    counts = [f"{findings.count('done')} of {len(findings.trials)} cells finished"]
    counts += [f"{findings.count(s)} {s}" for s in ("pending", "failed", "skipped") if findings.count(s)]
    title.append(f"  {', '.join(counts)}", "dim")
    if facts.protocol:
        title.append(f"  ·  {facts.protocol}", "dim")
    return title


def _bullets(sentences: tuple[str, ...], style: str, pattern: re.Pattern[str]) -> list[RenderableType]:
    lines: list[RenderableType] = []
    for sentence in sentences:
        grid = Table.grid(padding=(0, 1))
        text = Text(sentence)
        text.highlight_regex(pattern, "bold")
        grid.add_row(Text("•", style), text)
        lines.append(Padding(grid, (0, 0, 0, 1)))
    return lines


def _best_table(findings: Findings) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 1), header_style="dim")
    for name, justify in (
        ("annotations", "right"),
        ("best arm", "left"),
        (findings.metric, "left"),
        ("beats", "right"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    best = findings.best()
    for entry in best[:_MAX_ROWS]:
        name = findings.setting_name(entry.setting)
        compared = len(entry.beaten) + len(entry.undecided)
        table.add_row(
            Text(f"{name} {entry.annotations}".strip()),
            Text(entry.row["arm"]),
            Text(score(entry.row)),
            Text(f"{len(entry.beaten)} of {compared}"),
        )
    if len(best) > _MAX_ROWS:
        table.add_row("", Text(f"and {len(best) - _MAX_ROWS} more in the report", "dim"))
    return table


def _failures(findings: Findings) -> list[RenderableType]:
    lines: list[RenderableType] = []
    for failure in findings.failures[:_MAX_FAILURES]:
        line = Text(f"  {failure['kind']} {failure['stage']}  ", "red")
        lines.append(line.append(failure["error"], "default"))
    if len(findings.failures) > _MAX_FAILURES:
        lines.append(Text(f"  and {len(findings.failures) - _MAX_FAILURES} more", "dim"))
    return lines
