"""Which node has room for a stage: a model of every node, so that half a GPU here and half there is not one GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_EPSILON = 1e-6

Resources = Mapping[str, float]


@dataclass
class _Node:
    total: dict[str, float]
    used: dict[str, float] = field(default_factory=dict)

    def free(self, name: str) -> float:
        return self.total.get(name, 0.0) - self.used.get(name, 0.0)

    def has_room(self, request: Resources) -> bool:
        return all(self.free(name) + _EPSILON >= amount for name, amount in request.items())

    def could_hold(self, request: Resources) -> bool:
        return all(self.total.get(name, 0.0) + _EPSILON >= amount for name, amount in request.items())

    def add(self, request: Resources, sign: int) -> None:
        for name, amount in request.items():
            self.used[name] = self.used.get(name, 0.0) + sign * amount


class Admission:
    """Admits stages to nodes, first come first reserved.

    A stage that does not fit now reserves the node where it comes to fit soonest: stages behind it in the queue are
    admitted to other nodes only. Without that, a stream of small requests starves a large one for ever.

    Nodes may come and go; a stage on a node that is gone holds nothing.
    """

    def __init__(self, nodes: Sequence[Resources] | Mapping[str, Resources]) -> None:
        self._nodes: dict[str, _Node] = {}
        self._held: dict[str, tuple[str, Resources]] = {}
        self._reserved: set[str] = set()
        self.update(nodes if isinstance(nodes, Mapping) else {str(i): node for i, node in enumerate(nodes)})

    def update(self, nodes: Mapping[str, Resources]) -> None:
        """Take the nodes that there are now, by id, with what each has in all."""
        for name in self._nodes.keys() - nodes.keys():
            del self._nodes[name]
        for name, total in nodes.items():
            self._nodes.setdefault(name, _Node({})).total = dict(total)

    def begin_round(self) -> None:
        """Forget reservations; call before walking the queue from its head."""
        self._reserved = set()

    def admit(self, stage: str, request: Resources) -> str | None:
        """Admit a stage and return its node if one that nobody reserved has room; otherwise reserve a node for it."""
        unreserved = {name: node for name, node in self._nodes.items() if name not in self._reserved}
        fitting = [name for name, node in unreserved.items() if node.has_room(request)]
        if fitting:
            chosen = min(fitting, key=lambda name: _room_left(unreserved[name], request))
            self._nodes[chosen].add(request, +1)
            self._held[stage] = (chosen, request)
            return chosen
        candidates = [name for name, node in unreserved.items() if node.could_hold(request)]
        if candidates:
            self._reserved.add(max(candidates, key=lambda name: _room_left(unreserved[name], request)))
        return None

    def move(self, stage: str, node: str) -> None:
        """Note that a stage runs on another node than it was admitted to: placement is the cluster's decision."""
        held = self._held.get(stage)
        if held is not None and held[0] != node and node in self._nodes:
            self.release(stage)
            self._nodes[node].add(held[1], +1)
            self._held[stage] = (node, held[1])

    def release(self, stage: str) -> None:
        """Give back what a stage held."""
        node, request = self._held.pop(stage, ("", {}))
        if node in self._nodes:
            self._nodes[node].add(request, -1)

    def node_of(self, stage: str) -> str | None:
        """Return the node that a stage was admitted to; None if it holds nothing."""
        return self._held[stage][0] if stage in self._held else None

    def has(self, node: str) -> bool:
        """Whether a node is there."""
        return node in self._nodes

    def can_ever_hold(self, request: Resources) -> bool:
        """Whether any node, empty, has room for a request."""
        return any(node.could_hold(request) for node in self._nodes.values())

    def largest(self) -> list[dict[str, float]]:
        """Return what every node has in all, for messages."""
        return [dict(node.total) for node in self._nodes.values()]

    def use(self, name: str) -> tuple[float, float]:
        """Return how much of a resource is held, and how much there is."""
        nodes = self._nodes.values()
        return sum(node.used.get(name, 0.0) for node in nodes), sum(node.total.get(name, 0.0) for node in nodes)


def _room_left(node: _Node, request: Resources) -> tuple[float, ...]:
    """Room a node has left after a request, scarcest resource first (GPUs, then CPUs, then the rest)."""
    names = sorted(request, key=lambda name: (name != "GPU", name != "CPU", name))
    return tuple(node.free(name) - request[name] for name in names)
