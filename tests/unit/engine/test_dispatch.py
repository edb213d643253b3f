"""Handing out stages to nodes: reservations, warm workers, nodes that may come."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raysweep.engine.dispatch import Dispatcher
from raysweep.engine.queue import StageQueue
from raysweep.engine.requests import Requests
from raysweep.planning import Plan
from raysweep.planning.cost import Rates
from tests.fake_stages import Fake, fake_plan

GPUS = {"pretrain": {"gpus": 1}, "finetune": {"gpus": 0.5}}
TWO_NODES = {"a": {"CPU": 8.0, "GPU": 1.0}, "b": {"CPU": 8.0, "GPU": 1.0}}


@pytest.fixture
def refused():
    return []


def dispatcher_of(fakes, refused, *, resources=GPUS, **options) -> Dispatcher:
    planned = fake_plan(fakes, resources)
    stages = {key: replace(stage, shape=stage.name.split()[0]) for key, stage in planned.stages.items()}
    plan = Plan(planned.study, (), stages)
    requests = Requests(plan.study.resources, Rates())
    queue = StageQueue(plan, {}, group_of=requests.group)
    nodes = options.pop("nodes", TWO_NODES)
    return Dispatcher(queue, requests, nodes, refuse=lambda stage, why: refused.append((stage.name, why)), **options)


def handed_out(dispatcher: Dispatcher, nodes=TWO_NODES) -> list[str]:
    found = []
    while (assignment := dispatcher.next(nodes)) is not None:
        found.append(assignment.stage.name)
    return found


def test_stages_of_several_shapes_that_ask_for_the_same_reserve_one_node_together(refused):
    small = [Fake("small 1", epochs=9), Fake("small 2", epochs=8), Fake("small 3", epochs=7)]
    large = [Fake("large", epochs=5, kind="pretrain"), Fake("larger", epochs=4, kind="pretrain")]
    late = [Fake("small 4", epochs=1)]
    dispatcher = dispatcher_of([*small, *large, *late], refused)
    # Two small ones fill a node and the third is on the other, which the first large one reserves: none is left.
    assert handed_out(dispatcher) == ["small 1", "small 2", "small 3"]
    three = {**TWO_NODES, "c": {"CPU": 8.0, "GPU": 0.5}, "d": {"CPU": 8.0, "GPU": 1.0}}
    assert handed_out(dispatcher, three) == ["large", "small 4"]  # the second large one reserves one node, not two


def test_a_stage_that_no_node_can_hold_is_refused_unless_a_node_may_come(refused):
    waits = dispatcher_of([Fake("huge", kind="pretrain")], refused, nodes={"c": {"CPU": 1.0}}, may_come=lambda _: True)
    assert handed_out(waits, {"c": {"CPU": 1.0}}) == []
    assert refused == []
    assert handed_out(waits) == ["huge"]
    fails = dispatcher_of([Fake("huge", kind="pretrain")], refused, nodes={"c": {"CPU": 1.0}})
    assert handed_out(fails, {"c": {"CPU": 1.0}}) == []
    assert refused == [("huge", "no node has room for {'CPU': 1.0, 'GPU': 1.0}; the nodes have [{'CPU': 1.0}]")]


def test_a_warm_worker_is_given_a_stage_that_asks_for_the_same_before_one_of_little_more_priority(refused):
    fakes = [Fake("first", epochs=9), Fake("large", epochs=5, kind="pretrain"), Fake("second", epochs=4)]
    one = {"a": {"CPU": 8.0, "GPU": 1.0}}
    for leaves_worker, following in ((True, "second"), (False, "large")):
        dispatcher = dispatcher_of(fakes, refused, nodes=one)
        first = dispatcher.next(one)
        assert first.stage.name == "first"
        dispatcher._queue.finished(first.stage.id)
        dispatcher.ended(first, leaves_worker=leaves_worker)
        assert dispatcher.next(one).stage.name == following
