"""What the ranks of a test do; rank 0 does it in the test's own process."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import Any

import torch

from raysweep.methods import Method, Ranks
from raysweep.planning.model import stage_from_json
from raysweep.stages.pretrain import PretrainLoop
from raysweep.stages.runtime import prepare_runtime
from raysweep.store import Store
from tests.pretraining import build_method, draw_batch, train_together

State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Trained:
    """The losses of two steps, and the nets around the first."""

    losses: list[float]
    before: State
    after: State


def train_methods(ranks: Ranks, *, names: list[str]) -> dict[str, Trained]:
    """Train methods for two steps on one batch."""
    return {name: _train(name, ranks) for name in names}


def _train(name: str, ranks: Ranks) -> Trained:
    method = build_method(name, seed=ranks.rank)  # other ranks start elsewhere, until they are aligned
    before = _state(method)
    torch.manual_seed(5)
    batch = draw_batch(method)
    losses = train_together(method, batch, range(1), ranks)
    after = _state(method)
    return Trained(losses + train_together(method, batch, range(1, 2), ranks), before, after)


def _state(method: Method) -> State:
    return {key: value.clone() for key, value in method.nets.state_dict().items()}


def train_stages(ranks: Ranks, *, stage: str, stores: dict[str, list[int]]) -> None:
    """Train a stage in each store, up to each of some epochs, beginning anew from its training state after each."""
    parsed = stage_from_json(stage)
    for uri, epochs in stores.items():
        for epoch in epochs:
            loop = PretrainLoop(parsed, Store(uri), prepare_runtime(0, "float32", 1), 1, ranks)
            if ranks.rank == 0:
                next(progress for progress in loop.run() if progress.epoch == epoch)
            else:
                loop.follow(last_epoch=epoch)
            ranks.gather(torch.zeros(1), ranks.size)  # nobody reads a training state before it is written


def train_methods_and_stages(
    ranks: Ranks, *, names: list[str], stage: str, stores: dict[str, list[int]]
) -> dict[str, Trained]:
    """Do both in one set of processes, for starting them is what takes the time."""
    trained = train_methods(ranks, names=names)
    train_stages(ranks, stage=stage, stores=stores)
    return trained


def raise_on_rank_1(ranks: Ranks, *, message: str) -> None:
    """Fail on the second rank while the first waits for it."""
    if ranks.rank == 1:
        raise MemoryError(message)
    ranks.gather(torch.zeros(1), ranks.size)


def die_on_rank_1(ranks: Ranks, **_: Any) -> None:
    """Kill the second rank while the first waits for it."""
    if ranks.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    ranks.gather(torch.zeros(1), ranks.size)
