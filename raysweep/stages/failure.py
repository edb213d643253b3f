"""How a stage that fails is recorded; the driver writes this too, so there is no torch here."""

from __future__ import annotations

import traceback
from typing import Any

from raysweep.identity import canonical_json
from raysweep.planning import Stage
from raysweep.results.write import write_part
from raysweep.store import LedgerRecord, Store


def record_failure(stage: Stage, store: Store, error: str, trace: str, attempt: int, host: str = "") -> None:
    """Publish that a stage has failed for good: a row of the stages table, and the traceback in the ledger."""
    row = {**stage_columns(stage), "status": "failed", "error": error, "attempt": attempt, "host": host}
    write_part(store, "stages", stage.id, [row])
    store.record(LedgerRecord(stage.id, "failed", store.snapshot_epochs(stage.id), error, trace, attempt, host))


def describe_error(error: BaseException) -> tuple[str, str]:
    """Return an exception's last line and its whole traceback."""
    return "".join(traceback.format_exception_only(error)).strip(), "".join(traceback.format_exception(error))


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
    }
