"""Which node has room for a stage: a model of each node and GPU, for half of one and half of another is not one."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
    gpus: list[float] = field(default_factory=list)
    """What is free of each GPU."""
    alike: _Alike | None = None
    """The group that it is in; None while it is reserved."""

    def set_total(self, total: Resources) -> None:
        """Take what the node has; stages that hold a GPU keep it as far as it is still there."""
        before, self.total = _gpus_of(self.total), dict(total)
        taken = [there - free for there, free in zip(before, self.gpus, strict=True)]
        now = _gpus_of(total)
        self.gpus = [there - by for there, by in zip(now, [*taken, *([0.0] * len(now))], strict=False)]

    def take(self, request: Resources) -> list[tuple[int, float]]:
        """Count a request as used, and return which GPUs it holds, and how much of each."""
        self._count(request, +1)
        held = []
        for amount in _parts(request.get("GPU", 0.0)):
            # As Ray does: the GPU with the least room that is enough. Where there is none, Ray has placed it somewhere.
            enough = [place for place, free in enumerate(self.gpus) if free + _EPSILON >= amount]
            if enough or self.gpus:
                chosen = min(enough or range(len(self.gpus)), key=lambda place: (self.gpus[place], place))
                self.gpus[chosen] = round(self.gpus[chosen] - amount, _DIGITS)
                held.append((chosen, amount))
        return held

    def give_back(self, request: Resources, held: Sequence[tuple[int, float]]) -> None:
        """Count a request as used no more."""
        self._count(request, -1)
        for place, amount in held:
            if place < len(self.gpus):
                self.gpus[place] = round(self.gpus[place] + amount, _DIGITS)

    def _count(self, request: Resources, sign: int) -> None:
        for name, amount in request.items():
            self.used[name] = round(self.used.get(name, 0.0) + sign * amount, _DIGITS)


@dataclass(frozen=True)
class _Held:
    """What a stage holds, and where."""

    node: str
    request: Resources
    gpus: Sequence[tuple[int, float]]


@dataclass
class _Alike:
    """Nodes that nobody has reserved, with equal resources, of which as much is in use: to a request they are one."""

    total: tuple[float, ...]
    free: tuple[float, ...]
    gpus: tuple[float, ...]
    """What is free of each GPU, the least first."""
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
        self._held: dict[str, _Held] = {}
        self._reserved: list[_Node] = []
        self._names: tuple[str, ...] = ()
        self._alike: dict[tuple[tuple[float, ...], ...], _Alike] = {}
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
                self._nodes[name] = node = _Node(name, self._num_joined, dict(total), gpus=_gpus_of(total))
                self._join(node)
            elif known.total != total:
                is_reserved = known.alike is None
                self._leave(known)
                known.set_total(total)
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
        gpu = request.get("GPU", 0.0)
        groups = self._alike.values()
        fitting = [
            g
            for g in groups
            if all(g.free[place] + _EPSILON >= amount for place, amount in wanted) and _fits(g.gpus, gpu)
        ]
        if fitting:
            # The least room left, scarcest resource first; among equals, the node that joined first.
            options = [
                (tuple(g.free[place] - amount for place, amount in wanted), g.first(self._nodes).order, g)
                for g in fitting
            ]
            node = min(options, key=lambda option: option[:2])[2].first(self._nodes)
            self._hold(stage, node, request)
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
        if held is not None and held.node != node and node in self._nodes:
            self.release(stage)
            self._hold(stage, self._nodes[node], held.request)

    def release(self, stage: str) -> None:
        """Give back what a stage held."""
        held = self._held.pop(stage, None)
        if held is not None and held.node in self._nodes:
            node = self._nodes[held.node]
            with self._regrouped(node):
                node.give_back(held.request, held.gpus)

    def node_of(self, stage: str) -> str | None:
        """Return the node that a stage was admitted to; None if it holds nothing."""
        return self._held[stage].node if stage in self._held else None

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

    def _hold(self, stage: str, node: _Node, request: Resources) -> None:
        with self._regrouped(node):
            self._held[stage] = _Held(node.name, request, node.take(request))

    @contextmanager
    def _regrouped(self, node: _Node) -> Iterator[None]:
        """Let a node change, and put it with those that it is like then; a reserved one stays reserved."""
        is_reserved = node.alike is None
        self._leave(node)
        yield
        if not is_reserved:
            self._join(node)

    def _join(self, node: _Node) -> None:
        key = self._likeness(node)
        group = self._alike.get(key)
        if group is None:
            total, used, gpus = key
            free = tuple(there - taken for there, taken in zip(total, used, strict=True))
            group = self._alike[key] = _Alike(total, free, gpus)
        group.add(node)

    def _leave(self, node: _Node) -> None:
        group, node.alike = node.alike, None
        if group is not None:
            group.members -= 1
            if not group.members:
                del self._alike[self._likeness(node)]

    def _likeness(self, node: _Node) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
        total = tuple(node.total.get(name, 0.0) for name in self._names)
        used = tuple(node.used.get(name, 0.0) for name in self._names)
        return total, used, tuple(sorted(node.gpus))

    def _tell_apart_by(self, names: set[str]) -> None:
        """Group nodes anew, by further resources: what nobody asks for tells no two nodes apart."""
        self._names = tuple(sorted({*self._names, *names}))
        self._alike = {}
        reserved = {node.name for node in self._reserved}
        for node in self._nodes.values():
            if node.name not in reserved:
                self._join(node)


def _gpus_of(total: Resources) -> list[float]:
    """Return how much of each GPU a node has: whole ones, and the rest as one more."""
    return _parts(total.get("GPU", 0.0))


def _parts(amount: float) -> list[float]:
    whole = int(amount + _EPSILON)
    rest = amount - whole
    return [1.0] * whole + ([rest] if rest > _EPSILON else [])


def _fits(gpus: Sequence[float], amount: float) -> bool:
    """Whether a request finds its GPUs: a share on one of them, whole ones untouched; ``gpus`` has the least first."""
    parts = _parts(amount)
    return len(parts) <= len(gpus) and all(
        free + _EPSILON >= part for free, part in zip(reversed(gpus), parts, strict=False)
    )


def _scarcest_first(name: str) -> tuple[bool, bool, str]:
    """Order resources: GPUs, then CPUs, then the rest."""
    return name != "GPU", name != "CPU", name
