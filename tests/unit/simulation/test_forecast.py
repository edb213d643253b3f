"""Forecasts over several clusters: draws, ranges, bounds, the recommended size, sizes from a command line."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raysweep.errors import StudyError
from raysweep.planning import build_plan
from raysweep.planning.cost import Measured, Rates
from raysweep.simulation import Cluster, NodeKind, Prices, Spot, forecast, recommend, uniform_cluster
from raysweep.simulation.durations import CERTAIN, Doubt, Durations
from raysweep.simulation.overheads import NO_OVERHEADS
from raysweep.simulation.sizes import clusters_of
from raysweep.store import LedgerRecord
from tests.fake_stages import Fake, fake_plan
from tests.studies import FAKE_FACTS, fake_study

ONE_SECOND = Rates({"": Measured(1.0)})
CHAIN = (Fake("pretrain", epochs=8, kind="pretrain"), Fake("tuned", parent=("pretrain", 2), epochs=10))
WIDE = [Fake(f"stage {number}", epochs=6) for number in range(8)]
PRICES = Prices.model_validate({"on_demand": {"core_hour": 3600.0}, "spot": {"core_hour": 1200.0}})


def cores(*sizes: int, spot: bool = False) -> list[Cluster]:
    return [uniform_cluster(size, 4, cores_per_gpu=None, spot=spot) for size in sizes]


def test_every_size_has_its_makespan_utilisation_bound_and_cost():
    found = forecast(fake_plan(WIDE), {}, ONE_SECOND, cores(2, 4, 16), prices=PRICES, overheads=NO_OVERHEADS)
    assert found.num_draws == 1
    assert [size.makespan_s.median for size in found.sizes] == [24, 12, 6]
    assert [size.bound_s.median for size in found.sizes] == [24, 12, 6]
    assert [size.utilisation.median for size in found.sizes] == [1, 1, 0.5]
    assert [size.waits_for_path for size in found.sizes] == [False, False, True]
    assert [size.cost.median for size in found.sizes] == [48, 48, 96]


def test_the_longest_path_is_named_with_the_part_of_each_stage_that_lies_on_it():
    found = forecast(fake_plan(CHAIN), {}, ONE_SECOND, cores(4), overheads=NO_OVERHEADS)
    assert [(stage.name, epoch, seconds) for stage, epoch, seconds in found.path] == [
        ("pretrain", 2, 2.0),
        ("tuned", 10, 10.0),
    ]
    assert found.sizes[0].bounds[0].path_s == 12


def test_stages_that_are_done_are_neither_simulated_nor_on_the_path():
    plan = fake_plan(CHAIN)
    first = next(iter(plan.stages))
    found = forecast(plan, {first: LedgerRecord(first, "done", (2,))}, ONE_SECOND, cores(1), overheads=NO_OVERHEADS)
    assert (found.num_left, found.num_stages) == (1, 2)
    assert [stage.name for stage, _, _ in found.path] == ["tuned"]
    assert found.sizes[0].makespan_s.median == found.sizes[0].bound_s.median == 10


def test_a_snapshot_that_is_there_binds_nothing_although_its_stage_is_to_run_again():
    plan = fake_plan([*CHAIN, Fake("late", parent=("pretrain", 8), epochs=1)])
    first = next(iter(plan.stages))
    found = forecast(plan, {first: LedgerRecord(first, "done", (2,))}, ONE_SECOND, cores(4), overheads=NO_OVERHEADS)
    assert found.num_left == 3
    assert found.sizes[0].makespan_s.median == 10  # from the snapshot at epoch 2, at once; the other path takes 9
    assert found.sizes[0].bound_s.median == 10


def test_assumed_rates_give_a_range_that_holds_every_draw_and_measured_ones_do_not():
    rates = replace(ONE_SECOND, measured={})
    found = forecast(fake_plan(WIDE), {}, rates, cores(2), draws=40)
    (size,) = found.sizes
    values = sorted(trace.makespan_s for trace in size.traces)
    assert size.makespan_s.low < size.makespan_s.median < size.makespan_s.high
    assert values[0] <= size.makespan_s.low
    assert size.makespan_s.high <= values[-1]
    assert len(set(values)) == 40
    assert found.num_assumed == 8
    assert size.ratio.low >= 1
    assert forecast(fake_plan(WIDE), {}, ONE_SECOND, cores(2)).num_draws == 1


def test_draws_depend_on_the_seed_alone():
    plan, rates = fake_plan(WIDE), Rates()
    first, again, other = (forecast(plan, {}, rates, cores(2, 4), seed=seed, draws=3) for seed in (1, 1, 2))
    assert [size.makespan_s for size in first.sizes] == [size.makespan_s for size in again.sizes]
    assert [size.makespan_s for size in first.sizes] != [size.makespan_s for size in other.sizes]


def test_drawn_durations_have_the_stated_spread():
    stages = list(fake_plan([Fake(f"s{number}") for number in range(4000)]).stages.values())
    durations = Durations(Rates({"": Measured(2.0, epoch_s_spread=0.3)}), Doubt(), "0")
    seconds = [durations.epoch_s(stage) for stage in stages]
    mean = sum(seconds) / len(seconds)
    spread = (sum((value - mean) ** 2 for value in seconds) / len(seconds)) ** 0.5 / mean
    assert mean == pytest.approx(2.0, rel=0.03)
    assert spread == pytest.approx(0.3, rel=0.06)
    assumed_s = Rates().epoch_s(stages[0])
    factors = [Durations(Rates(), Doubt(3.0), str(draw)).epoch_s(stages[0]) / assumed_s for draw in range(2000)]
    assert sum(1 / 3 <= factor <= 3 for factor in factors) / 2000 == pytest.approx(0.95, abs=0.02)
    assert Durations(Rates(), CERTAIN, "0").epoch_s(stages[0]) == assumed_s


def test_the_recommended_size_follows_the_rule_that_it_states():
    plan = fake_plan(WIDE)
    found = forecast(plan, {}, ONE_SECOND, cores(2, 4, 16), prices=PRICES, overheads=NO_OVERHEADS)
    best = recommend(found)
    assert best.cluster == "4 CPUs"
    assert best.reason == "the shortest makespan among clusters used to at least 80%"
    assert recommend(found, min_utilisation=0.3).cluster == "16 CPUs"
    assert recommend(found, deadline_h=10 / 3600).cluster == "16 CPUs"
    cheapest = recommend(found, deadline_h=1)
    assert cheapest.cluster == "2 CPUs"
    assert "cheapest" in cheapest.reason
    late = recommend(found, deadline_h=1 / 3600)
    assert late.cluster is None
    assert "16 CPUs may take" in late.reason
    unpriced = forecast(plan, {}, ONE_SECOND, cores(16, 4), overheads=NO_OVERHEADS)
    assert recommend(unpriced, deadline_h=1).cluster == "4 CPUs"


def test_spot_nodes_cost_less_by_the_hour_and_take_longer():
    plan = fake_plan([Fake(f"stage {number}", epochs=60) for number in range(16)])
    clusters = [cores(4)[0], cores(4, spot=True)[0]]
    found = forecast(
        plan, {}, ONE_SECOND, clusters, prices=PRICES, overheads=NO_OVERHEADS, spot=Spot(60.0, 30.0), draws=5
    )
    stays, spot = found.sizes
    assert stays.losses.high == 0
    assert spot.losses.median > 0
    assert spot.makespan_s.low > stays.makespan_s.high
    assert spot.cost.high < stays.cost.median
    assert spot.utilisation.median < stays.utilisation.median == 1


def gpu_plan(**changes):
    resources = {"resources.pretrain": {"gpus": 1, "cpus": 6}, "resources.finetune": {"gpus": 0.5, "cpus": 4}}
    return build_plan(fake_study({**resources, "grid.seed": [0, 1, 2, 3], **changes}), FAKE_FACTS)


def test_sizes_become_nodes_with_cores_for_what_fills_their_gpus():
    clusters = clusters_of(gpu_plan(), Rates(), gpus="4,8,20,8")
    assert [cluster.name for cluster in clusters] == ["4 GPUs", "8 GPUs", "20 GPUs"]
    assert [[(kind.count, kind.gpus, kind.cpus) for kind in cluster.kinds] for cluster in clusters] == [
        [(1, 4, 32)],
        [(1, 8, 64)],
        [(2, 8, 64), (1, 4, 32)],
    ]
    (scarce,) = clusters_of(gpu_plan(), Rates(), gpus="8", cpus_per_node=16)
    assert scarce.total("CPU") == 16


def test_sizes_nobody_gives_are_powers_of_two_up_to_what_can_help():
    plan = build_plan(fake_study({"grid.seed": [0, 1, 2, 3]}), FAKE_FACTS)
    rates = Rates({stage.shape: Measured(1.0) for stage in plan.stages.values()})
    sizes = [cluster.total("CPU") for cluster in clusters_of(plan, rates)]
    found = forecast(plan, {}, rates, clusters_of(plan, rates), overheads=NO_OVERHEADS)
    assert sizes == [2**power for power in range(len(sizes))]
    assert [size.waits_for_path for size in found.sizes] == [False] * (len(sizes) - 1) + [True]


def test_clusters_of_a_file_stand_beside_the_others(tmp_path):
    file = tmp_path / "nodes.yaml"
    file.write_text("clusters: {mixed: [{gpus: 8, cpus: 64}, {count: 3, gpus: 1, cpus: 8, speed: 0.5, spot: true}]}")
    one, mixed = clusters_of(gpu_plan(), Rates(), gpus="8", file=file)
    assert mixed.name == "mixed"
    assert (mixed.num_nodes, mixed.total("GPU")) == (4, 11)
    assert [cluster.name for cluster in clusters_of(gpu_plan(), Rates(), file=file)] == ["mixed"]
    priced = Prices.model_validate({"on_demand": {"gpu_hour": 2.0}, "spot": {"gpu_hour": 0.5}})
    assert (one.hourly_price(priced), mixed.hourly_price(priced)) == (16, 17.5)
    assert Cluster("own", (NodeKind(gpus=8, cpus=1, node_hour=9.0),)).hourly_price(priced) == 9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gpus": "8,x"}, r"--gpus '8,x' is no list of sizes; give whole numbers from 1 on, such as 8,64,512"),
        ({"gpus": "0"}, "is no list of sizes"),
        ({"cpus": "8"}, "--cpus gives sizes to studies that ask for no GPU; this one does"),
    ],
)
def test_wrong_sizes_say_what_is_allowed(options, message):
    with pytest.raises(StudyError, match=message):
        clusters_of(gpu_plan(), Rates(), **options)


def test_gpus_for_a_study_that_uses_none_are_an_error():
    plan = build_plan(fake_study(), FAKE_FACTS)
    with pytest.raises(StudyError, match="asks for no GPU, so none would be used"):
        clusters_of(plan, Rates(), gpus="8")


def test_a_wrong_node_file_names_every_key(tmp_path):
    file = tmp_path / "nodes.yaml"
    file.write_text("clusters: {mixed: [{gpu: 8, cpus: 0}]}")
    with pytest.raises(StudyError, match=r"(?s)node file .*nodes.yaml: 2 errors.*Did you mean 'gpus'\?"):
        clusters_of(gpu_plan(), Rates(), file=file)


@pytest.mark.parametrize(
    ("changes", "runs_less"),
    [
        ({}, False),
        ({"stop.pruning": {"scheduler": "asha"}}, True),
        ({"tasks.heart.training.early_stopping": {"patience": 2}}, True),
    ],
)
def test_a_study_that_may_run_less_is_said_to(changes, runs_less):
    plan = build_plan(fake_study(changes), FAKE_FACTS)
    assert forecast(plan, {}, Rates(), cores(1), draws=1).runs_less == runs_less
