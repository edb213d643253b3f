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
def test_short_training_raises_what_features_know_of_held_out_patients(name, store):
    """Either probe by a hundredth of Dice: some methods help neighbours first, some a linear classifier."""
    before, after, _ = probe_before_and_after(name, seed=0, epochs=epochs_of(name), store=store)
    assert max(after[probe] - before[probe] for probe in ("knn_dice", "linear_dice")) > 0.01
    assert after["rank_me"] > 1.5  # of a collapsed encoder it is 1
