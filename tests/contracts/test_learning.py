"""What only training shows: methods leave features that know more than the random ones they started from."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from raysweep import registry
from raysweep.store import Store
from tests.benchmarks import results_file
from tests.benchmarks.pretraining import PROBES, STORE
from tests.benchmarks.pretraining_runs import probe_pretraining

NAMES = registry.names("methods")
_RESULTS = json.loads((Path(results_file.__file__).parent / "results/pretraining.json").read_text(encoding="utf-8"))
TABLE = {row["method"]: row for row in _RESULTS["rows"]}
LEAST_GAIN = 0.01
"""Of Dice, to say that a probe is better: twice what the draw of the cells that it learns from moves it by."""
SHARE = 1 / 3
"""Of a gain in the table that a repetition, on another machine or with other versions, has to reach."""
_TOKENS = "neighbours among the random tokens of a small transformer go by pixels (0.27, its linear probe finds 0.18)"
_BANK = "480 steps see each slice eight times; most of them go into forgetting a bank that is random at first"
_SMALL = "a gain, but below what the draw of cells moves"
WITHOUT_GAIN: dict[tuple[str, str], str] = {
    ("mae", "kNN"): f"{_TOKENS}; after 1200 steps features have a rank of 2, so that cosines hardly differ",
    ("i-jepa", "kNN"): f"{_TOKENS}; after 1200 steps features have a rank of 2",
    ("dinov2", "kNN"): f"{_TOKENS}; 480 steps are too few to take their place",
    ("ibot", "kNN"): f"{_TOKENS}; 480 steps are too few to take their place",
    ("nnclr", "kNN"): "in batches of 16 its loss falls from chance, log 16 = 2.77, to 2.67 alone in 1200 steps",
    ("insdis", "linear"): _BANK,
    ("insdis", "kNN"): _BANK,
    ("pirl", "linear"): _BANK,
    ("pirl", "kNN"): _BANK,
    ("pcl-v1", "linear"): _SMALL,
    ("moco-v3", "kNN"): _SMALL,
    ("sela-v2", "kNN"): _SMALL,
    ("simsiam", "kNN"): _SMALL,
}
"""Methods and probes without a gain after so short a training, and why."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The store of the benchmark, where one is named, else one that packs the data once for all methods."""
    return Store(os.environ.get(STORE) or tmp_path_factory.mktemp("learning")).prepare()


def test_the_table_has_every_method_and_names_what_gained_nothing():
    assert sorted(TABLE) == NAMES
    small = {(name, probe) for name, row in TABLE.items() for probe in PROBES if row[f"{probe} gain"] < LEAST_GAIN}
    assert small == set(WITHOUT_GAIN)


def test_seconds_of_training_raise_what_features_know_of_held_out_patients(store):
    """By a third of what two seeds gained, 0.12 and 0.07; convolutional networks need the minutes of the heavy test."""
    probed = probe_pretraining("simmim", seed=0, epochs=12, store=store, patients=30)
    assert probed.gain("linear_dice") > 0.03
    assert probed.trained["rank_me"] > 1.5  # of a collapsed encoder it is 1


@pytest.mark.heavy
@pytest.mark.parametrize("name", NAMES)
def test_short_training_raises_what_features_know_of_held_out_patients(name, store):
    """Against the same weights with the statistics of the data, by a third of the gain that the table has."""
    probed = probe_pretraining(name, seed=0, store=store)
    for probe, metric in PROBES.items():
        if (name, probe) not in WITHOUT_GAIN:
            assert probed.gain(metric) > SHARE * TABLE[name][f"{probe} gain"], probe
    assert probed.trained["rank_me"] > 1.5
