"""The profile of one stage: seconds of each phase, and a torch profiler trace of a few of its first steps."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from raysweep.planning import Stage
from raysweep.stages.phases import PHASES, Phase, Phases
from raysweep.stages.runtime import Runtime
from raysweep.store import Store

os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # the profiler's library reports its starts, and each absent GPU

FIRST_TRACED, LAST_TRACED = 2, 4
"""Optimiser steps of an attempt, from 0, that the trace holds: the first are not like the rest."""
_OF_STEPS: tuple[Phase, ...] = ("data", "augmentation", "forward", "backward", "optimiser")


class Profile(Phases):
    """Measures one attempt of a stage and publishes what it found in ``profiles/<stage>/`` when closed.

    On a GPU every phase begins and ends by waiting for the device, so that its time is its own; the whole is then a
    little slower than without a profile. Steps up to the end of the trace are left out of the seconds of steps, unless
    there are no others.
    """

    def __init__(self, stage: Stage, store: Store, runtime: Runtime) -> None:
        self._stage, self._store, self._runtime = stage, store, runtime
        self._begin = time.perf_counter()
        self._steps = -1
        self._seconds = {traced: dict.fromkeys(PHASES, 0.0) for traced in (True, False)}
        self._num_steps = {True: 0, False: 0}
        self._step_begin: float | None = None
        self._in_steps = {True: 0.0, False: 0.0}
        self._trace: Any = None

    @property
    def _is_early(self) -> bool:
        return self._steps <= LAST_TRACED

    @contextmanager
    def __call__(self, name: Phase) -> Iterator[None]:
        """Add the time that the block takes to a phase."""
        if name not in _OF_STEPS:
            self._end_step()
        self._wait()
        begin = time.perf_counter()
        with record_function(f"raysweep:{name}"):
            yield
            self._wait()
        self._seconds[self._is_early and name in _OF_STEPS][name] += time.perf_counter() - begin

    def step(self) -> None:
        """Begin the next step, and the trace with the step that is the first in it."""
        self._end_step()
        self._steps += 1
        if self._steps == FIRST_TRACED:
            self._trace = profile(activities=_activities(self._runtime.device))
            self._trace.start()
        elif self._steps == LAST_TRACED + 1:
            self._stop_trace()
        self._num_steps[self._is_early] += 1
        self._step_begin = time.perf_counter()

    def close(self) -> None:
        """Publish the trace, and the breakdown as JSON."""
        self._end_step()
        self._stop_trace()
        path = self._store.profile_path(self._stage.id, "breakdown.json")
        self._store.write_bytes(path, json.dumps(self._breakdown(), sort_keys=True).encode())

    def _wait(self) -> None:
        if self._runtime.device.type == "cuda":
            torch.cuda.synchronize(self._runtime.device)

    def _end_step(self) -> None:
        """Take the time since the step began; what evaluation and saving take between two steps is no part of it."""
        if self._step_begin is not None:
            self._wait()
            self._in_steps[self._is_early] += time.perf_counter() - self._step_begin
            self._step_begin = None

    def _stop_trace(self) -> None:
        if self._trace is None:
            return
        self._trace.stop()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "trace.json"
            self._trace.export_chrome_trace(str(file))
            data = file.read_bytes()
        self._store.write_bytes(self._store.profile_path(self._stage.id, "trace.json"), data)
        self._trace = None

    def _breakdown(self) -> dict[str, Any]:
        early = self._num_steps[False] == 0
        return {
            "stage": self._stage.id,
            "name": self._stage.name,
            "steps": self._num_steps[early],
            "steps_s": self._in_steps[early],
            "phases_s": {name: self._seconds[early and name in _OF_STEPS][name] for name in PHASES},
            "wall_s": time.perf_counter() - self._begin,
            "traced_steps": [FIRST_TRACED, min(LAST_TRACED, self._steps)] if self._steps >= FIRST_TRACED else [],
            **{key: value for key, value in self._runtime.facts().items() if key in ("device", "precision", "threads")},
        }


def _activities(device: torch.device) -> list[ProfilerActivity]:
    return [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
