from __future__ import annotations

from types import SimpleNamespace

import pytest

from raysweep.engine import cluster as module
from raysweep.engine.cluster import Cluster


@pytest.fixture
def world(monkeypatch):
    world = SimpleNamespace(
        nodes=[{"NodeID": "a", "Alive": True, "Resources": {"CPU": 2.0}}], asked=[], now=0.0, draining={}
    )
    monkeypatch.setattr(module.ray, "nodes", lambda: world.nodes)
    monkeypatch.setattr(module.state, "get_draining_nodes", lambda: world.draining)
    monkeypatch.setattr(module, "request_resources", lambda bundles: world.asked.append(bundles))
    monkeypatch.setattr(module.time, "monotonic", lambda: world.now)
    return world


def test_nodes_are_read_anew_every_few_seconds_and_at_once_when_asked(world):
    cluster = Cluster(may_grow=True)
    assert cluster.nodes() == {"a": {"CPU": 2.0}}
    world.nodes = [*world.nodes, {"NodeID": "b", "Alive": True, "Resources": {"GPU": 1.0}}]
    world.nodes[0] = {**world.nodes[0], "Alive": False}
    world.now = 1.0
    assert cluster.nodes() == {"a": {"CPU": 2.0}}
    assert cluster.nodes(now=True) == {"b": {"GPU": 1.0}}
    world.now = 10.0
    world.nodes = []
    assert cluster.nodes() == {}


def test_node_that_is_about_to_go_away_is_not_there_to_stay(world):
    cluster = Cluster(may_grow=True)
    world.nodes = [*world.nodes, {"NodeID": "b", "Alive": True, "Resources": {"CPU": 1.0}}]
    world.draining = {"b": 1_800_000_000_000}
    assert cluster.nodes() == {"a": {"CPU": 2.0}}
    assert cluster.draining == {"b"}


def test_a_missing_node_may_come_for_some_minutes_on_a_cluster_only(world):
    request = {"CPU": 1.0, "GPU": 8.0}
    assert not Cluster(may_grow=False).may_come(request)
    cluster = Cluster(may_grow=True)
    assert cluster.may_come(request)
    world.now = 599.0
    assert cluster.may_come(request)
    world.now = 601.0
    assert not cluster.may_come(request)
    assert cluster.may_come({"CPU": 64.0}), "another request has its own time"


def test_an_autoscaler_is_told_only_what_is_new(world):
    cluster = Cluster(may_grow=True)
    for wanted in ([{"CPU": 1.0}], [{"CPU": 1.0}], [{"CPU": 1.0}] * 2):
        cluster.ask_for(wanted)
    for _ in range(2):
        cluster.close()
    assert world.asked == [[{"CPU": 1.0}], [{"CPU": 1.0}] * 2, []]
