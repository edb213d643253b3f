"""Learning-rate schedules against their formulas and against torch's."""

import math

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from raysweep.settings import Optimisation
from raysweep.stages.optimisation import build_optimiser
from raysweep.stages.schedules import Plateau, learning_rate, set_weight_decay, weight_decay

SCHEDULE = Optimisation(lr=0.3, warmup_epochs=2, warmup_lr=0.01, final_lr=0.003)


def test_warmup_is_linear_and_the_cosine_follows_its_formula():
    for step in range(100):
        got = learning_rate(SCHEDULE, step, steps_per_epoch=10, total_steps=100)
        if step < 20:
            expected = 0.01 + (0.3 - 0.01) * step / 20
        else:
            expected = 0.003 + (0.3 - 0.003) * 0.5 * (1 + math.cos(math.pi * (step - 20) / 79))
        assert got == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("lr", [0.3, 0.1, 1e-3, 3e-4, 7.7])
def test_both_ends_and_the_peak_are_exact(lr):
    settings = Optimisation(lr=lr, warmup_epochs=2, warmup_lr=1e-6, final_lr=3e-7)
    assert learning_rate(settings, 0, 10, 100) == 1e-6
    assert learning_rate(settings, 20, 10, 100) == lr
    assert learning_rate(settings, 99, 10, 100) == 3e-7


def test_constant_schedule_stays_at_the_peak_after_warmup():
    settings = Optimisation(lr=0.3, schedule="constant", warmup_epochs=1)
    assert [learning_rate(settings, step, 2, 6) for step in range(6)] == [0.0, 0.15, 0.3, 0.3, 0.3, 0.3]


def test_fraction_of_an_epoch_of_warmup_is_rounded_to_steps():
    assert learning_rate(Optimisation(lr=1, warmup_epochs=0.25), 2, 10, 100) == 1


@pytest.mark.parametrize("total_steps", [1, 2, 5])
def test_schedule_shorter_than_its_warmup_never_passes_the_peak(total_steps):
    settings = Optimisation(lr=0.3, warmup_epochs=1)
    rates = [learning_rate(settings, step, 10, total_steps) for step in range(total_steps)]
    assert rates == sorted(rates)
    assert rates[-1] < 0.3


def test_single_step_without_warmup_uses_the_peak():
    assert learning_rate(Optimisation(lr=0.3), 0, 1, 1) == 0.3


@pytest.mark.parametrize("step", [-1, 100])
def test_step_outside_the_schedule_is_refused(step):
    with pytest.raises(ValueError, match="outside the schedule of 100 steps"):
        learning_rate(SCHEDULE, step, 10, 100)


def torch_rates(make, epochs):
    """Rates of every epoch as one of torch's schedulers sets them."""
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = make(optimiser)
    found = []
    for _ in range(epochs):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    return found


PER_EPOCH = {
    "cosine": ({"final_lr": 0.01}, lambda o: lr_scheduler.CosineAnnealingLR(o, 12, eta_min=0.01)),
    "polynomial": ({"power": 0.9}, lambda o: lr_scheduler.PolynomialLR(o, 12, 0.9)),
    "step": ({"drop_every_epochs": 5, "factor": 0.2}, lambda o: lr_scheduler.StepLR(o, 5, 0.2)),
    "constant": ({}, lambda o: lr_scheduler.ConstantLR(o, 1.0)),
}


@pytest.mark.parametrize("name", PER_EPOCH)
def test_schedules_per_epoch_are_those_of_torch(name):
    own, make = PER_EPOCH[name]
    settings = Optimisation(lr=0.3, schedule=name, schedule_per="epoch", **own)
    rates = [learning_rate(settings, step, 7, 12 * 7) for step in range(12 * 7)]
    assert rates[::7] == pytest.approx(torch_rates(make, 12), rel=1e-9)
    assert all(rates[step] == rates[step - step % 7] for step in range(12 * 7)), "constant within an epoch"


def test_warmup_per_epoch_holds_the_rate_for_an_epoch_and_peaks_when_it_ends():
    settings = Optimisation(lr=0.4, schedule_per="epoch", warmup_epochs=4, warmup_lr=0.0)
    rates = [learning_rate(settings, step, 3, 30) for step in range(30)]
    assert rates[:15:3] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert rates[15] == pytest.approx(0.4 * (1 + math.cos(math.pi / 6)) / 2)


def test_polynomial_per_step_follows_its_formula_and_ends_exactly():
    settings = Optimisation(lr=0.3, schedule="polynomial", power=2, final_lr=0.1)
    rates = [learning_rate(settings, step, 5, 21) for step in range(21)]
    assert rates == pytest.approx([0.1 + 0.2 * (1 - step / 20) ** 2 for step in range(21)])
    assert (rates[0], rates[-1]) == (0.3, 0.1)


def test_drops_count_from_the_end_of_warmup_and_do_not_pass_the_lowest_rate():
    settings = Optimisation(
        lr=1.0, schedule="step", drop_every_epochs=2, factor=0.1, warmup_epochs=1, warmup_lr=0.5, final_lr=0.05
    )
    assert [learning_rate(settings, step, 1, 7) for step in range(7)] == [0.5, 1.0, 1.0, 0.1, 0.1, 0.05, 0.05]


LOSSES = [1.0, 0.9, 0.9, 0.95, 0.89, 0.9, 0.9, 0.9, 0.9, 0.9, 0.8899999, 0.7, 0.71, 0.7, 0.7, 0.7, 0.7, 0.1]


@pytest.mark.parametrize(("patience", "factor"), [(0, 0.5), (1, 0.5), (2, 0.1), (5, 0.5)])
@pytest.mark.parametrize("sign", [1, -1], ids=["falling", "rising"])
def test_plateau_drops_when_torchs_scheduler_does(patience, factor, sign):
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    theirs = lr_scheduler.ReduceLROnPlateau(
        optimiser, "min" if sign == 1 else "max", factor=factor, patience=patience, threshold=1e-4, eps=0
    )
    settings = Optimisation(lr=0.3, schedule="plateau", factor=factor, patience=patience)
    plateau = Plateau()
    values = LOSSES if sign == 1 else [1.2 - loss for loss in LOSSES]
    for value in values:
        theirs.step(value)
        plateau.update(settings, sign * value)
        rate = learning_rate(settings, 0, 1, 1, plateau.scale)
        assert rate == pytest.approx(optimiser.param_groups[0]["lr"])
    assert plateau.scale < 1


def test_plateau_takes_a_loss_that_is_not_a_number_for_no_improvement_and_keeps_to_the_lowest_rate():
    settings = Optimisation(lr=1.0, schedule="plateau", factor=0.1, patience=0, final_lr=0.05)
    plateau = Plateau()
    for value in (math.nan, 1.0, math.nan, math.nan):
        plateau.update(settings, value)
    assert plateau.best == 1.0
    assert learning_rate(settings, 0, 1, 1, plateau.scale) == 0.05


def test_plateau_continues_from_its_state():
    settings = Optimisation(schedule="plateau", patience=1)
    whole, first = Plateau(), Plateau()
    for value in LOSSES[:6]:
        whole.update(settings, value)
        first.update(settings, value)
    restored = Plateau()
    restored.load_state_dict(first.state_dict())
    for value in LOSSES[6:]:
        whole.update(settings, value)
        restored.update(settings, value)
    assert restored == whole


def test_weight_decay_follows_half_a_cosine_for_those_that_decay():
    settings = Optimisation(weight_decay=0.04, final_weight_decay=0.4)
    assert weight_decay(settings, 0, 11) == pytest.approx(0.04)
    assert weight_decay(settings, 5, 11) == pytest.approx(0.22)
    assert weight_decay(settings, 10, 11) == pytest.approx(0.4)
    assert weight_decay(settings, 0, 1) == 0.04
    assert weight_decay(Optimisation(weight_decay=0.3), 7, 11) == 0.3
    optimiser = build_optimiser(nn.Linear(3, 2), settings)
    set_weight_decay(optimiser, 0.22)
    assert [group["weight_decay"] for group in optimiser.param_groups] == [0.22, 0.0]
