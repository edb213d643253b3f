"""The simulation with its own constants against makespans of Ray Tune that a benchmark has measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from raysweep.planning import Plan
from raysweep.planning.cost import Measured, Rates
from raysweep.simulation.cluster import Cluster, NodeKind
from raysweep.simulation.durations import CERTAIN, Durations
from raysweep.simulation.overheads import MEASURED
from raysweep.simulation.run import SimulatedLaunch
from tests.benchmarks.makespan import mixed_plan
from tests.fake_stages import fake_plan

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "makespan.json"


def test_makespans_of_real_runs_are_predicted_within_a_tenth():
    measured = json.loads(RESULTS.read_text(encoding="utf-8"))
    fakes = mixed_plan(num_chains=3, epoch_s=0.4)
    assert {row["stages"] for row in measured["rows"]} == {len(fakes)}
    planned = fake_plan(fakes)
    stages = {key: replace(stage, shape=key) for key, stage in planned.stages.items()}
    rates = Rates({key: Measured(stage.config["fake"]["epoch_s"]) for key, stage in stages.items()})
    overheads = replace(MEASURED, stage_setup_s=0.0)  # its stages sleep: they build nothing
    cluster = Cluster("slots", (NodeKind(cpus=measured["conditions"]["slots"]),))
    launch = SimulatedLaunch(
        Plan(planned.study, (), stages),
        {},
        rates,
        cluster,
        Durations(rates, CERTAIN, "0"),
        overheads=overheads,
        keep_attempts=True,
    )
    trace = launch.run()
    predicted_s = trace.makespan_s - min(attempt.trains_from_s for attempt in trace.attempts)
    for row in measured["rows"]:
        assert predicted_s == pytest.approx(row["makespan s"], rel=0.1)
        assert predicted_s > max(row["work / slots s"], row["critical path s"])
