"""The story in one screen: load a study, plan it, drop what is done, run the rest, report."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import pyarrow as pa
from rich.console import RenderableType

from raysweep import registry
from raysweep.data.pack import Pack
from raysweep.data.subsets import pack_facts
from raysweep.datasets import open_study_pack
from raysweep.engine.executor import Executor
from raysweep.engine.inline import InlineExecutor
from raysweep.engine.launch import Launch, Outcome
from raysweep.engine.queue import State
from raysweep.engine.trackers import TRACKERS, Tracker
from raysweep.errors import StudyError
from raysweep.identity import canonical_json
from raysweep.planning import PackFacts, Plan, build_plan
from raysweep.report import build_report, study_facts, terminal_summary, write_report
from raysweep.results.complete import complete_ledger
from raysweep.results.examples import read_examples
from raysweep.results.rates import measured_rates, test_scores
from raysweep.results.read import StudyTables, query_store, study_tables
from raysweep.results.write import write_part
from raysweep.settings import Backbone
from raysweep.store import Store
from raysweep.study import Study, load_study

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

    def query(self, sql: str) -> pa.Table:
        """Run one SQL query over the store's tables and views."""
        return query_store(self, sql)


def open_store(uri: str | Path | None = None) -> OpenStore:
    """Open a store: a folder or a URI; by default $RAYSWEEP_STORE, or raysweep-store in the current folder."""
    return OpenStore(uri or os.environ.get("RAYSWEEP_STORE") or DEFAULT_STORE)


def plan(study: Study | str | Path, *, store: Store | str | Path | None = None, set: Iterable[str] = ()) -> Plan:
    """Plan a study: its cells, and the stages that answer them, each once.

    Data sets that the study packs on demand are packed into the store, for a plan's identities need their digests.

    Raises:
        StudyError: if the study is wrong, or asks for what its packs do not hold.
        PackError: if a pack is missing or corrupt.
    """
    opened = _as_store(store).prepare()
    loaded = _as_study(study, set)
    return build_plan(loaded, _facts(loaded, opened))


def run(
    study: Study | str | Path,
    *,
    store: Store | str | Path | None = None,
    executor: ExecutorName = "tune",
    address: str | None = None,
    retry_failed: bool = False,
    track: Iterable[str] = (),
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
        set: overrides of the study file, ``dotted.key=value``.

    Raises:
        StudyError, PackError, WeightsError, StoreError: if the study cannot start; nothing has run then.
    """
    opened = _as_store(store).prepare()
    loaded = _as_study(study, set)
    with opened.driver_lock():
        _fetch_weights(loaded, opened)
        planned = build_plan(loaded, _facts(loaded, opened))
        trackers = _trackers(track, loaded.study, opened)
        launch = Launch(
            planned,
            opened,
            ledger=complete_ledger(opened),
            rates=measured_rates(opened, loaded.resources),
            retry_failed=retry_failed,
            trackers=trackers,
            scores=test_scores(opened) if loaded.stop.seeds == "decided" else {},
        )
        _check_starts(launch)
        publish_cells(planned, opened)
        try:
            outcome = _executor(executor, address).run(launch)
        finally:
            for tracker in trackers:
                tracker.close()
            if not_needed := launch.not_needed():
                publish_cells(planned, opened, not_needed)
    return StudyRun(planned, outcome, opened)


@dataclass(frozen=True)
class ReportFiles:
    """A written report."""

    page: str
    """Where the HTML page is."""
    summary: RenderableType
    """The same facts for the terminal."""


def report(study: Study, *, store: Store | str | Path | None = None, out: str | Path | None = None) -> ReportFiles:
    """Write the report of a study: one HTML page, into a folder or, by default, into the store.

    Raises:
        StoreError: if the store has no such study.
    """
    opened = _as_store(store)
    tables = study_tables(opened, study.study)
    facts = study_facts(study, tables)
    examples = partial(read_examples, opened)
    if out is not None:
        page = str(write_report(Path(out) / "index.html", tables, examples, facts))
    else:
        path = f"reports/{study.study}/index.html"
        opened.write_bytes(path, build_report(tables, examples, facts).encode())
        page = f"{opened.uri}/{path}"
    return ReportFiles(page, terminal_summary(tables, facts))


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
    return study


def _facts(study: Study, store: Store) -> dict[str, PackFacts]:
    packs = {name: open_study_pack(name, source, store) for name, source in study.packs.items()}
    for name in study.task_names:
        registry.load("tasks", study.tasks[name]["kind"]).TASK.check_pack(packs[study.task_settings(name).pack])
    _check_pretraining_packs(study, packs)
    return {name: pack_facts(pack) for name, pack in packs.items()}


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
    """Fetch timm's weights into the store before anything runs, so that no stage downloads."""
    names = {
        step.weights.timm
        for source in study.grid.source
        for step in study.sources[source]
        if step.weights is not None and step.weights.timm is not None
    }
    if names:
        from raysweep.sources.weights import store_timm_weights

        for name in sorted(names):
            store_timm_weights(store, name)


def _check_starts(launch: Launch) -> None:
    """Build each encoder that a stage will start from, once: a wrong name or wrong weights end the launch, not stages.

    Raises:
        StudyError: if timm has no such encoder, or it does not take slices of the study's size.
        WeightsError: if weights do not fit their encoder.
    """
    stages = launch.plan.stages.values()
    pretraining = [stage.config for stage in stages if stage.kind == "pretrain"]
    sizes = {canonical_json([config["backbone"], config["image_size"]]): config for config in pretraining}
    if sizes:
        from raysweep.sources.encoder import build_weightless

        for config in sizes.values():
            build_weightless(Backbone.model_validate(config["backbone"]), config["image_size"])
    ready = [stage for stage in stages if not stage.parent and launch.queue.state(stage.id) is State.READY]
    starts = {canonical_json([stage.config["backbone"], stage.config["start"]]): stage for stage in ready}
    if starts:
        from raysweep.sources.snapshots import build_start

        for stage in starts.values():
            build_start(launch.store, stage.config, stage.inputs)


def _trackers(names: Iterable[str], study: str, store: Store) -> tuple[Tracker, ...]:
    chosen = list(names)
    if unknown := sorted({*chosen} - TRACKERS.keys()):
        raise StudyError(f"there is no tracker {unknown[0]!r}; allowed: {', '.join(TRACKERS)}")
    folder = str(store.local_path("trackers")) if store.is_local else "raysweep-trackers"
    return tuple(TRACKERS[name](study, folder) for name in chosen)


def _executor(name: ExecutorName, address: str | None) -> Executor:
    if name == "inline":
        return InlineExecutor()
    from raysweep.engine.tune import TuneExecutor

    return TuneExecutor(address)
