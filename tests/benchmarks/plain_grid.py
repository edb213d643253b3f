"""The same stages run by raysweep and by what a user of Ray Tune would write: a function trainable over a grid."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable

from ray import tune

from raysweep.engine.launch import Launch
from raysweep.engine.tune import TuneExecutor
from raysweep.planning import Plan, Stage
from raysweep.planning.model import stage_from_json, stage_to_json
from raysweep.store import Store


def run_ours(plan: Plan, store: Store) -> None:
    """Run a plan through the queue and the executor on Tune."""
    TuneExecutor().run(Launch(plan, store))


def run_plain(plan: Plan, store: Store) -> None:
    """Run the stages of a plan as trials of a plain grid."""
    run_plain_stages(plan.stages.values(), store)


def run_plain_stages(stages: Iterable[Stage], store: Store) -> None:
    """Run stages as trials of a plain grid.

    Raises:
        RuntimeError: if one failed.
    """

    def train(config: dict[str, str]) -> None:
        from raysweep.stages.run import run_stage

        for progress in run_stage(stage_from_json(config["stage"]), store, threads=1, attempt=1):
            tune.report({"epoch": progress.epoch})

    with tempfile.TemporaryDirectory() as folder:
        grid = {"stage": tune.grid_search([stage_to_json(stage) for stage in stages])}
        tuner = tune.Tuner(
            train, param_space=grid, run_config=tune.RunConfig(name="plain", storage_path=folder, verbose=0)
        )
        if tuner.fit().errors:
            raise RuntimeError("a plain trial failed")
