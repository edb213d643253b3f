"""Running one stage, whatever its kind: the only entry that executors use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from raysweep.planning import Stage
from raysweep.stages.finetune import FinetuneLoop
from raysweep.stages.loop import TrainingLoop
from raysweep.stages.pretrain import PretrainLoop
from raysweep.stages.progress import Progress
from raysweep.stages.runtime import prepare_runtime
from raysweep.store import Store


def run_stage(stage: Stage, store: Store, *, threads: int, attempt: int) -> Iterator[Progress]:
    """Run a stage to its end, yielding after every epoch.

    It continues from the stage's training state where the store has one; when it ends without an error, its rows and
    its ledger record are published.
    """
    kinds: dict[str, type[TrainingLoop]] = {"pretrain": PretrainLoop, "finetune": FinetuneLoop}
    precision = stage.config["precision"] if stage.kind == "pretrain" else _training(stage)["precision"]
    runtime = prepare_runtime(stage.config["seed"], precision, threads)
    yield from kinds[stage.kind](stage, store, runtime, attempt).run()


def _training(stage: Stage) -> dict[str, Any]:
    training: dict[str, Any] = stage.config["task"]["settings"]["training"]
    return training
