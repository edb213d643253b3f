"""An encoder is probed once before training, however many pretrainings start from it."""

import pytest

from raysweep.planning import build_plan
from raysweep.results.read import store_tables
from raysweep.sources.encoder import build_encoder
from raysweep.stages.known_probes import measure_once
from raysweep.stages.probes import Probes
from raysweep.stages.run import run_stage
from raysweep.sweep import _facts
from tests.pretraining import CONV
from tests.unit.stages.test_probes import probes_of


@pytest.fixture
def counted(monkeypatch):
    """The probes that are measured."""
    calls = []
    measure = Probes.measure
    monkeypatch.setattr(Probes, "measure", lambda self, encoder: calls.append(1) or measure(self, encoder))
    return calls


def test_pretrainings_from_one_start_share_its_probes(tiny_study, tiny_store, counted):
    changes = {"grid.source": ["cardiac"], "grid.method": ["simclr", "vicreg"], "grid.pretrain_epochs": [1]}
    plan = build_plan(tiny_study(changes), _facts(tiny_study(changes), tiny_store))
    stages = [stage for stage in plan.stages.values() if stage.kind == "pretrain"]
    for stage in stages:
        list(run_stage(stage, tiny_store, threads=1, attempt=1))
    assert len(counted) == 1 + 2  # the start once, and each encoder after its epoch
    rows = store_tables(tiny_store)["epochs"].to_pylist()
    start = [
        {row["metric"]: row["value"] for row in rows if (row["stage"], row["epoch"]) == (stage.id, 0)}
        for stage in stages
    ]
    assert start[0] == start[1]
    assert {"knn_dice", "linear_dice", "rank_me"} <= start[0].keys()


def test_another_start_is_probed_for_itself(tiny_study, tiny_store, counted):
    for seed in (0, 1):
        changes = {"grid.source": ["cardiac"], "grid.pretrain_epochs": [1], "pretraining.seed": seed}
        plan = build_plan(tiny_study(changes), _facts(tiny_study(changes), tiny_store))
        stage = next(stage for stage in plan.stages.values() if stage.kind == "pretrain")
        next(run_stage(stage, tiny_store, threads=1, attempt=1))
    assert len(counted) == 2


def test_a_start_is_probed_anew_once_the_procedure_has_changed(cardiac_pack, tiny_store, counted, monkeypatch):
    encoder, probes = build_encoder(CONV), probes_of(cardiac_pack)
    for recipe in (1, 1, 2):
        monkeypatch.setattr("raysweep.stages.known_probes.RECIPE", recipe)
        measure_once(probes, encoder, tiny_store)
    assert len(counted) == 2
