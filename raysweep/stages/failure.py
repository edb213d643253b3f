"""How a stage that fails is recorded; the driver writes this too, so there is no torch here."""

from __future__ import annotations

import socket
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from raysweep.errors import StageError
from raysweep.identity import canonical_json
from raysweep.ledger import FailureKind
from raysweep.planning import Stage
from raysweep.results.write import write_part
from raysweep.secrecy import mask
from raysweep.stages.progress import StagePreempted
from raysweep.store import FailureRecord, LedgerRecord, Store


class TimeLimitError(StageError):
    """An attempt took longer than the study allows."""


@dataclass(frozen=True)
class Failure:
    """What ended an attempt of a stage."""

    reason: str
    """Last line of the exception, or what the engine found."""
    kind: FailureKind = "error"
    traceback: str = ""
    host: str = ""


class RankError(StageError):
    """Another rank of a stage has ended; what ended it is why the stage fails."""

    def __init__(self, rank: int, failure: Failure) -> None:
        super().__init__(rank, failure)
        self.rank = rank
        self.failure = failure

    def __str__(self) -> str:
        return f"rank {self.rank}: {self.failure.reason}"


def failure_of(error: BaseException) -> Failure:
    """Return what an exception says about the attempt that it ended on this host."""
    if isinstance(error, StagePreempted):
        return Failure("preempted: its training state is saved", "preempted", host=socket.gethostname())
    reason = "".join(traceback.format_exception_only(error)).strip()
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, RankError):
        trace = f"{trace}\nof rank {error.rank}:\n{error.failure.traceback}"
    return Failure(mask(reason), _kind_of(error), mask(trace), socket.gethostname())


def _kind_of(error: BaseException) -> FailureKind:
    if isinstance(error, RankError):
        return error.failure.kind
    if isinstance(error, TimeLimitError):
        return "time-limit"
    if isinstance(error, MemoryError):
        return "memory"
    # By name: the driver, which calls this too, has no torch.
    if type(error).__name__ in ("OutOfMemoryError", "AcceleratorError") and "out of memory" in str(error):
        return "gpu-memory"
    return "error"


def record_attempt(stage: Stage, store: Store, failure: Failure, attempt: int, *, counted: bool = True) -> None:
    """Publish that an attempt has failed, whether or not the stage will be tried again."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    store.record_failure(
        FailureRecord(stage.id, attempt, failure.kind, failure.reason, failure.traceback, failure.host, now, counted)
    )


def record_failure(stage: Stage, store: Store, failure: Failure, attempt: int) -> None:
    """Publish that a stage has failed for good: a row of the stages table, and the traceback in the ledger."""
    ended = {"status": "failed", "error": failure.reason, "attempt": attempt, "host": failure.host}
    write_part(store, "stages", stage.id, [{**stage_columns(stage), **ended}])
    snapshots = store.snapshot_epochs(stage.id)
    store.record(LedgerRecord(stage.id, "failed", snapshots, failure.reason, failure.traceback, attempt, failure.host))


def record_stop(stage: Stage, store: Store, epoch: int, val_score: float | None, attempt: int) -> None:
    """Publish that the study's scheduler has ended a stage after an epoch; its training state stays."""
    ended = {"status": "stopped", "epochs": epoch, "val_score": val_score, "attempt": attempt}
    write_part(store, "stages", stage.id, [{**stage_columns(stage), **ended}])
    store.record(LedgerRecord(stage.id, "stopped", store.snapshot_epochs(stage.id), attempt=attempt))


def stage_columns(stage: Stage) -> dict[str, Any]:
    """Return the columns of the stages table that the plan already knows."""
    config = stage.config
    return {
        "stage": stage.id,
        "kind": stage.kind,
        "method": config["method"]["name"] if stage.kind == "pretrain" else None,
        "task": config["task"]["kind"] if stage.kind == "finetune" else None,
        "pack": config["pack"],
        "encoder": config["backbone"]["encoder"],
        "parent": stage.parent.stage if stage.parent else None,
        "parent_epoch": stage.parent.epoch if stage.parent else None,
        "seed": config["seed"],
        "config": canonical_json(config),
        "shape": stage.shape,
    }
