from __future__ import annotations

import random

import numpy as np
import pytest
from scipy import stats

from raysweep.engine.launch import Launch
from raysweep.engine.queue import State
from raysweep.engine.seed_gate import SeedGate
from raysweep.errors import StudyError
from raysweep.planning import Plan, build_plan
from raysweep.stages.failure import Failure
from raysweep.stages.progress import Progress
from raysweep.store import Store
from tests.studies import FAKE_FACTS, fake_study

SEEDS = 8
STOP = {"seeds": "decided", "reference": "random", "min_seeds": 3}


def plan_of(changes=None) -> Plan:
    one_arm = {"grid.source": ["random", "cardiac"], "grid.pretrain_epochs": [2], "grid.seed": list(range(SEEDS))}
    return build_plan(fake_study({**one_arm, "stop": STOP, **(changes or {})}), FAKE_FACTS)


def cells_of(plan: Plan, source: str) -> dict[int, str]:
    return {cell.seed: cell.stage for cell in plan.cells if cell.source == source}


def play(plan: Plan, store: Store, score, failing=()) -> dict[str, int]:
    """Run a launch whose fine-tunings score what a function of source and seed says; return seeds run by source."""
    launch = Launch(plan, store)
    by_stage = {cell.stage: cell for cell in plan.cells}
    while (stage := launch.queue.take()) is not None:
        if stage.kind == "pretrain":
            launch.progress(stage, Progress(stage.epochs, stage.snapshots))
            launch.finished(stage)
        elif (cell := by_stage[stage.id]).name in failing:
            launch.failed(stage, Failure("broken"))
        else:
            launch.progress(stage, Progress(stage.epochs, score=score(cell.source, cell.seed)))
            launch.finished(stage)
    assert launch.queue.is_finished
    done = [by_stage[s].source for s in by_stage if launch.queue.state(s) is State.DONE]
    return {source: done.count(source) for source in plan.study.grid.source}


def test_a_clear_difference_needs_few_seeds_and_the_rest_is_not_run(tiny_store):
    noise = random.Random(0)
    run = play(plan_of(), tiny_store, lambda source, seed: 0.5 + 0.3 * (source == "cardiac") + noise.gauss(0, 0.001))
    assert run == {"random": 3, "cardiac": 3}


def test_an_open_comparison_gets_every_seed(tiny_store):
    noise = random.Random(1)
    assert play(plan_of(), tiny_store, lambda source, seed: noise.gauss(0.5, 0.1)) == {"random": 8, "cardiac": 8}


def test_differences_that_do_not_matter_are_decided_too(tiny_store):
    noise = random.Random(2)
    plan = plan_of({"stop": {**STOP, "margin": 0.2}})
    run = play(plan, tiny_store, lambda source, seed: 0.5 + noise.gauss(0, 0.001))
    assert run == {"random": 3, "cardiac": 3}


def test_the_reference_goes_on_while_any_comparison_is_open(tiny_store):
    noise = random.Random(3)
    shift = {"random": 0.0, "cardiac": 0.3, "leaves-cardiac": 0.0}
    plan = plan_of({"grid.source": list(shift)})
    run = play(plan, tiny_store, lambda source, seed: 0.5 + shift[source] + noise.gauss(0, 0.01))
    assert run["cardiac"] < 8
    assert run["random"] == run["leaves-cardiac"] == 8


def test_a_seed_that_failed_is_no_pair_and_the_comparison_goes_on(tiny_store):
    plan = plan_of()
    failing = {cell.name for cell in plan.cells if cell.seed == 1 and cell.source == "cardiac"}
    noise = random.Random(4)
    run = play(plan, tiny_store, lambda source, seed: 0.3 * (source == "cardiac") + noise.gauss(0, 0.001), failing)
    assert run == {"random": 4, "cardiac": 3}


def test_scores_of_an_earlier_launch_count():
    plan = plan_of()
    scores = {stage: 0.5 + 0.001 * seed for seed, stage in cells_of(plan, "random").items() if seed < 3}
    scores |= {stage: 0.8 + 0.0015 * seed for seed, stage in cells_of(plan, "cardiac").items() if seed < 3}
    dropped = SeedGate(plan, plan.study.stop, scores).start().dropped
    assert set(dropped) == {s for source in ("random", "cardiac") for k, s in cells_of(plan, source).items() if k >= 3}
    assert set(dropped.values()) == {"not needed: its comparison was decided after 3 seeds"}


def test_the_interval_is_students_at_the_level_of_one_look():
    plan = plan_of()
    differences = [0.1, 0.12, 0.07, 0.11]
    alpha = 0.05 / (SEEDS - 3 + 1)
    expected = stats.t.interval(1 - alpha, 3, loc=np.mean(differences), scale=stats.sem(differences))
    assert SeedGate(plan, plan.study.stop, {}).interval(differences) == pytest.approx(expected)


def test_no_difference_is_decided_wrongly_no_more_often_than_alpha():
    plan = plan_of({"stop": {**STOP, "alpha": 0.2}})
    gate = SeedGate(plan, plan.study.stop, {})
    rng = np.random.default_rng(5)
    wrong = 0
    for _ in range(2000):
        differences = rng.normal(size=SEEDS)
        intervals = [gate.interval(differences[:size].tolist()) for size in range(3, SEEDS + 1)]
        wrong += any(low > 0 or high < 0 for low, high in intervals)
    assert 0.05 < wrong / 2000 < 0.2  # looking without correction would be wrong in more than 0.2 of the cases


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stop.reference": ...}, "stop.reference: is required"),
        ({"stop.reference": "randm"}, "random"),
        ({"grid.seed": [0, 1, 2]}, "stop.seeds: decided needs more than min_seeds: 3"),
    ],
)
def test_a_study_that_cannot_be_decided_is_refused(changes, message):
    with pytest.raises(StudyError, match=message):
        plan_of({"stop": dict(STOP), **changes})
