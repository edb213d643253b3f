from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from raysweep.engine.admission import Admission

AMOUNTS = st.sampled_from([0.1, 0.25, 1 / 3, 0.5, 1.0, 2.0])
NODES = st.lists(
    st.fixed_dictionaries({"CPU": st.sampled_from([1.0, 2.0, 4.0])}, optional={"GPU": st.sampled_from([1.0, 2.0])}),
    min_size=1,
    max_size=3,
)
REQUESTS = st.fixed_dictionaries({"CPU": AMOUNTS}, optional={"GPU": AMOUNTS})


def fits(requests: list[dict[str, float]], nodes: list[dict[str, float]]) -> bool:
    """Whether some placement holds all requests, tried one by one."""
    if not requests:
        return True
    first, *rest = requests
    for position, node in enumerate(nodes):
        if all(node.get(name, 0.0) + 1e-6 >= amount for name, amount in first.items()):
            left = {name: free - first.get(name, 0.0) for name, free in node.items()}
            if fits(rest, [*nodes[:position], left, *nodes[position + 1 :]]):
                return True
    return False


@given(NODES, st.lists(st.tuples(st.booleans(), st.integers(0, 5), REQUESTS), max_size=25))
def test_what_is_admitted_always_fits_and_everything_comes_back(nodes, actions):
    admission = Admission(nodes)
    held: dict[str, dict[str, float]] = {}
    for is_admission, number, request in actions:
        stage = f"s{number}"
        admission.begin_round()
        if is_admission and stage not in held:
            if admission.admit(stage, request):
                held[stage] = request
                assert fits(sorted(held.values(), key=lambda r: -sum(r.values())), nodes)
            else:
                assert held or not admission.can_ever_hold(request)
        elif not is_admission:
            admission.release(stage)
            held.pop(stage, None)
    for stage in list(held):
        admission.release(stage)
    for node in nodes:
        admission.begin_round()
        assert admission.admit("as large as a node", node)
        admission.release("as large as a node")
