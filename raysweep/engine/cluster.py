"""The nodes of a Ray cluster, as they come and go, and what raysweep asks an autoscaler for."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import ray
from ray._private.state import state
from ray.autoscaler.sdk import request_resources

_REFRESH_S = 2.0
_NEW_NODE_WAIT_S = 600.0
_MAX_REQUESTS = 1000


class Cluster:
    """What the cluster has now.

    An autoscaler starts nodes for what waits to be placed. The queue places nothing before there is room, so that the
    order of stages is its own: it states what it could run instead.
    """

    def __init__(self, *, may_grow: bool) -> None:
        self.may_grow = may_grow
        """Whether nodes may join: it is a cluster that somebody else has started."""
        self._read_at = float("-inf")
        self._nodes: dict[str, dict[str, float]] = {}
        self.draining: frozenset[str] = frozenset()
        """Nodes that are about to go away: nothing is placed there, and what runs there is to save its state."""
        self._asked: list[dict[str, float]] = []
        self._missing_since: dict[tuple[tuple[str, float], ...], float] = {}

    def nodes(self, *, now: bool = False) -> Mapping[str, Mapping[str, float]]:
        """Return the resources of every node that is there to stay, by node id; read anew every few seconds."""
        if now or time.monotonic() - self._read_at > _REFRESH_S:
            self.draining = frozenset(state.get_draining_nodes())
            there = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
            self._nodes = {name: has for name, has in there.items() if name not in self.draining}
            self._read_at = time.monotonic()
        return self._nodes

    def may_come(self, request: Mapping[str, float]) -> bool:
        """Whether a node with room for a request may still join: on a cluster, for some minutes after it was missed."""
        if not self.may_grow:
            return False
        since = self._missing_since.setdefault(tuple(sorted(request.items())), time.monotonic())
        return time.monotonic() - since < _NEW_NODE_WAIT_S

    def ask_for(self, requests: Sequence[Mapping[str, float]]) -> None:
        """Tell the autoscaler, if there is one, what could run now; nothing if it was told so before."""
        wanted = [dict(request) for request in requests[:_MAX_REQUESTS]]
        if wanted != self._asked:
            request_resources(bundles=wanted)
            self._asked = wanted

    def close(self) -> None:
        """Ask for nothing any more, so that an autoscaler may take nodes away."""
        if self._asked:
            self.ask_for([])
