"""How much of a GPU a stage asks for: what the study says, or what stages of its shape were measured to hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from raysweep.planning import Stage
from raysweep.planning.cost import Measured
from raysweep.study import StageResources

_PER_GPU = (16, 12, 8, 6, 4, 3, 2, 1)
"""Stages that may share one GPU: few sizes, for a worker serves stages that ask for the same."""
_MARGIN = 1.1
_CONTEXT_BYTES = 600 * 2**20
"""What a process holds on a GPU beside its tensors: context and kernels."""


@dataclass(frozen=True)
class _Memory:
    peak_bytes: int
    total_bytes: int


class GpuShares:
    """The share of a GPU by the shape of stages; it grows where a stage ran out of memory.

    With ``gpus: auto`` the first stage of a shape has a whole GPU; the share of those after it is the smallest 1/k
    that holds what it held, with a margin and the process's own memory.
    """

    def __init__(self, measured: Mapping[str, Measured]) -> None:
        self._memory: dict[str, _Memory] = {}
        self._at_least: dict[str, float] = {}
        self.num_changes = 0
        """Grows whenever a share may have become another one."""
        for shape, found in measured.items():
            self._note(shape, found.gpu_peak_bytes, found.gpu_total_bytes)

    def share(self, stage: Stage, resources: StageResources) -> float:
        """Return the GPUs that a stage asks for now; 0 for none."""
        if not resources.asks_gpu:
            return 0.0
        wanted = resources.gpu_share
        if resources.gpus == "auto" and stage.shape in self._memory:
            wanted = _smallest_share(self._memory[stage.shape])
        return max(wanted, self._at_least.get(stage.shape, 0.0))

    def measured(self, stage: Stage, peak_bytes: int | None, total_bytes: int | None) -> None:
        """Take what a stage has held so far."""
        self._note(stage.shape, peak_bytes, total_bytes)

    def ran_out(self, stage: Stage, share: float) -> bool:
        """Note that a stage ran out of memory with a share; return whether a larger one can help."""
        if not 0 < share < 1:
            return False
        self._at_least[stage.shape] = max(self._at_least.get(stage.shape, 0.0), min(1.0, 2 * share))
        self.num_changes += 1
        return True

    def _note(self, shape: str, peak_bytes: int | None, total_bytes: int | None) -> None:
        if peak_bytes and total_bytes:
            known = self._memory.get(shape, _Memory(0, total_bytes))
            now = _Memory(max(known.peak_bytes, peak_bytes), min(known.total_bytes, total_bytes))
            if self._memory.get(shape) != now:
                self._memory[shape] = now
                self.num_changes += 1


def _smallest_share(memory: _Memory) -> float:
    needed = (memory.peak_bytes * _MARGIN + _CONTEXT_BYTES) / memory.total_bytes
    return next((1 / number for number in _PER_GPU if 1 / number >= needed), 1.0)
