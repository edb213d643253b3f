"""A pretraining of several ranks under Ray, in the worker's own placement group, and the stages that start from it."""

import pytest

from raysweep import run
from raysweep.results.read import store_tables

pytestmark = [pytest.mark.heavy, pytest.mark.usefixtures("ray_session")]


def test_ranks_of_a_worker_train_a_study_as_one_process_does(tiny_study, tiny_store):
    changes = {
        "grid.source": ["cardiac"],
        "grid.pretrain_epochs": [1],
        "resources": {"attempts": 1, "pretrain": {"cpus": 2, "ranks": 2}},
    }
    ended = run(tiny_study(changes), store=tiny_store)
    assert ended.outcome.failed == {}
    assert ended.outcome.is_complete
    rows = store_tables(tiny_store)["stages"].to_pylist()
    assert {row["kind"]: row["device"] for row in rows} == {"pretrain": "2 x cpu", "finetune": "cpu"}
