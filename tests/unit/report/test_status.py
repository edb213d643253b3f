"""How far a study is, in thirty lines."""

import io
import os

from rich.console import Console

from raysweep.ledger import LedgerRecord
from raysweep.planning import PackFacts, build_plan
from raysweep.report.live import RunningStage, not_needed_stages
from raysweep.report.status import cell_states, status_summary
from raysweep.sweep import publish_cells
from tests.studies import fake_study

FACTS = {
    name: PackFacts(f"/{name}", name, 1, 4, 30, {"slice": 30, "volume": 10, "subject": 5})
    for name in ("cardiac", "leaves")
}


def plan_of(**grid):
    return build_plan(fake_study({f"grid.{name}": values for name, values in grid.items()}), FACTS)


def printed(plan, ledger, running=()):
    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    with console.file:
        console.print(status_summary(plan, ledger, running))
    return console.export_text()


def test_cells_are_counted_by_source_with_those_behind_a_failure():
    plan = plan_of(pretrain_epochs=[1, 2], seed=[0, 1], annotations=[4])
    (pretraining,) = [stage for stage in plan.stages.values() if stage.kind == "pretrain"]
    of_random = [cell.stage for cell in plan.cells if cell.source == "random"]
    ledger = {
        of_random[0]: LedgerRecord(of_random[0], "done"),
        of_random[1]: LedgerRecord(of_random[1], "failed", error="RuntimeError: on fire", host="node7"),
        pretraining.id: LedgerRecord(pretraining.id, "failed", (1,), error="StageError: loss is not finite"),
    }
    states = cell_states(plan, ledger)
    assert states["random"] == {"done": 1, "failed": 1}
    # The snapshot at epoch 1 was published before the pretraining failed: its dependents can still run.
    assert states["cardiac"] == {"open": 2, "skipped": 2}
    text = printed(plan, ledger)
    assert f"1 of {len(plan.stages)} stages done, 2 failed" in text
    assert "(attempt 1 on node7): RuntimeError: on fire" in text


def test_cells_that_the_study_did_without_are_not_open():
    plan = plan_of(pretrain_epochs=[1], seed=[0, 1], annotations=[4])
    spared = {cell.stage for cell in plan.cells if cell.seed == 1}
    assert cell_states(plan, {}, spared)["random"] == {"open": 1, "not needed": 1}
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(status_summary(plan, {}, not_needed=spared))
    text = console.export_text()
    assert f"{len(spared)} not needed, {len(plan.stages) - len(spared)} open" in text
    assert "not needed" not in printed(plan, {})


def test_the_stages_done_without_are_read_from_the_published_cells(tiny_store):
    plan = plan_of(seed=[0, 1], annotations=[4])
    assert not_needed_stages(tiny_store, plan.study.study) == frozenset()
    (spared,) = {cell.stage for cell in plan.cells if cell.seed == 1 and cell.source == "random"}
    publish_cells(plan, tiny_store, {spared: "decided"})
    assert not_needed_stages(tiny_store, plan.study.study) == {spared}


def test_it_fits_thirty_lines_however_large_the_study_and_counts_the_rest():
    plan = plan_of(seed=list(range(40)), annotations=[4, 8])
    ledger = {stage: LedgerRecord(stage, "failed", error="boom") for stage in list(plan.stages)[:20]}
    running = [RunningStage("s", "finetune", f"cell{n}", 3.0) for n in range(50)]
    text = printed(plan, ledger, running)
    assert len(text.splitlines()) <= 30
    assert "in flight: 50" in text
    assert "and 46 more" in text
    assert "and 16 more failed" in text
    assert "last epoch ended 3.0 s ago" in text
