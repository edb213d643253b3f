from __future__ import annotations

import pytest

from raysweep.engine.gpu_shares import GpuShares
from raysweep.planning import Stage
from raysweep.planning.cost import Measured
from raysweep.study import StageResources

GIB = 2**30
AUTO = StageResources(gpus="auto")


def stage(shape: str = "a") -> Stage:
    return Stage("id", "finetune", "name", {}, None, 1, {}, shape=shape)


def test_a_stage_without_gpu_asks_for_none():
    assert GpuShares({}).share(stage(), StageResources()) == 0.0


def test_the_first_stage_of_a_shape_has_a_whole_gpu():
    assert GpuShares({}).share(stage(), AUTO) == 1.0


@pytest.mark.parametrize(
    ("peak_gib", "total_gib", "share"),
    [(2, 16, 1 / 4), (3.0, 16, 1 / 4), (4, 16, 1 / 3), (15, 16, 1.0), (20, 16, 1.0), (0.1, 80, 1 / 16)],
)
def test_later_ones_get_the_smallest_share_that_holds_what_was_measured(peak_gib, total_gib, share):
    shares = GpuShares({})
    shares.measured(stage(), round(peak_gib * GIB), total_gib * GIB)
    assert shares.share(stage(), AUTO) == share
    assert shares.share(stage("other"), AUTO) == 1.0
    assert share == 1.0 or share * total_gib >= peak_gib * 1.1 + 0.58


def test_what_the_store_remembers_counts_from_the_start():
    assert GpuShares({"a": Measured(1.0, 2 * GIB, 16 * GIB)}).share(stage(), AUTO) == 1 / 4


def test_the_largest_peak_on_the_smallest_gpu_decides():
    shares = GpuShares({})
    for peak, total in ((2, 16), (1, 80), (3, 40)):
        shares.measured(stage(), peak * GIB, total * GIB)
    assert shares.share(stage(), AUTO) == 1 / 4


def test_a_stage_that_ran_out_of_memory_asks_for_twice_the_share_and_so_do_those_like_it():
    shares = GpuShares({})
    quarter = StageResources(gpus=0.25)
    assert shares.ran_out(stage(), 0.25)
    assert shares.share(stage(), quarter) == 0.5
    assert shares.share(stage("other"), quarter) == 0.25
    assert shares.ran_out(stage(), 0.5)
    assert shares.share(stage(), quarter) == 1.0
    assert not shares.ran_out(stage(), 1.0), "a whole GPU is all there is"


def test_a_share_that_ran_out_is_not_measured_down_again():
    shares = GpuShares({})
    shares.ran_out(stage(), 0.25)
    shares.measured(stage(), GIB, 80 * GIB)
    assert shares.share(stage(), AUTO) == 0.5
