"""What only training shows: methods leave features that know more than the random ones they started from."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from raysweep import registry
from raysweep.store import Store
from tests.benchmarks import results_file
from tests.benchmarks.pretraining import PROBES, SEEDS, STORE
from tests.benchmarks.pretraining_runs import probe_pretraining

NAMES = registry.names("methods")
_RESULTS = json.loads((Path(results_file.__file__).parent / "results/pretraining.json").read_text(encoding="utf-8"))
TABLE = {row["method"]: row for row in _RESULTS["rows"]}
LEAST_GAIN = 0.01
"""Of Dice, to say that a probe is better: twice what the draw of the cells that it learns from moves it by."""
SHARE = 1 / 3
"""Of a gain in the table that a repetition, on another machine or with other versions, has to reach."""
NOT_COLLAPSED = 1.2
"""Effective rank of pooled features; 1 where they are one vector. Masked modelling leaves 1.5: much is in common."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The store of the benchmark, where one is named, else one that packs the data once for all methods."""
    return Store(os.environ.get(STORE) or tmp_path_factory.mktemp("learning")).prepare()


def test_the_table_has_every_method_and_both_probes_of_each_gained():
    assert sorted(TABLE) == NAMES
    assert not {(name, probe) for name, row in TABLE.items() for probe in PROBES if row[f"{probe} gain"] < LEAST_GAIN}


def test_seconds_of_training_raise_what_features_know_of_held_out_patients(store):
    """By half of what three seeds gained, 0.05 to 0.08; convolutional networks need the minutes of the heavy test."""
    probed = probe_pretraining("simmim", seed=0, epochs=12, store=store, patients=30)
    assert probed.gain("linear_dice") > 0.03
    assert probed.trained["rank_me"] > NOT_COLLAPSED


@pytest.mark.heavy
@pytest.mark.parametrize("name", NAMES)
def test_short_training_raises_what_features_know_of_held_out_patients(name, store):
    """Against the same weights with the statistics of the data, by a third of the gain that the table has."""
    probed = probe_pretraining(name, seed=SEEDS[0], store=store)
    for probe, metric in PROBES.items():
        assert probed.gain(metric) > SHARE * TABLE[name][f"{probe} gain"], probe
    assert probed.trained["rank_me"] > NOT_COLLAPSED
