from __future__ import annotations

import pytest

from raysweep.results.rates import measured_rates
from raysweep.results.write import write_part
from raysweep.study import Resources


def add_stage(store, name, **columns):
    row = {"stage": name, "kind": "finetune", "status": "done", "shape": "s", "device": "cpu", "epochs": 10, **columns}
    write_part(store, "stages", name, [row])


def test_rates_are_means_over_epochs_with_the_spread_between_stages(tiny_store):
    for number, (wall_s, epochs) in enumerate([(10.0, 10), (20.0, 10), (60.0, 20)]):
        add_stage(tiny_store, f"stage{number}", wall_s=wall_s, epochs=epochs)
    add_stage(tiny_store, "other", shape="t", wall_s=5.0)
    rates = measured_rates(tiny_store, Resources())
    assert rates.measured["s"].epoch_s == pytest.approx(90 / 40)
    assert rates.measured["s"].epoch_s_spread == pytest.approx(1.0 / 2.0)  # of 1, 2 and 3 seconds an epoch
    assert rates.measured["t"].epoch_s_spread == 0


def test_ranks_that_trained_together_are_no_spread(tiny_store):
    add_stage(tiny_store, "alone", wall_s=40.0)
    add_stage(tiny_store, "together", wall_s=20.0, device="2 x cpu")
    found = measured_rates(tiny_store, Resources()).measured["s"]
    assert (found.epoch_s, found.epoch_s_spread) == (4.0, 0.0)


def test_stages_that_failed_or_ran_on_another_kind_of_device_say_nothing(tiny_store):
    add_stage(tiny_store, "failed", wall_s=40.0, status="failed")
    add_stage(tiny_store, "elsewhere", wall_s=40.0, device="cuda:0 NVIDIA A100")
    assert measured_rates(tiny_store, Resources()).measured == {}
