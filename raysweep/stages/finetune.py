"""A finetune stage: one task, trained from one encoder on one annotation subset, tested at its best validated epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from raysweep import registry
from raysweep.data.augment import apply, draw
from raysweep.data.slices import normalised
from raysweep.data.subsets import annotation_subset, row_names
from raysweep.planning import Stage
from raysweep.results.examples import write_examples
from raysweep.results.write import write_part
from raysweep.sources.models import write_model
from raysweep.sources.snapshots import build_start
from raysweep.stages.flight import Flight
from raysweep.stages.frozen_features import (
    CPU_BYTES,
    GPU_SHARE,
    FrozenEncoder,
    content_keys,
    forget_all,
    is_frozen,
    leaves_whole,
)
from raysweep.stages.loop import TrainingLoop
from raysweep.stages.optimisation import build_optimiser, optimise
from raysweep.stages.runtime import Runtime
from raysweep.stages.validation import Averaged, Patience, monitors_loss
from raysweep.store import Store
from raysweep.tasks import Task, Validation
from raysweep.tuning import build_tuning

NUM_EXAMPLES = 4
"""Test slices whose predictions are kept for the report."""


class FinetuneLoop(TrainingLoop):
    """Fine-tunes an encoder on a task.

    Shapes: B batch, C channels, S side of a training crop, K classes.
    """

    def __init__(self, stage: Stage, store: Store, runtime: Runtime, attempt: int) -> None:
        super().__init__(stage, store, runtime, attempt)
        kind: type[Task] = registry.load("tasks", self.config["task"]["kind"]).TASK
        self.settings = kind.Settings.model_validate({**self.config["task"]["settings"], "pack": str(self.pack.path)})
        self.training = self.settings.training
        self.rows = annotation_subset(
            self.pack,
            self.config["annotations"],
            unit=self.settings.annotate_by,
            drawing=self.settings.drawing,
            stratify=self.settings.stratify,
            seed=self.config["seed"],
        )
        start = build_start(store, self.config, stage.inputs)
        self.origin = start
        self.normalisation = self.seen_as(start.normalisation)
        self.task = kind(self.settings, start.encoder, self.pack)
        self.network = self.task.network.to(runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.tuning = build_tuning(
            self.config["tuning"], self.network, self.task.encoder_module(), start.encoder.backbone, stage.epochs
        )
        self.network.to(runtime.device)  # what the tuning mode added
        self.optimiser = build_optimiser(self.tuning.groups(), self.training.optimisation)
        self.scaler = torch.amp.GradScaler(runtime.device.type, enabled=runtime.precision == "float16")
        self.steps_per_epoch = self._steps_per_epoch()
        ema = self.training.ema
        self.averaged = None if ema is None else Averaged(self.network, ema)
        self.features = self._share_features()
        self.patience = Patience()
        self.best_epoch = 0
        self.best_value = math.inf
        self.best_score = -math.inf
        self.best_weights: dict[str, Tensor] = {}

    def _share_features(self) -> FrozenEncoder | None:
        """Return what finds the features of a frozen encoder that the process has computed before."""
        encoder, runtime = self.task.encoder_module(), self.runtime
        if self.averaged is not None or not is_frozen(encoder):
            if runtime.device.type != "cpu":
                forget_all()
            return None
        inputs = (runtime.precision, str(runtime.device), self.normalisation.model_dump_json(), self.pack.digest)
        limit = CPU_BYTES if runtime.device.type == "cpu" else int(GPU_SHARE * runtime.memory_bytes())
        return FrozenEncoder(encoder, inputs, limit)

    def _known_as(self, keys: Callable[[], Sequence[Hashable]]) -> AbstractContextManager[None]:
        return nullcontext() if self.features is None else self.features.known_as(keys())

    def _known_in_training(self, slices: Tensor, batch: Tensor) -> AbstractContextManager[None]:
        """Name the inputs of a step where they come again: by content, or by row where that would wait for a GPU."""
        if not leaves_whole(self.training.augmentation):
            return nullcontext()
        if slices.device.type == "cpu":
            return self._known_as(lambda: content_keys(slices))
        settings = self.training.model_dump_json()
        return self._known_as(lambda: [(settings, int(row)) for row in self.rows[batch.numpy()]])

    def _trainable(self) -> list[torch.nn.Parameter]:
        return [parameter for parameter in self.network.parameters() if parameter.requires_grad]

    def _steps_per_epoch(self) -> int:
        if self.training.steps == "kalapos2022":
            return max(1, len(self.rows) * int(self.config["repeat"]) // self.training.batch_size)
        full = len(self.pack.select(split="train", annotated=True))
        slices = full if self.training.steps == "same" else len(self.rows)
        return math.ceil(slices / self.training.batch_size)

    def train_epoch(self) -> dict[str, float]:
        """Take the epoch's steps in full batches, going through the subset in orders drawn anew, as often as needed."""
        self.tuning.begin_epoch(self.history.epoch)
        if self.flight is None:
            self.flight = Flight(self._draw_order(self.steps_per_epoch * self.training.batch_size))
        rate = 0.0
        for batch in self.flight.batches(self.training.batch_size, self.steps_per_epoch):
            rate = self.schedule_step(self.optimiser, self.training.optimisation, self.steps_per_epoch)
            self.flight.add({"loss": self._step(batch)})
        return {**self.flight.means(), "lr": rate}

    def _draw_order(self, num_samples: int) -> Tensor:
        """Return positions in the subset: whole random orders, one after another, cut to length."""
        if self.training.steps == "kalapos2022":  # one order of all the repetitions, as of a longer list
            repeated = max(len(self.rows) * int(self.config["repeat"]), num_samples)
            return torch.randperm(repeated, generator=self.generator)[:num_samples] % len(self.rows)
        rounds = math.ceil(num_samples / len(self.rows))
        orders = [torch.randperm(len(self.rows), generator=self.generator) for _ in range(rounds)]
        return torch.cat(orders)[:num_samples]

    def _step(self, batch: Tensor) -> Tensor:
        slices, target = self._augmented(batch)
        with self.phases("forward"):
            with self.runtime.autocast(), self._known_in_training(slices, batch):
                output = self.network(slices)
            loss = self.task.loss(output, target)
        clip_norm = self.training.optimisation.clip_norm
        optimise(loss, self.optimiser, self.scaler, self._trainable(), clip_norm, self.phases)
        if self.averaged is not None:
            with self.phases("optimiser"):
                self.averaged.update(self.network)
        self.history.step += 1
        self.history.images += len(batch)
        return loss.detach()

    def _augmented(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Return a batch of crops, (B, C, S, S) float32 normalised, and what the network is to make of them."""
        rows, size, device = self.rows[batch.numpy()], self.training.image_size, self.runtime.device
        labels = self.task.labels_of(rows)
        with self.phases("data"):
            slices, masks = self.reader.slices(rows), self.reader.masks(rows) if labels is None else []
        with self.phases("augmentation"):
            parameters = draw(self.training.augmentation, self.reader.shapes(rows), self.generator)
            if labels is None:
                images, target = apply(slices, parameters, size, masks=masks, device=device)
            else:
                images, target = apply(slices, parameters, size, device=device), labels.to(device, non_blocking=True)
            return normalised(images, self.normalisation), target

    def _predict(self, slices: Tensor) -> Tensor:
        self.beat()
        with torch.inference_mode(), self.runtime.autocast(), self._known_as(lambda: content_keys(slices)):
            output: Tensor = self.network(normalised(slices.to(self.runtime.device), self.normalisation))
        return output.float()

    def end_epoch(self) -> tuple[int, ...]:
        """Validate where the study asks for it, and keep the weights of the best epoch."""
        epoch = self.history.epoch
        if epoch % self.training.evaluate_every and epoch < self.stage.epochs:
            return ()
        self.network.eval()
        with (
            self.phases("evaluation"),
            nullcontext() if self.averaged is None else self.averaged.in_place_of(self.network),
        ):
            found = self._validate()
            self._keep_if_best(found.score, self._badness(found))
        optimisation, stopping = self.training.optimisation, self.training.early_stopping
        if optimisation.schedule == "plateau":
            self.plateau.update(optimisation, found.falling(optimisation.monitor))
        if stopping is not None:
            self.patience.update(stopping, found)
        return ()

    def _validate(self) -> Validation:
        rows = self.pack.select(split="val", annotated=True)
        found = self.task.validate(rows, self._predict, self.generator, with_loss=monitors_loss(self.training))
        loss = {} if found.loss is None else {"loss": found.loss}
        self.history.add("val", {self.settings.metric: found.score, **found.metrics, **loss})
        return found

    def _keep_if_best(self, score: float, badness: float) -> None:
        """Keep the present weights if the epoch is the best of those that may be, or no such epoch has come yet."""
        epoch = self.history.epoch
        counts = epoch % self.training.best_every == 0 and math.isfinite(badness)
        if math.isinf(self.best_value) or (counts and badness < self.best_value):
            self.best_epoch, self.best_score = epoch, score
            self.best_value = badness if counts else math.inf
            self.best_weights = {key: value.detach().clone() for key, value in self.network.state_dict().items()}

    def _badness(self, found: Validation) -> float:
        """Return what decides which epoch is best; the lower the better."""
        by = self.training.best_by
        return -float(self.history.epoch) if by == "last" else found.falling(by)

    def ends_early(self) -> bool:
        """Whether validation has not improved for longer than the study bears."""
        stopping = self.training.early_stopping
        return stopping is not None and self.patience.is_over(stopping)

    def state(self) -> dict[str, Any]:
        """Return the network's, its average's, optimiser's and scaler's state, and what validation has led to."""
        return {
            "network": self.network.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "plateau": self.plateau.state_dict(),
            "patience": self.patience.state_dict(),
            "best": {
                "epoch": self.best_epoch,
                "score": self.best_score,
                "value": self.best_value,
                "weights": self.best_weights,
            },
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state`` returned."""
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["averaged"])
        self.plateau.load_state_dict(state["plateau"])
        self.patience.load_state_dict(state["patience"])
        best = state["best"]
        self.best_epoch, self.best_score, self.best_value = best["epoch"], best["score"], best["value"]
        self.best_weights = best["weights"]

    def conclude(self) -> dict[str, Any]:
        """Test the best epoch and publish its cases and examples."""
        self.network.load_state_dict(self.best_weights)
        self.network.eval()
        rows = self.pack.select(split="test", annotated=True)
        with self.phases("evaluation"):
            evaluation = self.task.evaluate(rows, self._predict, "test", NUM_EXAMPLES)
        stage = self.stage.id
        write_part(self.store, "cases", stage, [{"stage": stage, **case} for case in evaluation.cases])
        write_examples(self.store, stage, evaluation.examples)
        if self.stage.keep_model:
            self.tuning.merge()
            write_model(self.store, stage, self.network, self.origin, self.config, self.task.output_names)
        return {
            "loading": self.origin.loading,
            "num_train": len(self.rows),
            "best_epoch": self.best_epoch,
            "metric": self.settings.metric,
            "val_score": self.best_score,
            "test_score": evaluation.score,
            "train_subset": row_names(self.pack, self.rows),
            "notes": list(evaluation.notes) or None,
        }
