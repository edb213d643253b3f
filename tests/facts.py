"""Comparing stores: what two correct runs of the same study share, bit for bit."""

from __future__ import annotations

import hashlib
from typing import Any

from raysweep.results.read import store_tables
from raysweep.results.schemas import TABLES
from raysweep.store import Store


def facts(store: Store) -> dict[str, list[dict[str, Any]]]:
    """Return every table's rows without the volatile columns, in one order, and digests of snapshots and examples."""
    tables = store_tables(store)
    found: dict[str, list[dict[str, Any]]] = {}
    for name, table in TABLES.items():
        rows = tables[name].select(table.facts).to_pylist()
        found[name] = sorted(rows, key=repr)
    files = [path for folder in ("snapshots", "examples") for path in store.list(folder)]
    found["files"] = [{"path": path, "digest": _digest(store, path)} for path in files]
    return found


def _digest(store: Store, path: str) -> str:
    return hashlib.sha256(store.read_bytes(path) or b"").hexdigest()
