"""Building the plan: cells from the axes, stages from the chains, snapshots from the lengths that share a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from raysweep.errors import StudyError
from raysweep.identity import content_id
from raysweep.planning.annotations import repetitions, resolve_count
from raysweep.planning.components import Components, EpochCost
from raysweep.planning.model import Cell, Kind, PackFacts, Parent, Plan, Stage
from raysweep.planning.starts import inputs_of, start_of, weights_digest
from raysweep.planning.strategy import TakenStep, strategy_of
from raysweep.settings import Reading
from raysweep.study import PretrainStep, Study, WeightsStep
from raysweep.study.pairs import pairs

IDENTITY_FORMAT = 2
"""Part of every id: raise it when the meaning of a stage's configuration changes."""


@dataclass(frozen=True)
class _Point:
    """A grid point before its stages are known; method and length are None where they do not apply."""

    source: str
    method: str | None
    length: int | None
    asked: int | str
    seed: int
    task: str
    backbone: str
    tuning: str


def build_plan(study: Study, packs: Mapping[str, PackFacts], weights: Mapping[str, str] | None = None) -> Plan:
    """Plan a study: every stage once, however many cells need it.

    Args:
        study: the validated study.
        packs: facts of every pack the grid uses, by the study's names.
        weights: digests of published weights by their name in the zoo, as far as the store has them.

    Raises:
        StudyError: if the grid asks for what the packs do not hold.
    """
    builder = _Builder(study, packs, weights or {})
    channels = {task: packs[study.task_settings(task).pack].num_channels for task in study.task_names}
    cells = tuple(builder.cell(point) for point in _points(study, pairs(study, channels)))
    return Plan(study, cells, builder.finished_stages(), builder.naive_epochs)


def _points(study: Study, backbones: Mapping[tuple[str, str], list[str]]) -> Iterator[_Point]:
    grid = study.grid
    for task in study.task_names:
        for backbone in study.backbone_names:
            for source in (name for name in grid.source if backbone in backbones[task, name]):
                steps = [step.pretrain for step in study.sources[source] if step.pretrain]
                methods = grid.method if any(s.method is None for s in steps) else [None]
                lengths = grid.pretrain_epochs if any(s.epochs is None for s in steps) else [None]
                for method in methods:
                    for length in lengths:
                        for asked in grid.annotations:
                            for seed in grid.seed:
                                for tuning in grid.tuning:
                                    yield _Point(source, method, length, asked, seed, task, backbone, tuning)


class _Builder:
    """Collects stages by id while cells are walked."""

    def __init__(self, study: Study, packs: Mapping[str, PackFacts], weights: Mapping[str, str]) -> None:
        self.study = study
        self.packs = packs
        self.weights = weights
        self.stages: dict[str, Stage] = {}
        self.snapshots: dict[str, set[int]] = {}
        self.naive_epochs: Counter[str] = Counter()
        self._chains: dict[tuple[Any, ...], _Chain] = {}
        self._strategies: dict[tuple[Any, ...], str] = {}
        self._components = Components(study, packs)
        self._digest = cache(weights_digest)

    def cell(self, point: _Point) -> Cell:
        """Return a grid point with its stages, adding those that are new."""
        chain = self._chain(point)
        task = self._components.tasks[point.task]
        strategy = self._strategy(point, task.settings.pack)
        pack = self.packs[task.settings.pack]
        available = pack.num_annotated[task.settings.annotate_by]
        count = resolve_count(point.asked, available, task.settings.annotate_by, task.settings.pack)
        self._check_channels(point.backbone, task.settings.pack)
        config = {
            **self._common("finetune", point.backbone, chain.start),
            "task": task.config,
            "pack": pack.digest,
            "annotations": count,
            "seed": point.seed,
            "tuning": self._components.tuning(point.tuning),
        }
        if task.settings.training.steps == "kalapos2022":
            config["repeat"] = repetitions(point.asked, available)
        epochs = task.settings.training.epochs
        cell_fields = (point.source, point.method, point.length, count, str(point.asked), point.seed, point.task)
        cost = self._components.finetune_epoch(point.task, point.backbone, point.tuning, count, config.get("repeat", 1))
        stage = self._add("finetune", config, epochs, task.settings.pack, inputs_of(self._weights_step(point)), cost)
        for pretraining, length in chain.trained.items():
            self.naive_epochs[pretraining] += length
        self.naive_epochs[stage] += epochs
        unit = pack.unit_name(task.settings.annotate_by)
        cell = Cell(*cell_fields, point.backbone, point.tuning, stage, tuple(chain.trained), strategy, unit)
        if not self.stages[stage].name:
            self.stages[stage] = replace(self.stages[stage], name=cell.name)
        return cell

    def finished_stages(self) -> dict[str, Stage]:
        """Return the stages with the snapshots that others need, parents first."""
        return {
            stage.id: replace(stage, snapshots=tuple(sorted(self.snapshots.get(stage.id, ()))))
            for stage in self.stages.values()
        }

    def _chain(self, point: _Point) -> _Chain:
        """Return where a cell's fine-tuning starts, and the pretrain stages before it."""
        seed = self.study.pretraining.seed if self.study.pretraining.seeds == "one" else point.seed
        key = (point.source, point.method, point.length, point.backbone, seed)
        if key not in self._chains:
            self._chains[key] = self._build_chain(point, seed)
        return self._chains[key]

    def _build_chain(self, point: _Point, seed: int) -> _Chain:
        start = start_of(self._weights_step(point), self.weights, self._digest)
        trained: dict[str, int] = {}
        prefix = point.source
        for step, method, epochs in self._steps(point):
            self._check_channels(point.backbone, step.pack)
            length = self._run_length(step, epochs)
            name = f"{point.backbone}/{prefix}/{method}@{step.pack}/{length}ep"
            stage = self._pretrain(step.pack, method, length, point.backbone, start, seed, name, point.source)
            self.snapshots.setdefault(stage, set()).add(epochs)
            start = {"stage": stage, "epoch": epochs}
            trained[stage] = epochs
        return _Chain(start, trained)

    def _weights_step(self, point: _Point) -> WeightsStep | None:
        return self.study.sources[point.source][0].weights

    def _steps(self, point: _Point) -> Iterator[tuple[PretrainStep, str, int]]:
        """Yield the pretrainings of a grid point with their method and epochs; one of length 0 is left out."""
        for step in self.study.sources[point.source][1:]:
            assert step.pretrain is not None  # the schema allows nothing else after the first step
            epochs = step.pretrain.epochs if step.pretrain.epochs is not None else point.length
            method = step.pretrain.method if step.pretrain.method is not None else point.method
            if epochs and method is not None:
                yield step.pretrain, method, epochs

    def _strategy(self, point: _Point, task_pack: str) -> str:
        """Return the strategy of a grid point's chain, which is the same for all its counts and seeds."""
        key = (point.source, point.method, point.length, task_pack)
        if key not in self._strategies:
            taken = [TakenStep(step.pack, method) for step, method, _ in self._steps(point)]
            self._strategies[key] = strategy_of(self._weights_step(point), taken, task_pack)
        return self._strategies[key]

    def _run_length(self, step: PretrainStep, epochs: int) -> int:
        """Length of the run that a step's snapshot comes from: the longest of the axis where they share one."""
        if step.of_epochs is not None:
            return step.of_epochs
        shares = step.epochs is None and self.study.pretraining.schedule == "shared"
        return max(self.study.grid.pretrain_epochs) if shares else epochs

    def _pretrain(
        self,
        pack: str,
        method: str,
        length: int,
        backbone: str,
        start: dict[str, Any],
        seed: int,
        name: str,
        source: str,
    ) -> str:
        shared = self.study.pretraining
        config = {
            **self._common("pretrain", backbone, start),
            "method": self._components.method(method),
            "pack": self.packs[pack].digest,
            "epochs": length,
            "batch_size": shared.batch_size,
            "image_size": shared.image_size,
            "precision": shared.precision,
            "seed": seed,
        }
        if shared.reading != Reading():
            config["reading"] = shared.reading.model_dump(mode="json")
        cost = self._components.pretrain_epoch(method, pack, backbone)
        stage = self._add("pretrain", config, length, pack, inputs_of(self.study.sources[source][0].weights), cost)
        self.stages[stage] = replace(self.stages[stage], name=self.stages[stage].name or name)
        return stage

    def _add(
        self, kind: Kind, config: dict[str, Any], epochs: int, pack: str, weights: dict[str, str], cost: EpochCost
    ) -> str:
        stage = content_id(config)
        if stage not in self.stages:
            start = config["start"]
            parent = Parent(start["stage"], start["epoch"]) if "stage" in start else None
            inputs = {"pack": self.packs[pack].path, **({} if parent else weights)}
            keep = kind == "finetune" and self.study.keep_models
            self.stages[stage] = Stage(
                stage, kind, "", config, parent, epochs, inputs, shape=cost.shape, images=cost.images, keep_model=keep
            )
        return stage

    def _common(self, kind: Kind, backbone: str, start: dict[str, Any]) -> dict[str, Any]:
        return {
            "format": IDENTITY_FORMAT,
            "kind": kind,
            "backbone": self._components.backbone(backbone),
            "start": start,
            **({} if self.study.seeding == "fixed" else {"seeding": self.study.seeding}),
        }

    def _check_channels(self, backbone: str, pack: str) -> None:
        wanted, found = self.study.backbones[backbone].channels, self.packs[pack].num_channels
        if wanted != found:
            raise StudyError(
                f"backbones.{backbone}.channels is {wanted}, but pack {pack!r} has {found} channel"
                f"{'s' if found > 1 else ''} ({self.packs[pack].path}); they must be the same"
            )


@dataclass(frozen=True)
class _Chain:
    """Where fine-tuning starts, and the pretrain stages before it with the epochs that this chain takes of each."""

    start: dict[str, Any]
    trained: dict[str, int]
