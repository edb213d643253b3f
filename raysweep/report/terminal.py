"""The terminal summary: the report's answers in thirty lines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from raysweep.analysis._scores import MISSING
from raysweep.report.facts import StudyFacts
from raysweep.report.findings import Findings, find
from raysweep.report.sentences import answers, arm_pattern
from raysweep.report.words import score
from raysweep.results.read import StudyTables

MAX_LINES = 30
_LIMITS = (
    *((99, 99, 10), (8, 5, 8), (7, 5, 6), (6, 5, 5), (6, 4, 5), (5, 4, 5), (5, 3, 4), (4, 3, 3), (4, 2, 3)),
    *((3, 2, 2), (2, 1, 2)),
)
"""Sentences shown, sentences left open, and rows: the first of these that fits is taken."""
_Item = TypeVar("_Item")
_MAX_FAILURES = 2


def terminal_summary(tables: StudyTables, facts: StudyFacts) -> RenderableType:
    """Return the study's answers as something rich can print."""
    return _Summary(find(tables), facts)


@dataclass(frozen=True)
class _Summary:
    """The answers; as many of the longer lists as fit, the rest counted."""

    findings: Findings
    facts: StudyFacts

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Show fewer sentences and rows until the whole fits."""
        for limits in _LIMITS:
            parts = self._parts(*limits)
            if len(console.render_lines(parts, options, pad=False)) <= MAX_LINES:
                break
        yield parts

    def _parts(self, num_shown: int, num_open: int, num_rows: int) -> Group:
        said, pattern = answers(self.findings), arm_pattern(self.findings)
        parts: list[RenderableType] = [_title(self.findings, self.facts)]
        if said.shown:
            kept = said.most_important(num_shown)
            parts += [Text("\nWhat the study shows", "bold"), *_bullets(kept, "green", pattern, len(said.shown))]
        if self.findings.best():
            parts += [Text(""), _best_table(self.findings, num_rows)]
        if said.open:
            kept = said.open[:num_open]
            parts += [Text("\nWhat it leaves open", "bold"), *_bullets(kept, "yellow", pattern, len(said.open))]
        if self.findings.failures:
            parts += [Text("\nFailures", "bold"), *_failures(self.findings)]
        return Group(*parts)


def _title(findings: Findings, facts: StudyFacts) -> Text:
    title = Text(facts.study, "bold")
    counts = [f"{findings.count('done')} of {len(findings.trials)} cells finished"]
    counts += [f"{findings.count(s)} {s}" for s in reversed(MISSING) if findings.count(s)]
    title.append(f"  {', '.join(counts)}", "dim")
    if facts.protocol:
        title.append(f"  ·  {facts.protocol}", "dim")
    return title


def _bullets(sentences: tuple[str, ...], style: str, pattern: re.Pattern[str], num_all: int) -> list[RenderableType]:
    lines: list[RenderableType] = []
    for sentence in sentences:
        grid = Table.grid(padding=(0, 1))
        text = Text(sentence)
        text.highlight_regex(pattern, "bold")
        grid.add_row(Text("•", style), text)
        lines.append(Padding(grid, (0, 0, 0, 1)))
    if len(sentences) < num_all:
        lines.append(Text(f"   and {num_all - len(sentences)} more in the report", "dim"))
    return lines


def _spread(items: Sequence[_Item], most: int) -> list[_Item]:
    """Return at most ``most`` items, the first and the last among them, the others evenly spread."""
    if len(items) <= most:
        return list(items)
    return [items[round(position * (len(items) - 1) / max(most - 1, 1))] for position in range(most)]


def _best_table(findings: Findings, most: int) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 1), header_style="dim")
    for name, justify in (
        ("annotations", "right"),
        ("best arm", "left"),
        (findings.metric, "left"),
        ("beats", "right"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    best = findings.best()
    for entry in _spread(best, most):
        name = findings.setting_name(entry.setting)
        compared = len(entry.beaten) + len(entry.undecided)
        table.add_row(
            Text(f"{name} {entry.annotations}".strip()),
            Text(entry.row["arm"]),
            Text(score(entry.row)),
            Text(f"{len(entry.beaten)} of {compared}"),
        )
    if len(best) > most:
        table.add_row("", Text(f"and {len(best) - most} more in the report", "dim"))
    return table


def _failures(findings: Findings) -> list[RenderableType]:
    lines: list[RenderableType] = []
    for failure in findings.failures[:_MAX_FAILURES]:
        line = Text(f"  {failure['kind']} {failure['stage']}  ", "red")
        lines.append(line.append(failure["error"], "default"))
    if len(findings.failures) > _MAX_FAILURES:
        lines.append(Text(f"  and {len(findings.failures) - _MAX_FAILURES} more", "dim"))
    return lines
