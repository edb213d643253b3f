"""What is running now: stages that have saved a training state and have not ended."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import PurePosixPath

from raysweep.analysis import Arm
from raysweep.results.read import StudyTables
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
    now = time.time()
    found = []
    for path, stamp in store.stamps("resume").items():
        stage = PurePosixPath(path).stem
        if stage in names:
            found.append(RunningStage(stage, *names[stage], max(0.0, now - stamp.mtime_ns / 1e9)))
    return InFlight(tuple(sorted(found, key=lambda stage: stage.saved_s_ago)), refresh_s)
