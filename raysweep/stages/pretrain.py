"""A pretrain stage: one method trains one encoder on the train split of one pack, and publishes snapshots of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from raysweep import registry
from raysweep.data.augment import apply, draw
from raysweep.data.slices import normalised, scaled_slice
from raysweep.errors import PackError
from raysweep.methods import Method, collapse_metrics
from raysweep.planning import Stage
from raysweep.results.write import write_part
from raysweep.sources.snapshots import build_start, snapshot_facts, write_snapshot
from raysweep.stages.loop import TrainingLoop
from raysweep.stages.optimisation import build_optimiser, optimise
from raysweep.stages.runtime import Runtime
from raysweep.store import Store


class PretrainLoop(TrainingLoop):
    """Pretrains an encoder.

    Shapes: B batch, C channels, H and W of a view.
    """

    def __init__(self, stage: Stage, store: Store, runtime: Runtime, attempt: int) -> None:
        super().__init__(stage, store, runtime, attempt)
        self.rows = self.pack.select(split="train")
        if len(self.rows) < 2:
            raise PackError(
                f"{self.pack.path} has {len(self.rows)} slices in its train split; pretraining needs at least 2"
            )
        self.batch_size = min(self.config["batch_size"], len(self.rows))
        self.steps_per_epoch = len(self.rows) // self.batch_size
        start = build_start(store, self.config, stage.inputs)
        self.start = start
        self.normalisation = start.normalisation
        self.method = self._build_method(start.encoder)
        self.method.nets.to(runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimisation = self.method_settings.optimisation
        self.optimiser = build_optimiser(self.method.trainable(), self.optimisation)
        self.scaler = torch.amp.GradScaler(runtime.device.type, enabled=runtime.precision == "float16")

    def _build_method(self, encoder: Any) -> Method:
        chosen = self.config["method"]
        kind: type[Method] = registry.load("methods", chosen["name"]).METHOD
        self.method_settings = kind.Settings.model_validate(chosen["settings"])
        total_steps = self.stage.epochs * self.steps_per_epoch
        return kind(self.method_settings, encoder, num_slices=len(self.rows), total_steps=total_steps)

    def train_epoch(self) -> dict[str, float]:
        """Take one pass over the train split in full batches, in an order drawn anew."""
        self.method.nets.train()
        order = torch.randperm(len(self.rows), generator=self.generator)
        sums: dict[str, torch.Tensor] = {}
        rate = 0.0
        for first in range(0, self.steps_per_epoch * self.batch_size, self.batch_size):
            ids = order[first : first + self.batch_size]
            rate = self.schedule_step(self.optimiser, self.optimisation, self.steps_per_epoch)
            for name, value in self._step(ids).items():
                sums[name] = sums.get(name, torch.zeros((), device=value.device)) + value.detach().float()
        means = {name: float(value) / self.steps_per_epoch for name, value in sums.items()}
        features = self.method.features
        collapse = {} if features is None else {k: float(v) for k, v in collapse_metrics(features).items()}
        return {**means, **collapse, "lr": rate}

    def _step(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        slices = [scaled_slice(self.pack, int(row)) for row in self.rows[ids.numpy()]]
        shapes = torch.tensor([slice_.shape[-2:] for slice_ in slices])
        views = []
        for view in self.method.views():
            parameters = draw(view.augmentation, shapes, self.generator)
            size = view.size_px or self.config["image_size"]
            views.append(normalised(apply(slices, parameters, size, device=self.runtime.device), self.normalisation))
        with self.runtime.autocast():
            losses = self.method.loss(views, ids.to(self.runtime.device))
        optimise(losses["loss"], self.optimiser, self.scaler, self.method.trainable(), self.optimisation.clip_norm)
        self.method.after_step(self.history.step)
        self.history.step += 1
        self.history.images += len(ids)
        return losses

    def end_epoch(self) -> tuple[int, ...]:
        """Publish a snapshot where the plan asks for one."""
        epoch = self.history.epoch
        if epoch not in self.stage.snapshots:
            return ()
        encoder, lineage = self.method.encoder(), self.start.lineage
        write_snapshot(self.store, self.stage.id, epoch, encoder, self.normalisation, self.config, lineage)
        return (epoch,)

    def can_continue(self, epoch: int) -> bool:
        """Whether every snapshot planned up to an epoch is there; a plan that has grown asks for some that are not."""
        published = self.store.snapshot_epochs(self.stage.id)
        return {planned for planned in self.stage.snapshots if planned <= epoch} <= set(published)

    def published_snapshots(self) -> tuple[int, ...]:
        """Return the epochs of the snapshots that are in the store, up to the epoch reached."""
        return tuple(epoch for epoch in self.store.snapshot_epochs(self.stage.id) if epoch <= self.history.epoch)

    def state(self) -> dict[str, Any]:
        """Return the method's, optimiser's and scaler's state."""
        return {
            "method": self.method.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state`` returned."""
        self.method.load_state_dict(state["method"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])

    def conclude(self) -> dict[str, Any]:
        """Publish the rows of the snapshots table."""
        rows = [
            {"stage": self.stage.id, "epoch": epoch, **snapshot_facts(self.store, self.stage.id, epoch)}
            for epoch in self.store.snapshot_epochs(self.stage.id)
        ]
        write_part(self.store, "snapshots", self.stage.id, rows)
        return {"num_train": len(self.rows), "loading": self.start.loading}
