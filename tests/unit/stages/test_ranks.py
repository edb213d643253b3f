"""Several ranks train as one does: with any method, through an interruption, and not at all once one is gone."""

from __future__ import annotations

import io
from datetime import timedelta
from itertools import chain

import pytest
import torch
import torch.nn.functional as F

from raysweep import registry
from raysweep.errors import StageError
from raysweep.methods import ALONE
from raysweep.planning import Stage
from raysweep.planning.model import stage_to_json
from raysweep.results.read import store_tables
from raysweep.stages import ranks as ranks_module
from raysweep.stages.failure import RankError, failure_of
from raysweep.stages.progress import StageStopped, no_beat
from raysweep.stages.ranks import RankGroup
from raysweep.stages.run import run_stage
from raysweep.stages.runtime import prepare_runtime
from raysweep.stages.shared_statistics import SharedStatistics
from raysweep.stages.team import Team
from raysweep.store import Store
from tests.rank_jobs import Trained, train_methods, train_methods_and_stages
from tests.unit.stages.test_pretrain import outcome, stage_of

FAMILIES = ["simclr", "moco-v2", "barlow-twins", "swav", "pcl-v1", "dino", "mae", "spark"]
"""Negatives of the batch, queue, redundancy, clustering of the batch and of the data set, distillation, masked."""


def team_of(function: str, job, size: int = 2, beat=no_beat) -> Team:
    return Team(f"tests.rank_jobs:{function}", job, size=size, threads=1, beat=beat)


@pytest.fixture
def stage(tiny_study, tiny_store, monkeypatch) -> Stage:
    monkeypatch.setattr("raysweep.stages.probes.MAX_CELLS", {"train": 256, "val": 256})
    return stage_of(tiny_study, tiny_store, "moco-v2")


def check_equal(together: dict[str, Trained], alone: dict[str, Trained]) -> None:
    """What one process computes: the loss to 1e-5, the next one to 1e-3, and between them the step of all tensors to
    1 %, of each to 5 %: gradients of first layers are small differences of large numbers."""
    for name, expected in alone.items():
        (first, second), (expected_first, expected_second) = together[name].losses, expected.losses
        assert first == pytest.approx(expected_first, rel=1e-5, abs=1e-6), name
        assert second == pytest.approx(expected_second, rel=1e-3, abs=1e-4), name
        assert first != second
        steps = {key: (expected.after[key].double() - before) for key, before in expected.before.items()}
        errors = {key: together[name].after[key].double() - expected.after[key] for key in steps}
        for key, step in steps.items():
            assert float(errors[key].norm()) <= 0.05 * float(step.norm()) + 1e-5, f"{name} {key}"
        total_error, total_step = (sum(float(x.norm()) ** 2 for x in some.values()) for some in (errors, steps))
        assert total_error <= 1e-4 * total_step, name


def test_two_ranks_compute_what_one_computes_and_continue_to_the_same_bits(stage, tmp_path):
    """One training state, written by rank 0, continues them all; beside one process they differ by rounding alone."""
    stores = {name: Store(tmp_path / name).prepare() for name in ("whole", "broken", "alone")}
    uris = {name: store.absolute_uri for name, store in stores.items()}
    job = {
        "names": FAMILIES,
        "stage": stage_to_json(stage),
        "stores": {uris["whole"]: [3], uris["broken"]: [1, 2, 3]},
    }
    prepare_runtime(0, "float32", 1)
    with team_of("train_methods_and_stages", job) as team:
        together = train_methods_and_stages(team.ranks, **job)
    alone = train_methods_and_stages(ALONE, **{**job, "stores": {uris["alone"]: [3]}})
    check_equal(together, alone)

    states = {name: training_state(store, stage) for name, store in stores.items()}
    assert states["whole"]["history"]["step"] == 12
    assert {bytes(state["rng"]["generator"].numpy()) for state in states.values()} == {
        bytes(states["whole"]["rng"]["generator"].numpy())
    }
    for key, value in nets_of(states["whole"]).items():
        assert torch.equal(value, nets_of(states["broken"])[key]), key
        torch.testing.assert_close(value, nets_of(states["alone"])[key], rtol=1e-2, atol=1e-3, msg=key)


def training_state(store: Store, stage: Stage):
    return torch.load(io.BytesIO(store.read_bytes(store.resume_path(stage.id))), weights_only=True)


def nets_of(state):
    return state["state"]["method"]["nets"]


@pytest.mark.heavy
@pytest.mark.parametrize("size", [2, 3, 5])
def test_any_number_of_ranks_computes_what_one_computes_with_every_method(size):
    """Also where batches of 12 and groups of them do not go up, and ranks have unequal shares, or none."""
    job = {"names": registry.names("methods")}
    prepare_runtime(0, "float32", 1)
    with team_of("train_methods", job, size) as team:
        together = train_methods(team.ranks, **job)
    check_equal(together, train_methods(ALONE, **job))


def test_a_stage_of_two_ranks_publishes_once_what_one_publishes(stage, tiny_store):
    epochs = [progress.epoch for progress in run_stage(stage, tiny_store, threads=2, attempt=1, ranks=2)]
    assert epochs == [0, 1, 2, 3, 3]
    assert tiny_store.ledger()[stage.id].status == "done"
    rows, snapshots = outcome(tiny_store)
    assert len(snapshots) >= 1
    losses = [row["value"] for row in rows if row["metric"] == "loss"]
    assert len(losses) == 3
    (row,) = store_tables(tiny_store)["stages"].to_pylist()
    assert (row["device"], row["images"]) == ("2 x cpu", 3 * 32)


def test_an_error_of_another_rank_fails_the_stage_with_its_traceback():
    team = team_of("raise_on_rank_1", {"message": "too much"})
    with pytest.raises(RankError, match=r"^rank 1: MemoryError: too much$") as caught, team:
        team.ranks.gather(torch.zeros(1), 2)
    failure = failure_of(caught.value)
    assert failure.kind == "memory"
    assert "in raise_on_rank_1" in failure.traceback


@pytest.mark.heavy
def test_a_rank_that_is_killed_fails_the_stage_at_once():
    team = team_of("die_on_rank_1", {})
    with pytest.raises(RankError, match="rank 1: its process ended with signal 9"), team:
        team.ranks.gather(torch.zeros(1), 2)


def test_ranks_end_when_the_stage_is_stopped():
    def stop() -> None:
        raise StageStopped

    team = team_of("die_on_rank_1", {}, beat=stop)
    with pytest.raises(StageStopped), team:
        pytest.fail("it has not met anyone")
    assert [other.poll() for other in team._others] != [None]


def test_more_ranks_than_slices_in_a_batch_are_refused(stage, tiny_store):
    from raysweep.stages.pretrain import PretrainLoop

    class Many(type(ALONE)):
        size = 9

    with pytest.raises(StageError, match="9 ranks cannot share batches of 8 slices"):
        PretrainLoop(stage, tiny_store, prepare_runtime(0, "float32", 1), 1, Many())


class Mirror:
    """A group whose other ranks hold what a test gives them."""

    def __init__(self, *others: torch.Tensor) -> None:
        self.others = list(others)

    def __call__(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [x, self.others.pop(0)] if self.others else [x, x]


@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 5), (6, 3, 4, 4)])
def test_shared_statistics_of_equal_ranks_are_those_of_one(shape):
    """With a second rank that holds the same rows, outputs, gradients and running means are those of the rows once."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3 + 1
    nets = [torch.nn.BatchNorm1d(3) if len(shape) < 4 else torch.nn.BatchNorm2d(3) for _ in range(2)]
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    expected = nets[0](inputs[0])
    with SharedStatistics(Mirror()):
        got = nets[1](inputs[1])
    (expected**3).sum().backward()
    (got**3).sum().backward()
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(nets[1].weight.grad, nets[0].weight.grad)
    torch.testing.assert_close(nets[1].running_mean, nets[0].running_mean)
    nets[1].eval()
    with SharedStatistics(Mirror()):
        same = nets[1](x)
    torch.testing.assert_close(same, F.batch_norm(x, nets[1].running_mean, nets[1].running_var, *nets[1].parameters()))


def test_shares_cover_every_row_once():
    for size in (1, 2, 3, 5):
        for num_rows in (1, 4, 12, 13):
            groups = [RankGroup(None, rank, size, torch.device("cpu")) for rank in range(size)]
            shares = [list(range(num_rows))[group.share(num_rows)] for group in groups]
            assert list(chain.from_iterable(shares)) == list(range(num_rows))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_rank_waits_for_another_no_longer_than_its_time(tmp_path):
    with pytest.raises(RuntimeError):
        ranks_module.connect(tmp_path, 0, 2, torch.device("cpu"), timedelta(seconds=1))
