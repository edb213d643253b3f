"""Clusters to try: nodes of one kind or several, spot nodes that come and go, and what an hour costs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import Field

from raysweep.settings import Settings

_GIGABYTE = 10**9


class NodeKind(Settings):
    """Nodes that are alike."""

    count: int = Field(1, ge=1)
    """How many there are."""
    gpus: float = Field(0.0, ge=0)
    """GPUs of each."""
    cpus: float = Field(1.0, gt=0)
    """CPU cores of each."""
    memory_gb: float | None = Field(None, gt=0)
    """Main memory of each in gigabytes; null never runs out."""
    custom: dict[str, float] = Field(default_factory=dict)
    """Custom Ray resources of each."""
    speed: float = Field(1.0, gt=0)
    """How fast stages train here, against the nodes that rates were measured on or assumed for."""
    spot: bool = False
    """Whether they may be taken away at any time."""
    node_hour: float | None = Field(None, ge=0)
    """Price of one node's hour; null takes the prices of GPUs and cores."""

    def resources(self) -> dict[str, float]:
        """Return what one node has in all, in Ray's words."""
        memory = math.inf if self.memory_gb is None else self.memory_gb * _GIGABYTE
        return {"CPU": self.cpus, "GPU": self.gpus, "memory": memory, **self.custom}


class Clusters(Settings):
    """Clusters by name, each a list of kinds of node: what `simulate --nodes FILE` reads."""

    clusters: dict[str, list[NodeKind]] = Field(min_length=1)
    """Kinds of node by the cluster's name."""

    def listed(self) -> list[Cluster]:
        """Return the clusters in the order of the file."""
        return [Cluster(name, tuple(kinds)) for name, kinds in self.clusters.items()]


class HourlyPrices(Settings):
    """What an hour of a node costs, by what the node has."""

    gpu_hour: float = Field(0.0, ge=0)
    """Per GPU."""
    core_hour: float = Field(0.0, ge=0)
    """Per CPU core."""


class Prices(Settings):
    """What `simulate --prices FILE` reads."""

    currency: str = "USD"
    """Name of the unit."""
    on_demand: HourlyPrices
    """Of nodes that stay."""
    spot: HourlyPrices | None = None
    """Of nodes that may be taken away; null is the price of the others."""

    def node_hour(self, kind: NodeKind) -> float:
        """Return the price of one node's hour."""
        if kind.node_hour is not None:
            return kind.node_hour
        hourly = self.spot if kind.spot and self.spot is not None else self.on_demand
        return kind.gpus * hourly.gpu_hour + kind.cpus * hourly.core_hour


@dataclass(frozen=True)
class Spot:
    """How spot nodes are taken away: each after an exponentially distributed time, another one coming some time later.

    What is lost is the epoch in flight, for stages save after each; nothing is, where nodes give notice.
    """

    losses_per_node_h: float = 0.0
    """Mean number of losses of one node in an hour."""
    returns_after_s: float = 300.0
    """Seconds until another node takes the place of a lost one."""
    gives_notice: bool = False
    """Whether workers hear of it early enough to save at their next optimiser step."""


STAYING = Spot()
"""No node is ever taken away."""


@dataclass(frozen=True)
class Cluster:
    """A cluster by name and the kinds of its nodes."""

    name: str
    kinds: tuple[NodeKind, ...]

    def nodes(self) -> Iterator[tuple[str, NodeKind]]:
        """Yield every node: an id and its kind."""
        for position, kind in enumerate(self.kinds):
            for number in range(kind.count):
                yield f"{position}-{number}", kind

    def total(self, resource: str) -> float:
        """Return how much of a resource all nodes have."""
        return sum(kind.count * kind.resources().get(resource, 0.0) for kind in self.kinds)

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return sum(kind.count for kind in self.kinds)

    def hourly_price(self, prices: Prices) -> float:
        """Return the price of an hour of all nodes."""
        return sum(kind.count * prices.node_hour(kind) for kind in self.kinds)


def uniform_cluster(
    size: int, per_node: int, *, cores_per_gpu: float | None, custom: Mapping[str, float] | None = None, spot: bool
) -> Cluster:
    """Return a cluster of so many GPUs, or cores where ``cores_per_gpu`` is None, on nodes of at most ``per_node``.

    Custom resources are there in any amount: what limits the cluster is its size.
    """
    there = dict.fromkeys(custom or (), math.inf)
    full, rest = divmod(size, per_node)
    kinds = []
    for count, on_each in ((full, per_node), (1, rest)):
        if count and on_each:
            gpus, cpus = (0, on_each) if cores_per_gpu is None else (on_each, max(1.0, on_each * cores_per_gpu))
            # Infinity is no number a file may hold; the nodes here come from no file.
            kind = NodeKind(count=count, gpus=gpus, cpus=cpus, spot=spot)
            kinds.append(kind.model_copy(update={"custom": there}))
    unit = "CPU" if cores_per_gpu is None else "GPU"
    return Cluster(f"{size} {unit}{'s' if size != 1 else ''}", tuple(kinds))
