"""The ledger, held against what it promises: a stage is done only while its result parts and snapshots are there."""

from __future__ import annotations

from pathlib import PurePosixPath

from raysweep.results.live import live_stages
from raysweep.store import LedgerRecord, Store


def complete_ledger(store: Store) -> dict[str, LedgerRecord]:
    """Return the ledger without stages whose result parts or snapshots are lost: the next launch runs those again.

    Failed stages stay as they are recorded, with the snapshots that are still there.
    """
    parts = {table: live_stages(store, table) for table in ("stages", "epochs", "cases", "snapshots")}
    whole = parts["stages"] & parts["epochs"] & (parts["cases"] | parts["snapshots"])
    published: dict[str, set[int]] = {}
    for path in store.list("snapshots"):
        file = PurePosixPath(path)
        if file.stem.isdigit():
            published.setdefault(file.parent.name, set()).add(int(file.stem))
    models = {PurePosixPath(path).stem for path in store.list("models")}
    found = {}
    for stage, record in store.ledger().items():
        there = tuple(epoch for epoch in record.snapshots if epoch in published.get(stage, ()))
        if record.status == "done" and stage not in whole:
            continue
        has_model = record.model and stage in models
        found[stage] = LedgerRecord(**{**record.__dict__, "snapshots": there, "model": has_model})
    return found
