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
    """

    def __init__(self, nodes: Sequence[Resources]) -> None:
        self._nodes = [_Node(dict(node)) for node in nodes]
        self._held: dict[str, tuple[_Node, Resources]] = {}
        self._reserved: list[_Node] = []

    def begin_round(self) -> None:
        """Forget reservations; call before walking the queue from its head."""
        self._reserved = []

    def admit(self, stage: str, request: Resources) -> bool:
        """Admit a stage if a node that nobody reserved has room; otherwise reserve a node for it."""
        open_nodes = [node for node in self._nodes if not any(node is reserved for reserved in self._reserved)]
        fitting = [node for node in open_nodes if node.has_room(request)]
        if fitting:
            node = min(fitting, key=lambda node: _room_left(node, request))
            node.add(request, +1)
            self._held[stage] = (node, request)
            return True
        candidates = [node for node in open_nodes if node.could_hold(request)]
        if candidates:
            self._reserved.append(max(candidates, key=lambda node: _room_left(node, request)))
        return False

    def release(self, stage: str) -> None:
        """Give back what a stage held."""
        held = self._held.pop(stage, None)
        if held is not None:
            held[0].add(held[1], -1)

    def can_ever_hold(self, request: Resources) -> bool:
        """Whether any node, empty, has room for a request."""
        return any(node.could_hold(request) for node in self._nodes)

    def largest(self) -> list[dict[str, float]]:
        """Return what every node has in all, for messages."""
        return [dict(node.total) for node in self._nodes]


def _room_left(node: _Node, request: Resources) -> tuple[float, ...]:
    """Room a node has left after a request, scarcest resource first (GPUs, then CPUs, then the rest)."""
    names = sorted(request, key=lambda name: (name != "GPU", name != "CPU", name))
    return tuple(node.free(name) - request[name] for name in names)
