"""How far a study is, for the terminal, in thirty lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from raysweep.ledger import FailureRecord, LedgerRecord
from raysweep.planning import Plan, Stage
from raysweep.planning.model import is_done
from raysweep.planning.summary import summarise
from raysweep.report.facts import recovered_text
from raysweep.report.live import RunningStage
from raysweep.report.words import duration

_STATES = ("done", "failed", "stopped", "skipped", "not needed", "open")
_MAX_ROWS = 9
_MAX_LISTED = 4


def status_summary(
    plan: Plan,
    ledger: Mapping[str, LedgerRecord],
    running: Sequence[RunningStage] = (),
    failures: Sequence[FailureRecord] = (),
    not_needed: Container[str] = frozenset(),
) -> RenderableType:
    """Return counts of a plan's stages, cells by source, what is running, and why stages and attempts failed.

    ``not_needed`` holds the finetune stages that the study did without.
    """
    counts = summarise(plan, ledger)
    spared = sum(stage in not_needed and stage not in ledger for stage in plan.stages)
    still = counts.num_stages - counts.num_done - counts.num_failed - spared
    head = (
        f"{counts.study}: {counts.num_done} of {counts.num_stages} stages done, {counts.num_failed} failed, "
        + (f"{spared} not needed, " if spared else "")
        + f"{still} open ({counts.num_cells} cells)"
    )
    done = {stage.id for stage in plan.stages.values() if is_done(stage, ledger.get(stage.id))}
    recovered = recovered_text(failures, done)
    attempts = [Text(f"failed attempts: {recovered}")] if recovered else []
    return Group(
        Text(head, "bold"), _sources(plan, ledger, not_needed), *_running(running), *_failures(plan, ledger), *attempts
    )


def cell_states(
    plan: Plan, ledger: Mapping[str, LedgerRecord], not_needed: Container[str] = frozenset()
) -> dict[str, Counter[str]]:
    """Return, by source, how many cells are done, failed, stopped by the scheduler, skipped, not needed and open."""
    blocked: set[str] = set()
    for stage in plan.stages.values():  # parents come first
        if stage.parent is not None and (_is_lost(stage, ledger) or stage.parent.stage in blocked):
            blocked.add(stage.id)
    states: dict[str, Counter[str]] = {}
    for cell in plan.cells:
        record = ledger.get(cell.stage)
        if is_done(plan.stages[cell.stage], record):
            state = "done"
        elif record is not None and record.status != "done":
            state = record.status
        elif cell.stage in not_needed:
            state = "not needed"
        else:
            state = "skipped" if cell.stage in blocked else "open"
        states.setdefault(cell.source, Counter())[state] += 1
    return states


def _is_lost(stage: Stage, ledger: Mapping[str, LedgerRecord]) -> bool:
    """Whether a stage's parent failed without the snapshot that the stage starts from."""
    if stage.parent is None:
        return False
    record = ledger.get(stage.parent.stage)
    return record is not None and record.status == "failed" and stage.parent.epoch not in record.snapshots


def _sources(plan: Plan, ledger: Mapping[str, LedgerRecord], not_needed: Container[str]) -> Table:
    states = cell_states(plan, ledger, not_needed)
    table = Table(box=None, padding=(0, 2, 0, 1), header_style="dim")
    table.add_column("cells of source")
    rare = {name for name in ("stopped", "not needed") if not any(counter[name] for counter in states.values())}
    shown = [name for name in _STATES if name not in rare]
    for name in shown:
        table.add_column(name, justify="right")
    rows = list(states.items())
    for source, counter in rows[:_MAX_ROWS]:
        table.add_row(Text(source), *(str(counter[name]) for name in shown))
    if len(rows) > _MAX_ROWS:
        rest = sum((counter for _, counter in rows[_MAX_ROWS:]), Counter[str]())
        more = Text(f"{len(rows) - _MAX_ROWS} more", "dim")
        table.add_row(more, *(str(rest[name]) for name in shown))
    return table


def _running(running: Sequence[RunningStage]) -> list[Text]:
    lines = [Text(f"in flight: {len(running)}", "bold")] if running else []
    lines += [
        Text(f"  {stage.kind} {stage.name}, last epoch ended {duration(stage.saved_s_ago)} ago")
        for stage in running[:_MAX_LISTED]
    ]
    if len(running) > _MAX_LISTED:
        lines.append(Text(f"  and {len(running) - _MAX_LISTED} more", "dim"))
    return lines


def _failures(plan: Plan, ledger: Mapping[str, LedgerRecord]) -> list[Text]:
    failed = [
        (stage, record)
        for stage in plan.stages.values()
        if (record := ledger.get(stage.id)) is not None and record.status == "failed"
    ]
    lines = [
        Text(f"failed {stage.name} (attempt {record.attempt} on {record.host or 'no node'}): {record.error}")
        for stage, record in failed[:_MAX_LISTED]
    ]
    if len(failed) > _MAX_LISTED:
        lines.append(Text(f"and {len(failed) - _MAX_LISTED} more failed: the report lists them", "dim"))
    return lines
