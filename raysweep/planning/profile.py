"""Choosing the stage of a plan that is to be profiled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from raysweep.errors import StudyError, did_you_mean
from raysweep.ledger import LedgerRecord
from raysweep.planning.model import Plan, is_done


def with_profile(plan: Plan, wanted: str, ledger: Mapping[str, LedgerRecord]) -> Plan:
    """Return the plan with one stage to be profiled: the first one left to run of a stage's or cell's name, or an id.

    Raises:
        StudyError: if there is no such stage, or it is done.
    """
    named = {stage.id: {stage.id, stage.name} for stage in plan.stages.values()}
    for cell in plan.cells:
        named[cell.stage].add(cell.name)
    found = [stage for stage in plan.stages.values() if wanted in named[stage.id]]
    if not found:
        names = sorted({name for names in named.values() for name in names})
        raise StudyError(
            f"--profile {wanted}: study {plan.study.study} has no such stage.{did_you_mean(wanted, names)} "
            "`raysweep plan --json` lists all names."
        )
    left = [stage for stage in found if not is_done(stage, ledger.get(stage.id))]
    if not left:
        raise StudyError(
            f"--profile {wanted}: the stage is done and will not run again. "
            "Name one that is left, or use another store."
        )
    stages = {**plan.stages, left[0].id: replace(left[0], profile=True)}
    return replace(plan, stages=stages)
