"""What a plan amounts to: counts, work, what sharing saves, and the tree of stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from raysweep.planning.cost import Estimate, estimate_lines
from raysweep.planning.model import Kind, Plan, Stage, is_done
from raysweep.store import LedgerRecord
from raysweep.study.protocol import protocol_lines, switch_states

_MAX_LEAVES = 6


@dataclass(frozen=True)
class PlanSummary:
    """Counts and work of a plan; epochs are those of the stages, whatever their length in steps."""

    study: str
    num_cells: int
    num_pretrain: int
    num_finetune: int
    num_done: int
    num_failed: int
    pretrain_epochs: int
    finetune_epochs: int
    naive_pretrain_epochs: int
    naive_finetune_epochs: int

    @property
    def num_stages(self) -> int:
        """Stages in all."""
        return self.num_pretrain + self.num_finetune

    def to_json(self) -> dict[str, Any]:
        """Return the summary as JSON-like values."""
        return asdict(self)


def summarise(plan: Plan, ledger: Mapping[str, LedgerRecord]) -> PlanSummary:
    """Count a plan's cells, stages and epochs, and what the ledger has of them."""
    stages = plan.stages.values()
    records = [ledger.get(stage.id) for stage in stages]
    return PlanSummary(
        study=plan.study.study,
        num_cells=len(plan.cells),
        num_pretrain=sum(stage.kind == "pretrain" for stage in stages),
        num_finetune=sum(stage.kind == "finetune" for stage in stages),
        num_done=sum(is_done(stage, record) for stage, record in zip(stages, records, strict=True)),
        num_failed=sum(record is not None and record.status == "failed" for record in records),
        pretrain_epochs=sum(stage.epochs for stage in stages if stage.kind == "pretrain"),
        finetune_epochs=sum(stage.epochs for stage in stages if stage.kind == "finetune"),
        naive_pretrain_epochs=_naive(plan, "pretrain"),
        naive_finetune_epochs=_naive(plan, "finetune"),
    )


def _naive(plan: Plan, kind: Kind) -> int:
    return sum(epochs for stage, epochs in plan.naive_epochs.items() if plan.stages[stage].kind == kind)


def plan_json(plan: Plan, ledger: Mapping[str, LedgerRecord], estimated: Estimate | None = None) -> dict[str, Any]:
    """Return a plan as JSON-like values: summary, protocol, the estimate if there is one, every stage and cell."""
    return {
        "summary": summarise(plan, ledger).to_json(),
        "protocol": {
            "name": plan.study.protocol,
            "paper": plan.study.paper,
            "as_published": {state.switch.name: state.as_published for state in switch_states(plan.study)},
        },
        **({} if estimated is None else {"estimate": {**asdict(estimated), "saved": estimated.saved}}),
        "stages": [
            {
                "stage": stage.id,
                "kind": stage.kind,
                "name": stage.name,
                "epochs": stage.epochs,
                "parent": None if stage.parent is None else asdict(stage.parent),
                "snapshots": list(stage.snapshots),
                "done": is_done(stage, ledger.get(stage.id)),
            }
            for stage in plan.stages.values()
        ],
        "cells": [{"cell": cell.name, **asdict(cell), "lineage": list(cell.lineage)} for cell in plan.cells],
    }


def render_plan(plan: Plan, ledger: Mapping[str, LedgerRecord], estimated: Estimate | None = None) -> RenderableType:
    """Draw a plan for the terminal: counts, work against the naive grid, the estimate, and the tree of stages."""
    s = summarise(plan, ledger)
    lines = [
        f"{s.study}: {s.num_cells} cells -> {s.num_stages} stages "
        f"({s.num_pretrain} pretrain, {s.num_finetune} finetune), {s.num_done} done"
        + (f", {s.num_failed} failed earlier" if s.num_failed else ""),
        f"work: {s.pretrain_epochs} pretraining + {s.finetune_epochs} fine-tuning epochs; a grid that repeats the "
        f"pretraining in every cell: {s.naive_pretrain_epochs} + {s.naive_finetune_epochs}",
    ]
    lines += protocol_lines(plan.study)
    if estimated is not None:
        lines += estimate_lines(estimated, s.num_stages)
    tree = Tree("stages")
    children = plan.children()
    for stage in plan.stages.values():
        if stage.parent is None and stage.kind == "pretrain":
            _branch(tree, stage, children, ledger)
    _leaves(tree, [s for s in plan.stages.values() if s.parent is None and s.kind == "finetune"], ledger)
    return Group(Text("\n".join(lines)), tree)


def _branch(tree: Tree, stage: Stage, children: Mapping[str, list[Stage]], ledger: Mapping[str, LedgerRecord]) -> None:
    snapshots = ", ".join(str(epoch) for epoch in stage.snapshots)
    branch = tree.add(f"{_mark(stage, ledger)} [bold]{stage.name}[/] (snapshots at {snapshots}) [dim]{stage.id[:8]}[/]")
    for epoch in stage.snapshots:
        at_epoch = [child for child in children[stage.id] if child.parent and child.parent.epoch == epoch]
        twig = branch.add(f"epoch {epoch}")
        for child in at_epoch:
            if child.kind == "pretrain":
                _branch(twig, child, children, ledger)
        _leaves(twig, [child for child in at_epoch if child.kind == "finetune"], ledger)


def _leaves(tree: Tree, stages: list[Stage], ledger: Mapping[str, LedgerRecord]) -> None:
    for stage in stages[:_MAX_LEAVES]:
        tree.add(f"{_mark(stage, ledger)} {stage.name} [dim]{stage.id[:8]}[/]")
    if len(stages) > _MAX_LEAVES:
        done = sum(is_done(stage, ledger.get(stage.id)) for stage in stages)
        tree.add(f"[dim]... {len(stages)} finetune stages in all, {done} done[/]")


def _mark(stage: Stage, ledger: Mapping[str, LedgerRecord]) -> str:
    record = ledger.get(stage.id)
    if is_done(stage, record):
        return "[green]done[/]"
    return "[red]failed[/]" if record is not None and record.status == "failed" else "[yellow]open[/]"
