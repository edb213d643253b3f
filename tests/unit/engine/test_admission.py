from __future__ import annotations

from raysweep.engine.admission import Admission

HALF, WHOLE = {"CPU": 1.0, "GPU": 0.5}, {"CPU": 1.0, "GPU": 1.0}
TWO_NODES = [{"CPU": 4.0, "GPU": 1.0}, {"CPU": 4.0, "GPU": 1.0}]


def test_half_a_gpu_on_each_of_two_nodes_is_not_one():
    admission = Admission(TWO_NODES)
    # The first half goes to one node, a whole to the other, and once that is back the halves lie on two nodes.
    assert admission.admit("half", HALF)
    assert admission.admit("whole", WHOLE)
    assert admission.admit("half2", HALF)
    admission.release("whole")
    assert admission.admit("whole2", WHOLE)
    assert not admission.admit("whole3", WHOLE)
    split = Admission([{"CPU": 1.0, "GPU": 0.5}, {"CPU": 1.0, "GPU": 0.5}])
    assert not split.admit("whole", WHOLE)
    assert not split.can_ever_hold(WHOLE)


def test_fractions_share_a_node_before_they_open_another():
    admission = Admission(TWO_NODES)
    assert admission.admit("a", HALF)
    assert admission.admit("b", HALF)
    assert admission.admit("whole", WHOLE)


def test_the_head_of_the_queue_reserves_a_node_from_those_behind_it():
    admission = Admission([{"CPU": 2.0}])
    assert admission.admit("small", {"CPU": 1.0})
    admission.begin_round()
    assert not admission.admit("large", {"CPU": 2.0})
    assert not admission.admit("small2", {"CPU": 1.0})
    admission.release("small")
    admission.begin_round()
    assert admission.admit("large", {"CPU": 2.0})


def test_a_request_that_no_node_can_hold_reserves_none():
    admission = Admission([{"CPU": 2.0}])
    assert not admission.admit("huge", {"CPU": 3.0})
    assert admission.admit("small", {"CPU": 1.0})


def test_releasing_what_is_not_held_changes_nothing():
    admission = Admission([{"CPU": 1.0}])
    admission.release("nobody")
    assert admission.admit("a", {"CPU": 1.0})
    admission.release("a")
    admission.release("a")
    assert admission.admit("b", {"CPU": 1.0})
    assert not admission.admit("c", {"CPU": 1.0})


def test_a_node_that_joins_late_is_used_and_one_that_is_lost_holds_nothing():
    admission = Admission({"a": {"CPU": 1.0}})
    assert admission.admit("first", {"CPU": 1.0}) == "a"
    assert admission.admit("second", {"CPU": 1.0}) is None
    admission.begin_round()
    admission.update({"a": {"CPU": 1.0}, "b": {"CPU": 1.0}})
    assert admission.admit("second", {"CPU": 1.0}) == "b"
    assert admission.use("CPU") == (2.0, 2.0)
    admission.update({"b": {"CPU": 1.0}})
    assert not admission.has("a")
    admission.release("first")
    assert admission.use("CPU") == (1.0, 1.0)


def test_a_stage_that_ray_placed_elsewhere_holds_room_there():
    admission = Admission({"a": {"CPU": 1.0}, "b": {"CPU": 2.0}})
    assert admission.admit("stage", {"CPU": 1.0}) == "a"
    admission.move("stage", "b")
    assert admission.node_of("stage") == "b"
    assert admission.admit("whole b", {"CPU": 2.0}) is None
    admission.begin_round()
    assert admission.admit("other", {"CPU": 1.0}) == "a"
    admission.move("stage", "unknown")
    assert admission.node_of("stage") == "b"
    admission.release("stage")
    assert admission.node_of("stage") is None


def test_shares_of_two_gpus_of_a_node_are_not_one_gpu():
    admission = Admission([{"CPU": 8.0, "GPU": 2.0}])
    more_than_half = {"CPU": 1.0, "GPU": 0.6}
    assert admission.admit("a", more_than_half)
    assert admission.admit("b", more_than_half)
    assert not admission.admit("c", more_than_half)  # 0.8 GPUs are free, 0.4 on each
    admission.begin_round()
    assert admission.admit("small", {"CPU": 1.0, "GPU": 0.4})
    admission.release("b")
    admission.begin_round()
    assert admission.admit("whole", WHOLE)  # the small one shares the first GPU
    assert not admission.admit("d", {"CPU": 1.0, "GPU": 0.1})


def test_a_stage_that_the_cluster_has_placed_where_there_is_no_room_is_counted_there():
    admission = Admission({"a": {"CPU": 4.0, "GPU": 1.0}, "b": {"CPU": 4.0, "GPU": 1.0}})
    assert {admission.admit("x", WHOLE), admission.admit("y", WHOLE)} == {"a", "b"}
    admission.move("x", admission.node_of("y"))
    assert admission.node_of("x") == admission.node_of("y")
    assert admission.use("GPU") == (2.0, 2.0)
    assert admission.admit("z", WHOLE)
    admission.release("x")
    admission.release("y")
    admission.begin_round()
    assert admission.admit("w", WHOLE)
