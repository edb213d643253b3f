"""Which stage `--profile` means."""

import pytest

from raysweep.errors import StudyError
from raysweep.planning import build_plan
from raysweep.planning.model import stage_from_json, stage_to_json
from raysweep.planning.profile import with_profile
from raysweep.store import LedgerRecord
from tests.studies import FAKE_FACTS, fake_study


@pytest.fixture(scope="module")
def plan():
    return build_plan(fake_study(), FAKE_FACTS)


def test_a_stage_is_named_by_its_name_its_id_or_a_cell_that_it_answers(plan):
    cell = plan.cells[-1]
    stage = plan.stages[cell.stage]
    for name in (stage.name, stage.id, cell.name):
        chosen = with_profile(plan, name, {})
        assert [s.id for s in chosen.stages.values() if s.profile] == [stage.id]
        assert list(chosen.stages) == list(plan.stages)
        assert stage_from_json(stage_to_json(chosen.stages[stage.id])).profile


def test_a_name_that_is_not_there_is_refused_with_the_nearest(plan):
    name = next(iter(plan.stages.values())).name
    with pytest.raises(StudyError, match=f"no such stage. Did you mean '{name}'"):
        with_profile(plan, name[:-1], {})


def test_a_stage_that_is_done_is_refused(plan):
    stage = plan.stages[plan.cells[0].stage]
    with pytest.raises(StudyError, match="is done and will not run again"):
        with_profile(plan, stage.name, {stage.id: LedgerRecord(stage.id, "done", stage.snapshots)})
