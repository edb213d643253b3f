"""The values a plan consists of."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from raysweep.store import LedgerRecord
from raysweep.study import Study

Kind = Literal["pretrain", "finetune"]
Unit = Literal["slice", "volume", "subject"]


@dataclass(frozen=True)
class PackFacts:
    """What planning needs to know of a pack, so that it need not read one."""

    path: str
    digest: str
    num_channels: int
    num_classes: int
    num_train_slices: int
    """Slices of the train split, annotated or not."""
    num_annotated: Mapping[Unit, int]
    """Annotated units of the train split."""

    def unit_name(self, unit: Unit) -> str:
        """Return what people call a unit of annotation: a slice that is its whole volume is an image."""
        alone = self.num_annotated["slice"] == self.num_annotated["volume"]
        return "image" if alone and unit != "subject" else unit


@dataclass(frozen=True)
class Parent:
    """The snapshot a stage starts from."""

    stage: str
    epoch: int


@dataclass(frozen=True)
class Stage:
    """One unit of training, identified by everything that determines its result.

    ``config`` is what ``id`` is the hash of. ``snapshots`` (epochs to publish), ``keep_model``, ``inputs`` (files to
    read), ``shape``, ``images`` and ``profile`` change nothing in the result and are no part of it.
    """

    id: str
    kind: Kind
    name: str
    config: Mapping[str, Any]
    parent: Parent | None
    epochs: int
    inputs: Mapping[str, str]
    snapshots: tuple[int, ...] = ()
    shape: str = ""
    """Hash of what decides the cost of an epoch and the memory: equal for stages that differ in seed or start alone."""
    images: int = 0
    """Training images of an epoch, for estimates; approximate where annotations are volumes or subjects."""
    keep_model: bool = False
    """Whether a finetune stage publishes the network it tests."""
    profile: bool = False
    """Whether its time is measured by phase, and some of its steps are traced."""


@dataclass(frozen=True)
class Cell:
    """One point of the grid and the stages that answer it."""

    source: str
    method: str | None
    pretrain_epochs: int | None
    annotations: int
    annotations_asked: str
    seed: int
    task: str
    backbone: str
    tuning: str
    stage: str
    lineage: tuple[str, ...]
    strategy: str = ""
    """What papers call the chain that the encoder comes from; see `raysweep.planning.strategy`."""
    annotation_unit: str = "slice"
    """What annotations counts: slice, volume or subject; image where slices are no part of a larger volume."""

    @property
    def name(self) -> str:
        """Readable name, unique in a study."""
        pretraining = [] if self.method is None else [self.method]
        if self.pretrain_epochs is not None:
            pretraining.append(f"{self.pretrain_epochs}ep")
        parts = [self.task, self.backbone, self.source, *pretraining, f"n{self.annotations_asked}", f"s{self.seed}"]
        if self.tuning != "full":
            parts.append(self.tuning)
        return "/".join(parts)


@dataclass(frozen=True)
class Plan:
    """The cells of a study and its stages, parents before their dependents."""

    study: Study
    cells: tuple[Cell, ...]
    stages: Mapping[str, Stage]
    naive_epochs: Mapping[str, int] = field(default_factory=dict)
    """Epochs of each stage's training, over all cells, in a grid where every cell repeats its own pretraining."""

    def children(self) -> dict[str, list[Stage]]:
        """Return the dependents of every stage."""
        found: dict[str, list[Stage]] = {stage: [] for stage in self.stages}
        for stage in self.stages.values():
            if stage.parent is not None:
                found[stage.parent.stage].append(stage)
        return found


def cells_by_stage(cells: Iterable[Cell]) -> dict[str, list[str]]:
    """Return the names of the cells that each stage serves: its own, or those that start from it."""
    found: dict[str, list[str]] = {}
    for cell in cells:
        name = cell.name
        for stage in (cell.stage, *cell.lineage):
            found.setdefault(stage, []).append(name)
    return found


def is_done(stage: Stage, record: LedgerRecord | None) -> bool:
    """Whether the ledger has a stage finished, with every snapshot, and the network, that the plan needs of it."""
    if record is None or record.status != "done" or (stage.keep_model and not record.model):
        return False
    return set(stage.snapshots) <= set(record.snapshots)


def stage_to_json(stage: Stage) -> str:
    """Return a stage as JSON text, as executors hand it to their workers."""
    return json.dumps({**asdict(stage), "config": stage.config, "inputs": dict(stage.inputs)})


def stage_from_json(text: str) -> Stage:
    """Rebuild a stage from ``stage_to_json``."""
    values = json.loads(text)
    parent = None if values["parent"] is None else Parent(**values["parent"])
    return Stage(**{**values, "parent": parent, "snapshots": tuple(values["snapshots"])})
