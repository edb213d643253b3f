"""What only longer training shows: every method leaves features that know more than those it started from."""

from __future__ import annotations

import pytest

from raysweep import registry
from raysweep.store import Store
from tests.benchmarks.pretraining import epochs_of, probe_before_and_after

NAMES = registry.names("methods")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store that packs the data once for all methods."""
    return Store(tmp_path_factory.mktemp("learning")).prepare()


@pytest.mark.heavy
@pytest.mark.parametrize("name", NAMES)
def test_short_training_raises_what_neighbours_of_held_out_patients_know(name, store):
    before, after, _ = probe_before_and_after(name, seed=0, epochs=epochs_of(name), store=store)
    assert after["knn_dice"] > before["knn_dice"] + 0.01
    assert after["rank_me"] > 2.0  # of a collapsed encoder it is about 1
