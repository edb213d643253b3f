"""A pretrain stage: one method trains one encoder on the train split of one pack, and publishes snapshots of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raysweep import registry
from raysweep.data.augment import AugmentationParameters, Slices, apply, draw, keep_whole, places
from raysweep.data.slices import normalised, relative_positions
from raysweep.errors import PackError, StageError
from raysweep.methods import ALONE, Batch, Method, MethodSettings, Ranks, Run, collapse_metrics
from raysweep.planning import Stage
from raysweep.results.write import write_part
from raysweep.sources.encoder import Encoder
from raysweep.sources.snapshots import build_start, snapshot_facts, write_snapshot
from raysweep.stages.flight import Flight
from raysweep.stages.frozen_features import forget_all
from raysweep.stages.known_probes import measure_once
from raysweep.stages.loop import TrainingLoop
from raysweep.stages.optimisation import build_optimiser, optimise
from raysweep.stages.probes import Probes
from raysweep.stages.runtime import Runtime
from raysweep.store import Store


class PretrainLoop(TrainingLoop):
    """Pretrains an encoder.

    Shapes: B batch, C channels, H and W of a view.
    """

    def __init__(self, stage: Stage, store: Store, runtime: Runtime, attempt: int, ranks: Ranks = ALONE) -> None:
        super().__init__(stage, store, runtime, attempt)
        self.ranks = ranks
        chosen = self.config["method"]
        kind: type[Method] = registry.load("methods", chosen["name"]).METHOD
        self.method_settings: MethodSettings = kind.Settings.model_validate(chosen["settings"])
        self.target = self.method_settings.target()
        self.labels = self.method_settings.learnt_labels(self.pack.index.labels, self.config["seed"])
        self.rows = self._select_rows()
        self.positions = relative_positions(self.pack, self.rows)
        self.image_size: int = self.config["image_size"]
        self.batch_size = min(self.config["batch_size"], len(self.rows))
        self.steps_per_epoch = len(self.rows) // self.batch_size
        if ranks.size > 1 and stage.config.get("seeding") == "none":
            raise StageError("ranks of a stage without a seed would each draw their own: ask for one GPU")
        if self.batch_size < ranks.size:
            raise StageError(f"{ranks.size} ranks cannot share batches of {self.batch_size} slices; ask for fewer GPUs")
        start = build_start(store, self.config, stage.inputs)
        self.origin = start
        self.normalisation = self.seen_as(start.normalisation)
        self.method = kind(self.method_settings, start.encoder, self._describe_run())
        self.method.nets.to(runtime.device, memory_format=torch.channels_last)
        self.method.join(ranks)
        self.optimisation = self.method_settings.optimisation
        self.optimiser = build_optimiser(self.method.trainable(), self.optimisation)
        self.scaler = torch.amp.GradScaler(runtime.device.type, enabled=runtime.precision == "float16")
        if runtime.device.type != "cpu":
            forget_all()
        self.probes = Probes(self.pack, self.image_size, self.normalisation, runtime, lambda: self.beat())

    def _select_rows(self) -> NDArray[np.int64]:
        """Return the rows to train on: the train split, or what is labelled of it where the method learns labels."""
        rows = self.pack.select(split="train")
        index = self.pack.index
        if self.target == "labels":
            rows = rows[~np.isnan(self.labels[rows]).all(1)]
        elif self.target == "masks":
            rows = rows[index.mask_position[rows] >= 0]
        if len(rows) < 2:
            learnt = f" with {self.target}" if self.target else ""
            raise PackError(
                f"{self.pack.path} has {len(rows)} slices{learnt} in its train split; pretraining needs at least 2"
            )
        return rows

    def _describe_run(self) -> Run:
        return Run(
            num_slices=len(self.rows),
            batch_size=self.batch_size,
            steps_per_epoch=self.steps_per_epoch,
            total_steps=self.stage.epochs * self.steps_per_epoch,
            image_size=self.image_size,
            num_classes=len(self.pack.class_names),
            num_labels=len(self.pack.label_names),
        )

    def start(self) -> None:
        """Probe the encoder before training."""
        with self.phases("evaluation"):
            self.history.add("val", measure_once(self.probes, self.method.encoder(), self.store))

    def train_epoch(self) -> dict[str, float]:
        """Take one pass over the train split in full batches, in an order drawn anew."""
        self.method.nets.train()
        self.ranks.align(self.method.nets)
        if self.flight is None:
            with self.runtime.autocast(), self.ranks.together(self.history.step):
                self.method.before_epoch(self.history.epoch - 1, self._whole_slices())
            self.flight = Flight(torch.randperm(len(self.rows), generator=self.generator))
        rate = 0.0
        for ids in self.flight.batches(self.batch_size, self.steps_per_epoch):
            rate = self.schedule_step(self.optimiser, self.optimisation, self.steps_per_epoch)
            self.flight.add(self._step(ids))
        features = self.method.features
        collapse = {} if features is None else {k: float(v) for k, v in collapse_metrics(features).items()}
        return {**self.flight.means(), **collapse, "lr": rate}

    def _whole_slices(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all slices in batches of ids (B,) and whole slices (B, C, H, W), for methods that ask for them."""
        device = self.runtime.device
        for ids in torch.split(torch.arange(len(self.rows)), self.batch_size):
            self.beat()
            rows = self.rows[ids.numpy()]
            whole = keep_whole(self.reader.shapes(rows))
            slices = apply(self.reader.slices(rows), whole, self.image_size, device=device)
            yield ids.to(device), normalised(slices, self.normalisation)

    def _step(self, ids: Tensor) -> dict[str, Tensor]:
        batch = self._draw_batch(ids)
        with self.phases("forward"), self.runtime.autocast(), self.ranks.together(self.history.step):
            losses = self.method.loss(batch)
        clip_norm, complete = self.optimisation.clip_norm, self.method.add_gradients
        optimise(losses["loss"], self.optimiser, self.scaler, self.method.trainable(), clip_norm, self.phases, complete)
        with self.phases("optimiser"):
            self.method.after_step(self.history.step)
        self.history.step += 1
        self.history.images += len(ids)
        return losses

    def _draw_batch(self, ids: Tensor) -> Batch:
        """Draw views of slices; each rank computes those of some, with the parameters that one alone would draw."""
        rows, own = self.rows[ids.numpy()], self.ranks.share(len(ids))
        with self.phases("data"):
            slices, shapes = self.reader.slices(rows[own]), self.reader.shapes(rows)
            masks = self.reader.masks(rows[own]) if self.target == "masks" else None
            labels = self._sent(torch.from_numpy(self.labels[rows])) if self.target == "labels" else None
        views, of_masks, where = [], [], []
        with self.phases("augmentation"):
            for view in self.method.views():
                parameters = draw(view.augmentation, shapes, self.generator)
                images, followed = self._augment(slices, parameters.part(own), view.size_px or self.image_size, masks)
                views.append(normalised(self.ranks.gather(images, len(ids)), self.normalisation))
                of_masks += [self.ranks.gather(mask, len(ids)) for mask in followed]
                where.append(self._sent(places(parameters)))
        positions = self._sent(self.positions[ids])
        return Batch(views, self._sent(ids), self.history.step, where, positions, labels, of_masks)

    def _sent(self, x: Tensor) -> Tensor:
        """Return a small tensor on the device, without waiting for what is under way there."""
        return x.to(self.runtime.device, non_blocking=True)

    def _augment(
        self, slices: Slices, parameters: AugmentationParameters, size: int, masks: Slices | None
    ) -> tuple[Tensor, list[Tensor]]:
        if masks is None:
            return apply(slices, parameters, size, device=self.runtime.device), []
        images, followed = apply(slices, parameters, size, masks=masks, device=self.runtime.device)
        return images, [followed]

    def follow(self, last_epoch: int | None = None) -> None:
        """Train as another rank than 0, to the end or to an epoch: what there is to publish, rank 0 publishes."""
        self._restore()
        while self.flight is not None or self.history.epoch < (last_epoch or self.stage.epochs):
            if self.flight is None:
                self.history.epoch += 1
            self.train_epoch()
            self.flight = None

    def end_epoch(self) -> tuple[int, ...]:
        """Probe the encoder and publish a snapshot of it, where the plan asks for one."""
        epoch = self.history.epoch
        if epoch not in self.stage.snapshots:
            return ()
        encoder: Encoder = self.method.encoder()
        self.publisher.submit(lambda: self._publish(encoder, epoch))  # probes change nothing in the encoder
        with self.phases("evaluation"):
            self.history.add("val", self.probes.measure(encoder))
        with self.phases("saving"):
            self.publisher.wait()
        return (epoch,)

    def _publish(self, encoder: Encoder, epoch: int) -> None:
        lineage = self.origin.lineage
        write_snapshot(self.store, self.stage.id, epoch, encoder, self.normalisation, self.config, lineage)

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
        several = {"device": f"{self.ranks.size} x {self.runtime.facts()['device']}"} if self.ranks.size > 1 else {}
        return {"num_train": len(self.rows), "loading": self.origin.loading, **several}
