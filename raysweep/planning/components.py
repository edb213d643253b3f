"""How configurations name methods, modes of tuning and tasks, and what decides the cost of an epoch of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from raysweep import registry
from raysweep.identity import content_id
from raysweep.planning.model import PackFacts
from raysweep.study import Study


@dataclass(frozen=True)
class TaskPlan:
    """A task's settings, and its part of a configuration."""

    settings: Any
    config: dict[str, Any]


@dataclass(frozen=True)
class EpochCost:
    """What decides the cost of an epoch, as a hash, and the training images of one."""

    shape: str
    images: int


class Components:
    """The parts of a study that configurations consist of, each built once."""

    def __init__(self, study: Study, packs: Mapping[str, PackFacts]) -> None:
        self._study = study
        self._packs = packs
        self.tasks = {name: self._task(name) for name in study.task_names}
        self.backbone = cache(self._backbone)
        self.method = cache(self._method)
        self.tuning = cache(self._tuning)
        self.pretrain_epoch = cache(self._pretrain_epoch)
        self.finetune_epoch = cache(self._finetune_epoch)

    def _backbone(self, name: str) -> dict[str, Any]:
        return self._study.backbones[name].model_dump(mode="json")

    def _method(self, name: str) -> dict[str, Any]:
        recipe = registry.load("methods", name).METHOD.recipe
        return {"name": name, "recipe": recipe, "settings": self._study.method_settings(name).model_dump(mode="json")}

    def _tuning(self, name: str) -> str | dict[str, Any]:
        """Return how a configuration names a mode: by its kind alone where there is nothing to set."""
        kind, settings = self._study.tuning_settings(name)
        values = settings.model_dump(mode="json")
        recipe = registry.load("tuning", kind).TUNING.recipe
        return {"kind": kind, "recipe": recipe, "settings": values} if values else kind

    def _task(self, name: str) -> TaskPlan:
        settings = self._study.task_settings(name)
        kind = self._study.tasks[name]["kind"]
        recipe = registry.load("tasks", kind).TASK.recipe
        config = {"kind": kind, "recipe": recipe, "settings": settings.model_dump(mode="json", exclude={"pack"})}
        return TaskPlan(settings, config)

    def _pretrain_epoch(self, method: str, pack: str, backbone: str) -> EpochCost:
        shared, facts = self._study.pretraining, self._packs[pack]
        decides = {
            "backbone": self.backbone(backbone),
            "method": self.method(method),
            "pack": facts.digest,
            "training": [shared.batch_size, shared.image_size, shared.precision],
        }
        batch = min(shared.batch_size, facts.num_train_slices)
        return EpochCost(content_id(decides), facts.num_train_slices // max(batch, 1) * batch)

    def _finetune_epoch(self, task: str, backbone: str, tuning: str, count: int, repeat: int) -> EpochCost:
        planned = self.tasks[task]
        facts, training = self._packs[planned.settings.pack], planned.settings.training
        decides: dict[str, Any] = {
            "backbone": self.backbone(backbone),
            "task": planned.config,
            "pack": facts.digest,
            "tuning": self.tuning(tuning),
        }
        images = facts.num_annotated["slice"]
        if training.steps == "natural":
            decides["annotations"] = count
            images = round(images * count / max(1, facts.num_annotated[planned.settings.annotate_by]))
        if training.steps == "kalapos2022":
            decides["annotations"] = count
            steps = max(1, count * repeat // training.batch_size)
        else:
            steps = math.ceil(images / training.batch_size)
        return EpochCost(content_id(decides), steps * training.batch_size)
