"""The story in one screen: load a study, plan it, drop what is done, run the rest, report."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from raysweep import registry, zoo
from raysweep.data.pack import Pack
from raysweep.data.subsets import pack_facts
from raysweep.datasets import open_study_pack
from raysweep.engine.driver_log import DriverLog
from raysweep.engine.executor import Executor
from raysweep.engine.inline import InlineExecutor
from raysweep.engine.launch import Launch, Outcome
from raysweep.engine.trackers import TRACKERS, Tracker
from raysweep.errors import StudyError
from raysweep.logs import log_format
from raysweep.planning import PackFacts, Plan, build_plan
from raysweep.planning.cost import Rates
from raysweep.planning.model import is_done
from raysweep.planning.profile import with_profile
from raysweep.readiness import check_starts, check_tunings
from raysweep.results.compact import Compaction, compact
from raysweep.results.complete import complete_ledger
from raysweep.results.live import live_files
from raysweep.results.query import query_store
from raysweep.results.rates import measured_rates, test_scores
from raysweep.results.read import StudyTables, study_tables
from raysweep.results.write import write_part
from raysweep.secrecy import mask, refuse_secrets
from raysweep.sources.stored import read_record
from raysweep.store import LedgerRecord, Store
from raysweep.study import Study, WeightsStep, load_study

if TYPE_CHECKING:
    from raysweep.report.files import Format, ReportFiles

DEFAULT_STORE = "raysweep-store"
ExecutorName = Literal["tune", "inline"]


@dataclass(frozen=True)
class StudyRun:
    """A launch that has ended: its plan, how it ended, and the store it ran on."""

    plan: Plan
    outcome: Outcome
    store: Store

    def tables(self) -> StudyTables:
        """Return the study's result tables."""
        return study_tables(self.store, self.plan.study.study)


class OpenStore(Store):
    """A store with its result tables."""

    def trials(self, study: str | None = None) -> pa.Table:
        """Return one row per cell with its outcome, of one study or of all."""
        return (
            query_store(self, "SELECT * FROM trials ORDER BY study, cell")
            if study is None
            else self.study(study).trials()
        )

    def study(self, name: str) -> StudyTables:
        """Return the tables of one study."""
        return study_tables(self, name)

    def query(self, sql: str, study: str | None = None, sources: Iterable[str] | None = None) -> pa.Table:
        """Run one SQL query over the store's tables and views, or over those of one study and some of its sources."""
        return query_store(self, sql, study, sources)

    def files(self, table: str) -> list[str]:
        """Return the paths of the Parquet files that hold a table now, each row in one of them.

        A stage that ran again since the last compaction has its rows in a part of its own, and older ones in a merged
        file: its part comes first.
        """
        return [self.full_path(file.path) for file in live_files(self, table)]

    def compact(self) -> Compaction:
        """Merge the parts of stages that are done into few files; readers and runs may go on meanwhile."""
        return compact(self)


def open_store(uri: str | Path | None = None) -> OpenStore:
    """Open a store: a folder or a URI; by default $RAYSWEEP_STORE, or raysweep-store in the current folder."""
    chosen = str(uri or os.environ.get("RAYSWEEP_STORE") or DEFAULT_STORE)
    refuse_secrets(chosen, "store")
    return OpenStore(chosen)


def plan(study: Study | str | Path, *, store: Store | str | Path | None = None, set: Iterable[str] = ()) -> Plan:
    """Plan a study: its cells, and the stages that answer them, each once.

    Data sets that the study packs on demand are packed into the store, for a plan's identities need their digests.

    Raises:
        StudyError: if the study is wrong, or asks for what its packs do not hold.
        PackError: if a pack is missing or corrupt.
    """
    opened = _as_store(store).prepare()
    loaded = _as_study(study, set)
    return build_plan(loaded, _facts(loaded, opened), _weights_digests(loaded, opened))


def run(
    study: Study | str | Path,
    *,
    store: Store | str | Path | None = None,
    executor: ExecutorName = "tune",
    address: str | None = None,
    retry_failed: bool = False,
    track: Iterable[str] = (),
    profile: str | None = None,
    set: Iterable[str] = (),
) -> StudyRun:
    """Run what is left of a study and return how it ended; launching again after any interruption continues it.

    Args:
        study: a study, or the path of its file.
        store: where snapshots and results go; by default $RAYSWEEP_STORE, or raysweep-store in the current folder.
        executor: 'tune' for Ray Tune, 'inline' for this process without Ray.
        address: a Ray cluster's address; by default Ray starts on this machine.
        retry_failed: whether to try stages again that failed in an earlier launch.
        track: trackers to follow the stages with: tensorboard, mlflow, wandb.
        profile: name or id of a stage that is to leave its profile in the store.
        set: overrides of the study file, ``dotted.key=value``.

    Raises:
        StudyError, PackError, WeightsError, StoreError: if the study cannot start; nothing has run then.
    """
    opened = _as_store(store).prepare()
    loaded = _as_study(study, set)
    with opened.driver_lock():
        _fetch_weights(loaded, opened)
        planned = build_plan(loaded, _facts(loaded, opened), _weights_digests(loaded, opened))
        ledger = complete_ledger(opened)
        if profile is not None:
            planned = with_profile(planned, profile, ledger)
        trackers = _trackers(track, loaded.study, opened)
        launch = Launch(
            planned,
            opened,
            ledger=ledger,
            rates=_rates(planned, ledger, opened),
            retry_failed=retry_failed,
            trackers=trackers,
            scores=test_scores(opened) if loaded.stop.seeds == "decided" else {},
        )
        if log_format() == "json":
            launch.trackers = trackers = (*trackers, DriverLog(launch.log_context))
        with ThreadPoolExecutor(1, "ready") as beside:
            ready = beside.submit(_get_ready, launch)  # while Ray starts: each takes seconds
            try:
                outcome = _executor(executor, address, launch).run(launch, ready.result)
            finally:
                for tracker in trackers:
                    tracker.close()
                if ready.exception() is None and (not_needed := launch.not_needed()):
                    publish_cells(planned, opened, not_needed)
    return StudyRun(planned, outcome, opened)


def _get_ready(launch: Launch) -> None:
    if not launch.queue.is_finished:
        check_starts(launch)
        check_tunings(launch.plan)
    publish_cells(launch.plan, launch.store)


def report(
    study: Study,
    *,
    store: Store | str | Path | None = None,
    out: str | Path | None = None,
    formats: Sequence[Format] = ("html",),
) -> ReportFiles:
    """Write the report of a study into a folder or, by default, into the store: one HTML page, tables, figures.

    Raises:
        StoreError: if the store has no such study, or there is no such format.
    """
    from raysweep.report.files import write_files  # with scipy and altair, which take seconds to import

    return write_files(study, _as_store(store), None if out is None else Path(out), formats)


def publish_cells(planned: Plan, store: Store, not_needed: Mapping[str, str] | None = None) -> None:
    """Publish which grid point is which stage, and why the study did without some."""
    rows = [
        {
            **{key: value for key, value in cell.__dict__.items() if key != "lineage"},
            "study": planned.study.study,
            "cell": cell.name,
            "lineage": list(cell.lineage),
            "not_needed": (not_needed or {}).get(cell.stage),
        }
        for cell in planned.cells
    ]
    write_part(store, "cells", planned.study.study, rows)


def _as_store(store: Store | str | Path | None) -> Store:
    return store if isinstance(store, Store) else open_store(store)


def _as_study(study: Study | str | Path, overrides: Iterable[str]) -> Study:
    if not isinstance(study, Study):
        return load_study(study, overrides)
    if list(overrides):
        raise StudyError("overrides (set) change a study file; build the Study with the values you want instead")
    refuse_secrets(study.model_dump_json(), f"study {study.study}")
    return study


def _facts(study: Study, store: Store) -> dict[str, PackFacts]:
    packs = {name: open_study_pack(name, source, store) for name, source in study.packs.items()}
    for name in study.task_names:
        settings = study.task_settings(name)
        registry.load("tasks", study.tasks[name]["kind"]).TASK.check_pack(packs[settings.pack], settings)
    _check_pretraining_packs(study, packs)
    return {name: pack_facts(pack) for name, pack in packs.items()}


def _weights_steps(study: Study) -> list[WeightsStep]:
    """Return the initial weights of the sources on the grid."""
    steps = (study.sources[source][0] for source in study.grid.source)
    return [step.weights for step in steps if step.weights is not None]


def _check_pretraining_packs(study: Study, packs: Mapping[str, Pack]) -> None:
    """Check that packs have what the methods that train on them learn from.

    Raises:
        PackError: saying what is missing.
    """
    steps = [step.pretrain for source in study.grid.source for step in study.sources[source] if step.pretrain]
    for step in steps:
        for name in study.grid.method if step.method is None else [step.method]:
            registry.load("methods", name).METHOD.check_pack(study.method_settings(name), packs[step.pack])


def _fetch_weights(study: Study, store: Store) -> None:
    """Have named weights in the store before anything runs, so that no stage downloads."""
    names = {name for step in _weights_steps(study) if (name := step.timm or step.zoo) is not None}
    if names:
        from raysweep.sources.library import ensure_weights

        for name in sorted(names):
            ensure_weights(store, name)


def _weights_digests(study: Study, store: Store) -> dict[str, str]:
    """Return the digests of published weights that the study names: what the zoo knows, or the store has recorded."""
    found = {}
    for name in {step.zoo for step in _weights_steps(study) if step.zoo is not None}:
        record, known = read_record(store, name), zoo.find(name).sha256
        if record is not None or known is not None:
            found[name] = record.digest if record is not None else f"sha256:{known}"
    return found


def _rates(planned: Plan, ledger: Mapping[str, LedgerRecord], store: Store) -> Rates:
    """Return the rates of stages, without reading the tables where nothing is left to run."""
    if all(is_done(stage, ledger.get(stage.id)) for stage in planned.stages.values()):
        return Rates()
    return measured_rates(store, planned.study.resources)


def _trackers(names: Iterable[str], study: str, store: Store) -> tuple[Tracker, ...]:
    chosen = list(names)
    if unknown := sorted({*chosen} - TRACKERS.keys()):
        raise StudyError(f"there is no tracker {mask(unknown[0])!r}; allowed: {', '.join(TRACKERS)}")
    folder = str(store.local_path("trackers")) if store.is_local else "raysweep-trackers"
    return tuple(TRACKERS[name](study, folder) for name in chosen)


def _executor(name: ExecutorName, address: str | None, launch: Launch) -> Executor:
    if name == "inline" or launch.queue.is_finished:  # what has nothing to run needs no Ray
        return InlineExecutor()
    from raysweep.engine.tune import TuneExecutor

    return TuneExecutor(address)
