"""Cost: the seconds that a study took, and what sharing stages saved against a naive grid."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from raysweep.analysis._tables import answer_table
from raysweep.results.read import StudyTables

COLUMNS = {
    "kind": pa.string(),
    "num_stages": pa.int64(),
    "num_failed": pa.int64(),
    "wall_s": pa.float64(),
    "shared_wall_s": pa.float64(),
    "naive_num_stages": pa.int64(),
    "naive_wall_s": pa.float64(),
}
_KINDS = ("pretrain", "finetune")


def cost(tables: StudyTables) -> pa.Table:
    """Return wall seconds by kind of stage, and what the finished cells cost with and without sharing.

    ``wall_s`` is all the study's stages took, failed ones included. ``shared_wall_s`` and ``naive_wall_s``
    compare the same work, that of the finished cells: each of its stages once, against each cell repeating
    its whole lineage. In the naive grid a cell pays for a pretraining only up to the epoch whose snapshot it
    uses (seconds in proportion to epochs), so a long run shared by short lengths is not counted as a saving.
    Seconds are summed over stages, whichever ran at once.
    """
    stages = {row["stage"]: row for row in tables.stages.to_pylist()}
    naive_s = dict.fromkeys(_KINDS, 0.0)
    naive_num = dict.fromkeys(_KINDS, 0)
    used: set[str] = set()
    for cell in tables.cells.to_pylist():
        chain = [*(cell["lineage"] or ()), cell["stage"]]
        if any(s not in stages or stages[s]["status"] != "done" for s in chain):
            continue
        used.update(chain)
        for stage, seconds in zip(chain, chain_seconds(chain, stages), strict=True):
            naive_s[stages[stage]["kind"]] += seconds
            naive_num[stages[stage]["kind"]] += 1
    rows = []
    for kind in _KINDS:
        own = [row for row in stages.values() if row["kind"] == kind]
        rows.append(
            {
                "kind": kind,
                "num_stages": len(own),
                "num_failed": sum(row["status"] == "failed" for row in own),
                "wall_s": sum(row["wall_s"] or 0.0 for row in own),
                "shared_wall_s": sum(row["wall_s"] or 0.0 for row in own if row["stage"] in used),
                "naive_num_stages": naive_num[kind],
                "naive_wall_s": naive_s[kind],
            }
        )
    total: dict[str, Any] = {name: sum(row[name] for row in rows) for name in COLUMNS if name != "kind"}
    return answer_table([*rows, {**total, "kind": "total"}], COLUMNS)


def chain_seconds(chain: list[str], stages: dict[str, dict[str, Any]]) -> list[float]:
    """Return the seconds of each stage of a cell's chain, a pretraining's up to the epoch that the next one uses."""
    epochs_used = _epochs_used(chain, stages)
    return [(stages[stage]["wall_s"] or 0.0) * epochs_used.get(stage, 1.0) for stage in chain]


def _epochs_used(chain: list[str], stages: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Return the share of each parent's epochs that its child in the chain started from."""
    shares = {}
    for child in chain:
        parent, epoch = stages[child]["parent"], stages[child]["parent_epoch"]
        epochs = stages[parent]["epochs"] if parent in stages else None
        if epoch is not None and epochs:
            shares[parent] = min(epoch / epochs, 1.0)
    return shares
