"""Writing the page anew while a study runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from raysweep.errors import StoreError
from raysweep.report.files import ReportFiles, live_page, publish, write_files
from raysweep.report.live import fingerprint, in_flight
from raysweep.results.read import study_tables
from raysweep.store import Store
from raysweep.study import Study


def watch(
    study: Study, store: Store, out: Path, every_s: int, sleep: Callable[[float], None] = time.sleep
) -> Iterator[ReportFiles | None]:
    """Write the page into a folder whenever the store has changed, until every cell has ended; yield after each look.

    While the study runs the page loads itself anew and nothing but None is yielded; at the end it is written once more
    as a page that stays, and that is yielded.
    """
    known = None
    while not _has_ended(study, store):
        now = fingerprint(store, study.study)
        if now != known:
            _write_live(study, store, out, every_s)
            known = now
        yield None
        sleep(every_s)
    yield write_files(study, store, out)


def _has_ended(study: Study, store: Store) -> bool:
    try:
        tables = study_tables(store, study.study)
    except StoreError:
        if store.exists(store.part_path("cells", study.study)):
            raise
        return False  # it has not been launched yet
    pending = "pending" in tables.trials()["status"].to_pylist()
    return not pending and not in_flight(store, tables).stages


def _write_live(study: Study, store: Store, out: Path, every_s: int) -> None:
    if store.exists(store.part_path("cells", study.study)):
        publish(out / "index.html", live_page(study, store, every_s).encode())
