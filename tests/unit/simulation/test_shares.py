"""Shares of a GPU: fine-tunings side by side against fine-tunings slowed down."""

from __future__ import annotations

import pytest

from raysweep.errors import StudyError
from raysweep.planning.cost import Measured, Rates
from raysweep.simulation import Cluster, NodeKind, forecast
from raysweep.simulation.overheads import NO_OVERHEADS
from raysweep.simulation.shares import forecast_shares, with_share
from tests.fake_stages import Fake, fake_plan

ONE_SECOND = Rates({"": Measured(1.0)})
ONE_GPU = [Cluster("a GPU", (NodeKind(gpus=1, cpus=8),))]


def makespans(contention: float, gpus: float | str = 1) -> dict[str, float]:
    plan = fake_plan([Fake(f"stage {number}", epochs=10) for number in range(8)], {"finetune": {"gpus": gpus}})
    found = forecast_shares(
        plan,
        ONE_SECOND,
        "1,0.5,0.25",
        contention,
        lambda changed, rates: forecast(changed, {}, rates, ONE_GPU, overheads=NO_OVERHEADS),
    )
    return {size.cluster.name: size.makespan_s.median for size in found.sizes}


@pytest.mark.parametrize(
    ("contention", "expected"), [(0.0, (80, 40, 20)), (0.5, (80, 60, 50)), (1.0, (80, 80, 80)), (1.5, (80, 100, 110))]
)
def test_sharing_helps_as_far_as_stages_leave_the_gpu_idle(contention, expected):
    names = [f"a GPU, {share} a fine-tuning" for share in ("1", "0.5", "0.25")]
    assert makespans(contention) == dict(zip(names, expected, strict=True))


def test_rates_that_were_measured_at_a_share_are_rates_of_that_share():
    assert list(makespans(0.5, gpus=0.5).values()) == pytest.approx([80 / 1.5, 40, 20 * 2.5 / 1.5])
    assert makespans(0.5, gpus="auto") == makespans(0.5)


def test_fine_tunings_that_use_no_gpu_have_no_share_to_compare():
    with pytest.raises(StudyError, match=r"resources\.finetune\.gpus is 0"):
        with_share(fake_plan([Fake("a")]), ONE_SECOND, 0.5, 0.5)


@pytest.mark.parametrize("shares", ["0", "1.5", "half", "0.5,"])
def test_wrong_shares_say_what_is_allowed(shares):
    with pytest.raises(StudyError, match="give numbers above 0 and up to 1"):
        forecast_shares(fake_plan([Fake("a")]), ONE_SECOND, shares, 0.5, None)
