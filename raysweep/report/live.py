"""What is running now: stages that have saved a training state and have not ended."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from raysweep.analysis import Arm
from raysweep.results.live import live_files
from raysweep.results.read import StudyTables, steadily, study_cells
from raysweep.store import Store


@dataclass(frozen=True)
class RunningStage:
    """A stage that has started: its kind, what it is for, and the seconds since it last saved its training state."""

    stage: str
    kind: str
    name: str
    saved_s_ago: float


@dataclass(frozen=True)
class InFlight:
    """The stages of a study that have started and not ended, the one that saved last first."""

    stages: tuple[RunningStage, ...]
    refresh_s: int


def in_flight(store: Store, tables: StudyTables, refresh_s: int = 10) -> InFlight:
    """Return what of a study is running; a stage shows once its first epoch is over, and stays when its driver dies."""
    names: dict[str, tuple[str, str]] = {}
    for cell in tables.cells.to_pylist():
        names[cell["stage"]] = ("finetune", cell["cell"])
        for parent in cell["lineage"] or ():
            names.setdefault(parent, ("pretrain", f"{Arm.of(cell).series}, seed {cell['seed']}"))
    for stage in tables.stages.select(["stage", "status"]).to_pylist():
        if stage["status"] == "stopped":  # its training state stays
            names.pop(stage["stage"], None)
    return InFlight(running_stages(store, names), refresh_s)


def running_stages(store: Store, names: Mapping[str, tuple[str, str]]) -> tuple[RunningStage, ...]:
    """Return those of some stages that are running; ``names`` gives kind and name of each."""
    now = time.time()
    found = []
    for path, stamp in store.stamps("resume").items():
        stage = PurePosixPath(path).stem
        if stage in names:
            found.append(RunningStage(stage, *names[stage], max(0.0, now - stamp.mtime_ns / 1e9)))
    return tuple(sorted(found, key=lambda stage: stage.saved_s_ago))


def not_needed_stages(store: Store, study: str) -> frozenset[str]:
    """Return the finetune stages that a study has done without; none if it has not run."""

    def read() -> frozenset[str]:
        if not any(study in file.stages for file in live_files(store, "cells")):
            return frozenset()
        cells = study_cells(store, study, None).select(["stage", "not_needed"]).to_pylist()
        return frozenset(cell["stage"] for cell in cells if cell["not_needed"] is not None)

    return steadily(store, read)


def fingerprint(store: Store, study: str) -> int:
    """Return a number that changes when the results of a study, or what is running, may have changed."""
    facts = [(path, stamp) for path, stamp in store.stamps("results").items() if not path.startswith("results/cells/")]
    cells = store.stamps("results/cells").get(store.part_path("cells", study))
    return hash((cells, *facts, *store.stamps("resume").items()))
