"""What stages ask of a node now, in Ray's words, and which of them ask for the same."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from raysweep.engine.gpu_shares import GpuShares
from raysweep.planning import Stage
from raysweep.planning.cost import Rates
from raysweep.study import Resources, StageResources

_GIGABYTE = 10**9


class Requests:
    """The requests of a study's stages; the share of a GPU follows what stages of a shape were measured to hold."""

    def __init__(self, wanted: Resources, rates: Rates) -> None:
        self.limits = {"pretrain": wanted.pretrain, "finetune": wanted.finetune}
        self.shares = GpuShares(rates.measured)

    def resources(self, stage: Stage) -> StageResources:
        """Return what the study says of a stage's kind."""
        return self.limits[stage.kind]

    def request(self, stage: Stage) -> dict[str, float]:
        """Return what a stage asks for now: CPU, GPU, memory in bytes, custom resources."""
        resources = self.resources(stage)
        request = {"CPU": resources.cpus, **resources.custom}
        if share := self.shares.share(stage, resources):
            request["GPU"] = share
        if resources.memory_gb:
            request["memory"] = resources.memory_gb * _GIGABYTE
        return request

    def group(self, stage: Stage) -> Hashable:
        """Return what stages that ask for the same have in common, now and later."""
        return (stage.kind, stage.shape) if self.limits[stage.kind].asks_gpu else stage.kind


def request_key(request: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Return a request as a value that can be compared and looked up."""
    return tuple(sorted(request.items()))
