"""The epoch loop that both kinds of stage share: resume, metrics, progress, publishing."""

from __future__ import annotations

import io
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any

import torch

from raysweep.data.reader import open_reader
from raysweep.data.readings import read_as
from raysweep.data.staging import open_located
from raysweep.errors import StageError
from raysweep.planning import Stage
from raysweep.results.write import write_part
from raysweep.settings import Normalisation, Optimisation, Reading
from raysweep.sources.formats import UNREADABLE
from raysweep.stages.failure import stage_columns
from raysweep.stages.flight import Flight
from raysweep.stages.phases import UNMEASURED, Phases
from raysweep.stages.progress import Beat, Progress, StagePreempted, no_beat
from raysweep.stages.publisher import Publisher, copied
from raysweep.stages.runtime import Runtime, seed_afresh
from raysweep.stages.schedules import Plateau, learning_rate, set_learning_rate, set_weight_decay, weight_decay
from raysweep.store import LedgerRecord, Store


@dataclass
class History:
    """What a stage has done so far; part of its resume state."""

    epoch: int = 0
    step: int = 0
    images: int = 0
    elapsed_s: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    drawn_seed: int | None = None
    """Seed that an unseeded stage drew at its start."""

    def add(self, split: str, metrics: Mapping[str, float]) -> None:
        """Add a row of the epochs table for each metric."""
        for metric, value in metrics.items():
            self.rows.append(
                {
                    "epoch": self.epoch,
                    "step": self.step,
                    "split": split,
                    "metric": metric,
                    "value": value,
                    "elapsed_s": self.elapsed_s,
                }
            )


class TrainingLoop(ABC):
    """Trains one stage epoch by epoch, resumes from its own state, and publishes its rows when it ends.

    A state is published after every epoch: an interruption loses at most the epoch in flight and, where that state was
    still being written, the one before. When its process is to end, the stage publishes one at its next step: a
    preemption loses nothing. The continued run computes the same bits as an undisturbed one.
    """

    beat: Beat = staticmethod(no_beat)
    """Called before every optimiser step and every evaluated batch; what it raises ends the stage. If it returns true
    at an optimiser step, the stage saves its training state and ends."""

    phases: Phases = UNMEASURED
    """Told what the stage is doing, for profiles."""

    def __init__(self, stage: Stage, store: Store, runtime: Runtime, attempt: int) -> None:
        self.stage = stage
        self.store = store
        self.runtime = runtime
        self.attempt = attempt
        self.config = stage.config
        self.reading = reading_of(stage)
        self.pack = read_as(open_located(stage.inputs["pack"], stage.config["pack"]), self.reading)
        self.reader = open_reader(self.pack, runtime.device, runtime.memory_bytes())
        drawn = seed_afresh() if stage.config.get("seeding") == "none" else None
        self.generator = torch.Generator().manual_seed(stage.config["seed"] if drawn is None else drawn)
        self.history = History(drawn_seed=drawn)
        self.flight: Flight | None = None
        """The epoch that has begun and is not trained to its end."""
        self.plateau = Plateau()
        self.publisher = Publisher()
        self.started_at = datetime.now(UTC)

    def run(self) -> Iterator[Progress]:
        """Train what remains, yielding after every epoch; rows and ledger record are published before it ends.

        An epoch's training state is still being written while the next one trains, in this order and each whole; it is
        there when the generator has ended or was closed.
        """
        with self.publisher:
            yield from self._run()

    def _run(self) -> Iterator[Progress]:
        self._restore()
        if not self.history.epoch:
            self.start()
        yield Progress(self._completed(), self.published_snapshots())
        while self.flight is not None or (self.history.epoch < self.stage.epochs and not self.ends_early()):
            begin = time.perf_counter()
            if self.flight is None:
                self.history.epoch += 1
            try:
                metrics = self.train_epoch()
            except StagePreempted:
                self.history.elapsed_s += time.perf_counter() - begin
                self._save()
                self.publisher.wait()
                raise
            self.flight = None
            if bad := [name for name, value in metrics.items() if not math.isfinite(value)]:
                raise StageError(
                    f"{', '.join(bad)} is not finite in epoch {self.history.epoch} of stage {self.stage.name}: "
                    "lower the learning rate, clip gradients (clip_norm), or use precision float32"
                )
            self.history.elapsed_s += time.perf_counter() - begin
            self.history.add("train", metrics)
            begin = time.perf_counter()
            published = self.end_epoch()
            with self.phases("saving"):
                self._save()
            self.history.elapsed_s += time.perf_counter() - begin
            yield Progress(self.history.epoch, published, self._latest(), **self.runtime.gpu_memory())
        with self.phases("saving"):
            self.publisher.wait()
        yield Progress(self.history.epoch, score=self._finish())

    @abstractmethod
    def train_epoch(self) -> dict[str, float]:
        """Train one epoch, or what remains of the one in flight, and return its metrics."""

    @abstractmethod
    def end_epoch(self) -> tuple[int, ...]:
        """Validate or publish what the epoch calls for; return the epochs of newly published snapshots."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return what the kind of stage needs to continue, as tensors and plain values."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state`` returned."""

    @abstractmethod
    def conclude(self) -> dict[str, Any]:
        """Publish the stage's own tables and return its columns of the stages table."""

    def start(self) -> None:  # noqa: B027 - most kinds of stage measure nothing then
        """Record what is known before the first epoch; nothing here may change the training."""

    def published_snapshots(self) -> tuple[int, ...]:
        """Return the epochs of snapshots that an earlier attempt published."""
        return ()

    def ends_early(self) -> bool:
        """Whether the epochs trained so far are enough, although more were planned."""
        return False

    def can_continue(self, epoch: int) -> bool:
        """Whether a training state saved after an epoch can be continued, rather than starting over."""
        return True

    def seen_as(self, start: Normalisation) -> Normalisation:
        """Return the normalisation of slices: that of the weights, unless the study gives another."""
        own = self.reading.normalisation
        return start if own is None else own.for_channels(self.pack.num_channels)

    def schedule_step(self, optimiser: torch.optim.Optimizer, settings: Optimisation, steps_per_epoch: int) -> float:
        """Give a sign of life, set the learning rate and the weight decay of the next step, and return the rate.

        Raises:
            StagePreempted: if the stage is to save its training state and end.
        """
        if self.beat():
            raise StagePreempted
        self.phases.step()
        total_steps = self.stage.epochs * steps_per_epoch
        rate = learning_rate(settings, self.history.step, steps_per_epoch, total_steps, self.plateau.scale)
        set_learning_rate(optimiser, rate)
        set_weight_decay(optimiser, weight_decay(settings, self.history.step, total_steps))
        return rate

    def _save(self) -> None:
        history = {**self.history.__dict__, "rows": json.dumps(self.history.rows)}
        rng = {"generator": self.generator.get_state(), "torch": torch.get_rng_state()}
        if self.runtime.device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state(self.runtime.device)
        flight = None if self.flight is None else self.flight.state()
        state, ready = copied({"history": history, "rng": rng, "state": self.state(), "flight": flight})

        def publish() -> None:
            ready()
            buffer = io.BytesIO()
            torch.save(state, buffer)
            self.store.write_bytes(self.store.resume_path(self.stage.id), buffer.getvalue())

        self.publisher.submit(publish)

    def _restore(self) -> None:
        path = self.store.resume_path(self.stage.id)
        data = self.store.read_bytes(path)
        if data is None:
            return
        try:
            saved = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except UNREADABLE as error:
            raise StageError(
                f"training state {self.store.uri}/{path} of stage {self.stage.name} is corrupt: {error}. "
                "Delete it to start the stage over."
            ) from error
        flight = saved.get("flight")  # states of earlier versions were saved between epochs only
        if not self.can_continue(saved["history"]["epoch"] - (flight is not None)):
            return
        self.flight = None if flight is None else Flight.of(flight, self.runtime.device)
        self.history = History(**{**saved["history"], "rows": json.loads(saved["history"]["rows"])})
        self.load_state(saved["state"])
        self.generator.set_state(saved["rng"]["generator"])
        torch.set_rng_state(saved["rng"]["torch"])
        if "cuda" in saved["rng"] and self.runtime.device.type == "cuda":
            torch.cuda.set_rng_state(saved["rng"]["cuda"], self.runtime.device)

    def _completed(self) -> int:
        """Return the last epoch that was trained to its end."""
        return self.history.epoch - (self.flight is not None)

    def _finish(self) -> float | None:
        """Publish rows and ledger record, and return the test score, if the stage has one."""
        begin = time.perf_counter()
        columns = self.conclude()
        stage = self.stage.id
        rows = [{"stage": stage, **row} for row in self.history.rows]
        write_part(self.store, "epochs", stage, rows)
        self.history.elapsed_s += time.perf_counter() - begin
        done = {**stage_columns(self.stage), **self._columns(), **columns, "status": "done"}
        write_part(self.store, "stages", stage, [done])
        snapshots = self.store.snapshot_epochs(stage)
        host = self.runtime.facts()["host"]
        kept = self.stage.keep_model
        self.store.record(LedgerRecord(stage, "done", snapshots, attempt=self.attempt, host=host, model=kept))
        self.store.delete(self.store.resume_path(stage))
        score: float | None = columns.get("test_score")
        return score

    def _latest(self) -> dict[str, float]:
        """Return the metrics of the epoch that has just ended, as split/metric."""
        rows = takewhile(lambda row: row["epoch"] == self.history.epoch, reversed(self.history.rows))
        return {f"{row['split']}/{row['metric']}": row["value"] for row in rows}

    def _columns(self) -> dict[str, Any]:
        return {
            "epochs": self.history.epoch,
            "steps": self.history.step,
            "images": self.history.images,
            "drawn_seed": self.history.drawn_seed,
            "attempt": self.attempt,
            "started_at": self.started_at,
            "wall_s": self.history.elapsed_s,
            **self.runtime.gpu_memory(),
            **self.runtime.facts(),
        }


def reading_of(stage: Stage) -> Reading:
    """Return how a stage reads its pack."""
    if stage.kind == "pretrain":
        return Reading.model_validate(stage.config.get("reading", {}))
    training = stage.config["task"]["settings"]["training"]
    return Reading.model_validate(training.get("reading", {}))
