from __future__ import annotations

from pathlib import Path

import pytest

from raysweep import planning
from raysweep.errors import StudyError
from raysweep.planning import Plan, build_plan, summarise
from raysweep.planning import build as build_module
from raysweep.planning.model import is_done, stage_from_json, stage_to_json
from raysweep.planning.summary import plan_json
from raysweep.store import LedgerRecord
from tests.studies import FAKE_FACTS, fake_study

BOTH_METHODS = {"grid.method": ["simclr", "byol"]}
ALL_SOURCES = {"grid.source": ["random", "cardiac", "leaves-cardiac"]}


def plan_of(changes: dict | None = None, facts=FAKE_FACTS) -> Plan:
    return build_plan(fake_study(changes), facts)


def kinds(plan: Plan) -> dict[str, int]:
    return {kind: sum(s.kind == kind for s in plan.stages.values()) for kind in ("pretrain", "finetune")}


def test_cells_collapse_where_axes_do_not_apply():
    plan = plan_of({**BOTH_METHODS, "grid.seed": [0, 1], "grid.annotations": [4, "all"]})
    of_random = [cell for cell in plan.cells if cell.source == "random"]
    assert len(of_random) == 2 * 2
    assert {(cell.method, cell.pretrain_epochs) for cell in of_random} == {(None, None)}
    assert len([cell for cell in plan.cells if cell.source == "cardiac"]) == 2 * 2 * 2 * 2
    assert len({cell.name for cell in plan.cells}) == len(plan.cells)


def test_lengths_share_one_run_with_snapshots_and_the_schedule_own_gives_each_its_run():
    shared = plan_of({"grid.pretrain_epochs": [1, 5, 25]})
    own = plan_of({"grid.pretrain_epochs": [1, 5, 25], "pretraining.schedule": "own"})
    assert [(s.epochs, s.snapshots) for s in shared.stages.values() if s.kind == "pretrain"] == [(25, (1, 5, 25))]
    assert [(s.epochs, s.snapshots) for s in own.stages.values() if s.kind == "pretrain"] == [
        (1, (1,)),
        (5, (5,)),
        (25, (25,)),
    ]


def test_a_pretraining_is_one_stage_however_many_cells_share_it():
    plan = plan_of({"grid.seed": [0, 1, 2], "grid.annotations": [1, 4, "all"], "grid.tuning": ["full", "frozen"]})
    assert kinds(plan) == {"pretrain": 1, "finetune": 3 * 3 * 2 * 3}
    summary = summarise(plan, {})
    assert summary.naive_pretrain_epochs == (1 + 2) * 3 * 3 * 2
    assert summary.naive_finetune_epochs == 2 * len(plan.cells)


def test_each_seed_has_its_own_pretraining_where_the_study_says_so():
    changes = {"grid.seed": [0, 1, 2]}
    assert kinds(plan_of(changes))["pretrain"] == 1
    assert kinds(plan_of({**changes, "pretraining.seeds": "each"}))["pretrain"] == 3


def test_sources_with_a_common_beginning_share_its_stages():
    again = {"sources.again": ["random", {"pretrain": {"pack": "leaves", "method": "simclr", "epochs": 1}}]}
    plan = plan_of({**ALL_SOURCES, **again, "grid.source": ["leaves-cardiac", "again"]})
    on_leaves = [s for s in plan.stages.values() if s.kind == "pretrain" and s.parent is None]
    assert len(on_leaves) == 1


def test_no_epochs_is_the_source_without_the_step_and_shares_its_stage():
    plan = plan_of({"grid.pretrain_epochs": [0, 2]})
    stage_of = {(cell.source, cell.pretrain_epochs): cell for cell in plan.cells}
    assert stage_of["cardiac", 0].stage == stage_of["random", None].stage
    assert stage_of["cardiac", 0].lineage == ()
    assert stage_of["cardiac", 2].stage != stage_of["random", None].stage


def test_counts_that_come_to_the_same_number_share_a_stage():
    plan = plan_of(
        {
            "grid.source": ["random"],
            "grid.method": [],
            "grid.pretrain_epochs": [],
            "grid.annotations": [32, "100%", "all"],
        }
    )
    assert len(plan.cells) == 3
    assert len(plan.stages) == 1
    assert [cell.annotations for cell in plan.cells] == [32, 32, 32]


@pytest.mark.parametrize(("asked", "count"), [("5%", 2), ("1%", 1), ("50%", 16), ("all", 32), (3, 3)])
def test_shares_are_of_the_annotated_units_of_the_train_split(asked, count):
    assert plan_of({"grid.annotations": [asked]}).cells[0].annotations == count


def test_shares_count_in_the_unit_of_the_task():
    plan = plan_of({"grid.annotations": ["50%"], "tasks.heart.annotate_by": "subject"})
    assert plan.cells[0].annotations == 4


def test_a_chain_of_three_steps_is_three_stages_one_after_another():
    step = {"pretrain": {"pack": "leaves", "method": "byol", "epochs": 3}}
    chain = [
        "random",
        step,
        {"pretrain": {"pack": "cardiac", "method": "simclr", "epochs": 2}},
        {"pretrain": {"pack": "cardiac"}},
    ]
    plan = plan_of({"sources.long": chain, "grid.source": ["long"], "grid.pretrain_epochs": [1, 4]})
    for cell in plan.cells:
        first, second, third = (plan.stages[stage] for stage in cell.lineage)
        assert (first.parent, second.parent.stage, second.parent.epoch) == (None, first.id, 3)
        assert (third.parent.stage, third.parent.epoch) == (second.id, 2)
        assert plan.stages[cell.stage].parent.stage == third.id
        assert plan.stages[cell.stage].parent.epoch == cell.pretrain_epochs
    order = list(plan.stages)
    for stage in plan.stages.values():
        assert stage.parent is None or order.index(stage.parent.stage) < order.index(stage.id)


def test_counts_beyond_the_pack_are_refused_with_what_there_is():
    with pytest.raises(StudyError, match=r"asks for 33, but pack 'cardiac' has 32 annotated slices.*1 to 32"):
        plan_of({"grid.annotations": [33]})


def test_a_backbone_of_other_channels_than_its_pack_is_refused():
    with pytest.raises(StudyError, match=r"backbones.small.channels is 3, but pack 'cardiac' has 1 channel "):
        plan_of({"backbones.small.channels": 3})


def test_weights_that_cannot_be_read_are_refused_before_anything_runs():
    with pytest.raises(StudyError, match=r"/nowhere/w.pt cannot be read"):
        plan_of({"sources.random": {"weights": "/nowhere/w.pt"}})


def test_weights_files_count_by_content_and_are_handed_on_as_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, content in (("a.pt", b"1"), ("b.pt", b"1"), ("c.pt", b"2")):
        Path(name).write_bytes(content)
    plans = {n: plan_of({"sources.random": {"weights": {"file": n}}}) for n in ("a.pt", "b.pt", "c.pt")}
    ids = {name: plan.cells[0].stage for name, plan in plans.items()}
    assert ids["a.pt"] == ids["b.pt"] != ids["c.pt"]
    assert plans["a.pt"].stages[ids["a.pt"]].inputs["weights"] == str(tmp_path / "a.pt")


def test_stages_survive_the_way_to_a_worker():
    for stage in plan_of(ALL_SOURCES).stages.values():
        assert stage_from_json(stage_to_json(stage)) == stage


def test_the_summary_counts_what_the_ledger_has_and_not_a_run_that_lacks_a_snapshot():
    plan = plan_of()
    pretrain = next(s for s in plan.stages.values() if s.kind == "pretrain")
    whole = LedgerRecord(pretrain.id, "done", (1, 2))
    assert is_done(pretrain, whole)
    assert not is_done(pretrain, LedgerRecord(pretrain.id, "done", (1,)))
    assert not is_done(pretrain, LedgerRecord(pretrain.id, "failed", (1, 2)))
    summary = summarise(plan, {pretrain.id: whole})
    assert (summary.num_cells, summary.num_stages, summary.num_done, summary.num_failed) == (3, 4, 1, 0)
    assert plan_json(plan, {})["summary"]["num_done"] == 0
    assert len(plan_json(plan, {})["cells"]) == 3


def test_work_grows_with_the_stages_and_not_with_the_cells(monkeypatch):
    hashed = []

    def counting(value):
        hashed.append(1)
        return content_id(value)

    content_id = build_module.content_id
    monkeypatch.setattr(build_module, "content_id", counting)
    counts = {}
    for seeds in (10, 100):
        hashed.clear()
        plan = plan_of({"grid.seed": list(range(seeds)), "grid.pretrain_epochs": [1, 2, 3, 4]})
        counts[seeds] = (len(hashed), len(plan.cells))
    assert counts[100][0] <= 10 * counts[10][0]
    assert counts[100][0] <= counts[100][1] + 16


def test_public_names_of_planning_stay():
    assert set(planning.__all__) >= {"Cell", "PackFacts", "Parent", "Plan", "PlanSummary", "Stage", "build_plan"}
