"""Running one stage, whatever its kind: the only entry that executors use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from raysweep.methods import ALONE, Ranks
from raysweep.planning import Stage
from raysweep.planning.model import stage_from_json, stage_to_json
from raysweep.stages.finetune import FinetuneLoop
from raysweep.stages.loop import TrainingLoop
from raysweep.stages.pretrain import PretrainLoop
from raysweep.stages.progress import Beat, Progress, no_beat
from raysweep.stages.runtime import prepare_runtime
from raysweep.stages.team import Team
from raysweep.store import Store


def run_stage(
    stage: Stage,
    store: Store,
    *,
    threads: int,
    attempt: int,
    gpu_share: float = 1.0,
    ranks: int = 1,
    beat: Beat = no_beat,
) -> Iterator[Progress]:
    """Run a stage to its end, yielding after every epoch.

    It continues from the stage's training state where the store has one; when it ends without an error, its rows and
    its ledger record are published.

    Args:
        stage: the stage.
        store: where its parent's snapshot is, and where its results go.
        threads: CPU threads to compute with.
        attempt: number of this attempt, from 1.
        gpu_share: share of the GPU's memory that the stage may hold, where it runs on one.
        ranks: processes that train a pretrain stage together, on a GPU each; this one is the first.
        beat: called before every optimiser step and every evaluated batch; what it raises ends the stage. If it returns
            true at a step, the stage saves its training state and raises StagePreempted.
    """
    if ranks == 1 or stage.kind != "pretrain":
        yield from _train(stage, store, threads, attempt, gpu_share, beat, ALONE)
        return
    each = max(1, threads // ranks)
    job = {"stage": stage_to_json(stage), "store": store.absolute_uri, "threads": each, "gpu_share": gpu_share}
    with Team(f"{__name__}:follow_stage", job, size=ranks, threads=each, beat=beat) as team:
        yield from _train(stage, store, each, attempt, gpu_share, team.beat, team.ranks)


def follow_stage(ranks: Ranks, *, stage: str, store: str, threads: int, gpu_share: float) -> None:
    """Train a pretrain stage as another rank than 0."""
    parsed = stage_from_json(stage)
    runtime = prepare_runtime(parsed.config["seed"], parsed.config["precision"], threads, gpu_share)
    PretrainLoop(parsed, Store(store), runtime, 0, ranks).follow()


def _train(
    stage: Stage,
    store: Store,
    threads: int,
    attempt: int,
    gpu_share: float,
    beat: Beat,
    ranks: Ranks,
) -> Iterator[Progress]:
    precision = stage.config["precision"] if stage.kind == "pretrain" else _training(stage)["precision"]
    runtime = prepare_runtime(stage.config["seed"], precision, threads, gpu_share)
    loop: TrainingLoop
    if stage.kind == "pretrain":
        loop = PretrainLoop(stage, store, runtime, attempt, ranks)
    else:
        loop = FinetuneLoop(stage, store, runtime, attempt)
    loop.beat = beat
    if not stage.profile:
        yield from loop.run()
        return
    from raysweep.stages.profile import Profile

    loop.phases = Profile(stage, store, runtime)
    try:
        yield from loop.run()
    finally:
        loop.phases.close()


def _training(stage: Stage) -> dict[str, Any]:
    training: dict[str, Any] = stage.config["task"]["settings"]["training"]
    return training
