"""What stages ask of a node now, in Ray's words, and which of them ask for the same."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from raysweep.engine.gpu_shares import GpuShares
from raysweep.planning import Stage
from raysweep.planning.cost import Rates
from raysweep.study import Resources, StageResources

_GIGABYTE = 10**9


Key = tuple[tuple[str, Any], ...]


class Requests:
    """The requests of a study's stages; the share of a GPU follows what stages of a shape were measured to hold."""

    def __init__(self, wanted: Resources, rates: Rates) -> None:
        self.limits = {"pretrain": wanted.pretrain, "finetune": wanted.finetune}
        self.shares = GpuShares(rates.measured)
        self._known: dict[Hashable, tuple[Mapping[str, float], Key]] = {}
        self._known_at = self.shares.num_changes

    def resources(self, stage: Stage) -> StageResources:
        """Return what the study says of a stage's kind."""
        return self.limits[stage.kind]

    def request(self, stage: Stage) -> Mapping[str, float]:
        """Return what a stage asks for now: CPU, GPU, memory in bytes, custom resources."""
        return self._of(stage)[0]

    def key(self, stage: Stage) -> Key:
        """Return the request as a value that can be compared and looked up."""
        return self._of(stage)[1]

    def group(self, stage: Stage) -> Hashable:
        """Return what stages that ask for the same have in common, now and later."""
        return (stage.kind, stage.shape) if self.limits[stage.kind].asks_gpu else stage.kind

    def _of(self, stage: Stage) -> tuple[Mapping[str, float], Key]:
        if self._known_at != self.shares.num_changes:
            self._known, self._known_at = {}, self.shares.num_changes
        group = self.group(stage)
        if group not in self._known:
            request = self._built(stage)
            self._known[group] = request, request_key(request)
        return self._known[group]

    def _built(self, stage: Stage) -> dict[str, float]:
        resources = self.resources(stage)
        request = {"CPU": resources.cpus, **resources.custom}
        if share := self.shares.share(stage, resources):
            request["GPU"] = share
        if resources.memory_gb:
            request["memory"] = resources.memory_gb * _GIGABYTE
        return request


def request_key(request: Mapping[str, float]) -> Key:
    """Return a request as a value that can be compared and looked up."""
    return tuple(sorted(request.items()))
