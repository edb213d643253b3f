"""Which node has room for a stage: a model of every node, so that half a GPU here and half there is not one GPU."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_EPSILON = 1e-6
_DIGITS = 9
"""Sums are rounded to so many, so that nodes which have the same free count as alike."""

Resources = Mapping[str, float]


@dataclass
class _Node:
    name: str
    order: int
    total: Resources
    used: dict[str, float] = field(default_factory=dict)
    alike: _Alike | None = None
    """The group that it is in; None while it is reserved."""

    def add(self, request: Resources, sign: int) -> None:
        for name, amount in request.items():
            self.used[name] = round(self.used.get(name, 0.0) + sign * amount, _DIGITS)


@dataclass
class _Alike:
    """Nodes that nobody has reserved, with equal resources, of which as much is in use: to a request they are one."""

    total: tuple[float, ...]
    free: tuple[float, ...]
    members: int = 0
    waiting: list[tuple[int, str]] = field(default_factory=list)
    """Heap of members and of nodes that were members."""
    in_heap: set[int] = field(default_factory=set)

    def add(self, node: _Node) -> None:
        node.alike = self
        self.members += 1
        if node.order not in self.in_heap:
            self.in_heap.add(node.order)
            heapq.heappush(self.waiting, (node.order, node.name))

    def first(self, nodes: Mapping[str, _Node]) -> _Node:
        """Return the member that joined first."""
        while True:
            order, name = self.waiting[0]
            node = nodes.get(name)
            if node is not None and node.alike is self and node.order == order:
                return node
            heapq.heappop(self.waiting)
            self.in_heap.discard(order)


class Admission:
    """Admits stages to nodes, first come first reserved.

    A stage that does not fit now reserves the node where it comes to fit soonest: stages behind it in the queue are
    admitted to other nodes only. Without that, a stream of small requests starves a large one for ever.

    Nodes may come and go; a stage on a node that is gone holds nothing. A decision looks once at all nodes that are
    alike, so that its cost hardly grows with their number.
    """

    def __init__(self, nodes: Sequence[Resources] | Mapping[str, Resources]) -> None:
        self._nodes: dict[str, _Node] = {}
        self._held: dict[str, tuple[str, Resources]] = {}
        self._reserved: list[_Node] = []
        self._names: tuple[str, ...] = ()
        self._alike: dict[tuple[tuple[float, ...], tuple[float, ...]], _Alike] = {}
        self._totals: Counter[tuple[tuple[str, float], ...]] = Counter()
        self._seen: Mapping[str, Resources] | None = None
        self._num_joined = 0
        self.update(nodes if isinstance(nodes, Mapping) else {str(i): node for i, node in enumerate(nodes)})

    def update(self, nodes: Mapping[str, Resources]) -> None:
        """Take the nodes that there are now, by id, with what each has in all; a change is another mapping."""
        if nodes is self._seen:
            return
        self._seen = nodes
        for name in self._nodes.keys() - nodes.keys():
            node = self._nodes.pop(name)
            self._leave(node)
            self._reserved = [other for other in self._reserved if other is not node]
        for name, total in nodes.items():
            known = self._nodes.get(name)
            if known is None:
                self._num_joined += 1
                self._nodes[name] = node = _Node(name, self._num_joined, dict(total))
                self._join(node)
            elif known.total != total:
                is_reserved = known.alike is None
                self._leave(known)
                known.total = dict(total)
                if not is_reserved:
                    self._join(known)
        self._totals = Counter(tuple(sorted(node.total.items())) for node in self._nodes.values())

    def begin_round(self) -> None:
        """Forget reservations; call before walking the queue from its head."""
        for node in self._reserved:
            self._join(node)
        self._reserved = []

    def admit(self, stage: str, request: Resources) -> str | None:
        """Admit a stage and return its node if one that nobody reserved has room; otherwise reserve a node for it."""
        if unknown := request.keys() - set(self._names):
            self._tell_apart_by(unknown)
        wanted = [(self._names.index(name), request[name]) for name in sorted(request, key=_scarcest_first)]
        groups = self._alike.values()
        fitting = [g for g in groups if all(g.free[place] + _EPSILON >= amount for place, amount in wanted)]
        if fitting:
            # The least room left, scarcest resource first; among equals, the node that joined first.
            options = [
                (tuple(g.free[place] - amount for place, amount in wanted), g.first(self._nodes).order, g)
                for g in fitting
            ]
            node = min(options, key=lambda option: option[:2])[2].first(self._nodes)
            self._change(node, request, +1)
            self._held[stage] = (node.name, request)
            return node.name
        candidates = [g for g in groups if all(g.total[place] + _EPSILON >= amount for place, amount in wanted)]
        if candidates:
            options = [
                (tuple(amount - g.free[place] for place, amount in wanted), g.first(self._nodes).order, g)
                for g in candidates
            ]
            node = min(options, key=lambda option: option[:2])[2].first(self._nodes)
            self._leave(node)
            self._reserved.append(node)
        return None

    def move(self, stage: str, node: str) -> None:
        """Note that a stage runs on another node than it was admitted to: placement is the cluster's decision."""
        held = self._held.get(stage)
        if held is not None and held[0] != node and node in self._nodes:
            self.release(stage)
            self._change(self._nodes[node], held[1], +1)
            self._held[stage] = (node, held[1])

    def release(self, stage: str) -> None:
        """Give back what a stage held."""
        node, request = self._held.pop(stage, ("", {}))
        if node in self._nodes:
            self._change(self._nodes[node], request, -1)

    def node_of(self, stage: str) -> str | None:
        """Return the node that a stage was admitted to; None if it holds nothing."""
        return self._held[stage][0] if stage in self._held else None

    def has(self, node: str) -> bool:
        """Whether a node is there."""
        return node in self._nodes

    def can_ever_hold(self, request: Resources) -> bool:
        """Whether any node, empty, has room for a request."""
        return any(
            all(total.get(name, 0.0) + _EPSILON >= amount for name, amount in request.items())
            for total in self.largest()
        )

    def largest(self) -> list[dict[str, float]]:
        """Return what nodes have in all, equal ones once."""
        return [dict(total) for total in self._totals]

    def use(self, name: str) -> tuple[float, float]:
        """Return how much of a resource is held, and how much there is."""
        nodes = self._nodes.values()
        return sum(node.used.get(name, 0.0) for node in nodes), sum(node.total.get(name, 0.0) for node in nodes)

    def _change(self, node: _Node, request: Resources, sign: int) -> None:
        is_reserved = node.alike is None
        self._leave(node)
        node.add(request, sign)
        if not is_reserved:
            self._join(node)

    def _join(self, node: _Node) -> None:
        total = tuple(node.total.get(name, 0.0) for name in self._names)
        used = tuple(node.used.get(name, 0.0) for name in self._names)
        group = self._alike.get((total, used))
        if group is None:
            free = tuple(there - taken for there, taken in zip(total, used, strict=True))
            group = self._alike[total, used] = _Alike(total, free)
        group.add(node)

    def _leave(self, node: _Node) -> None:
        group, node.alike = node.alike, None
        if group is not None:
            group.members -= 1
            if not group.members:
                used = tuple(node.used.get(name, 0.0) for name in self._names)
                del self._alike[group.total, used]

    def _tell_apart_by(self, names: set[str]) -> None:
        """Group nodes anew, by further resources: what nobody asks for tells no two nodes apart."""
        self._names = tuple(sorted({*self._names, *names}))
        self._alike = {}
        reserved = {node.name for node in self._reserved}
        for node in self._nodes.values():
            if node.name not in reserved:
                self._join(node)


def _scarcest_first(name: str) -> tuple[bool, bool, str]:
    """Order resources: GPUs, then CPUs, then the rest."""
    return name != "GPU", name != "CPU", name
